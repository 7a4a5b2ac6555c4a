//go:build linux && cgo && !nolxc

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sched.h>
#include <unistd.h>
#include <lxc/lxccontainer.h>

#include "launcher.h"

#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define MOVE_F_EMPTY 0x4

void fail(const char *step)
{
	char msg[256];
	int e = errno;
	int n = snprintf(msg, sizeof msg, "E%d %s", e, step);

	if (n > 0)
		(void)!send(FD_SOCK, msg, (size_t)n, MSG_NOSIGNAL);
	_exit(1);
}

/* receive_fd takes one descriptor; the peer's death is an end, not an error. */
static int receive_fd(void)
{
	char byte;
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
	struct cmsghdr *c;
	ssize_t n;
	int fd;

	do
		n = recvmsg(FD_SOCK, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		_exit(1);
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
		errno = EPROTO;
		fail("receive the root");
	}
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return fd;
}

/* record leaves the outcome beside the container's other files, whole or not at
 * all, so that a caller who was away finds it. */
static void record(const char *file, bool started, int status)
{
	char tmp[4096], line[64];
	int fd, n;

	if (snprintf(tmp, sizeof tmp, "%s.new", file) >= (int)sizeof tmp)
		return;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	n = snprintf(line, sizeof line, "{\"started\":%s,\"status\":%d}\n", started ? "true" : "false", status);
	if (write(fd, line, (size_t)n) == n)
		(void)rename(tmp, file);
	close(fd);
}

/* argv: marker, "start", name, container's folder, liblxc's path, exit file,
 * PID 1's argv... */
int launcher_start(int argc, char **argv)
{
	char file[4096], self[32];
	struct lxc_container *c;
	const char *name, *dir, *path, *outcome;
	bool ok;
	int tree, status;

	if (argc < 7) {
		errno = EINVAL;
		fail("arguments");
	}
	name = argv[2];
	dir = argv[3];
	path = argv[4];
	outcome = argv[5];
	for (int fd = FD_SOCK; fd <= FD_GO; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			fail("descriptors");
	umask(022);
	if (chdir("/") < 0)
		fail("folder");
	(void)prctl(PR_SET_NAME, "lxcrt-monitor");

	/* A slave of the host's tree: what the host unmounts goes away here too,
	 * and nothing that is mounted here shows there. */
	if (unshare(CLONE_NEWNS) < 0)
		fail("mount namespace");
	if (mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		fail("mount propagation");

	/* The state folder is for root alone, but container root has to reach its
	 * root: so that stands in a small file system of its own, here only. */
	if (mount("lxcrt", LAUNCHER_STAGE, "tmpfs", MS_NOSUID, "mode=0755,size=64k") < 0)
		fail("stage on " LAUNCHER_STAGE);
	if (mkdir(LAUNCHER_STAGE "/root", 0755) < 0 || mkdir(path, 0755) < 0)
		fail("stage");
	/* liblxc's lock files: nobody else opens this container. */
	if (mount("lxcrt", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k") < 0)
		fail("lock folder");
	tree = receive_fd();
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, LAUNCHER_STAGE "/root", MOVE_F_EMPTY) < 0)
		fail("attach the root");
	close(tree);

	/* No PATH: newuidmap, if liblxc found it, would refuse every range that
	 * /etc/subuid lacks, while root may write any map itself. */
	clearenv();
	setenv("PATH", "/nonexistent", 1);
	snprintf(self, sizeof self, "/proc/%d", getpid());
	setenv("LXCRT_SELF", self, 1);

	/* The monitor is bound by the container's filter as well, and PID 1 inherits it. */
	confine_oom(getpid());
	confine_calls();

	c = lxc_container_new(name, path);
	if (!c) {
		errno = ENOMEM;
		fail("liblxc container");
	}
	c->clear_config(c);
	if (snprintf(file, sizeof file, "%s/config", dir) >= (int)sizeof file) {
		errno = ENAMETOOLONG;
		fail("state folder");
	}
	if (!c->load_config(c, file)) {
		errno = EINVAL;
		fail("liblxc configuration");
	}
	c->want_daemonize(c, false);
	c->want_close_all_fds(c, false);
	ok = c->start(c, 0, &argv[6]);
	status = c->error_num;
	record(outcome, ok, status);
	_exit(ok ? 0 : 1);
}

/* The one entry point. The marker must stand in argv[0] and in the environment:
 * no user types both by accident. */
__attribute__((constructor)) static void launcher_entry(int argc, char **argv, char **envp)
{
	const char *mode;

	if (argc < 2 || !argv || strcmp(argv[0], LAUNCHER_MARKER) != 0)
		return;
	mode = getenv(LAUNCHER_ENV);
	if (!mode || strcmp(mode, argv[1]) != 0)
		return;
	if (strcmp(mode, "start") == 0) {
		(void)syscall(SYS_close_range, FD_GO + 1, ~0U, 0);
		launcher_start(argc, argv);
	} else if (strcmp(mode, "exec") == 0) {
		(void)syscall(SYS_close_range, FD_SOCK + 1, ~0U, 0);
		launcher_exec(argc, argv, envp);
	} else if (strcmp(mode, "log") == 0) {
		(void)syscall(SYS_close_range, LOG_SLAVE + 1, ~0U, 0);
		launcher_log(argc, argv);
	}
	_exit(2);
}
