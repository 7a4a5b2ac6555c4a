//go:build linux && cgo && !nolxc

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "launcher.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static long number(const char *s)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(s, &end, 10);
	if (errno || *end || end == s) {
		errno = EINVAL;
		fail("arguments");
	}
	return v;
}

static void report(pid_t pid, int fd)
{
	char text[32];
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec iov = {.iov_base = text};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	iov.iov_len = (size_t)snprintf(text, sizeof text, "P%d", pid);
	if (fd >= 0) {
		struct cmsghdr *c;

		memset(&u, 0, sizeof u);
		m.msg_control = u.buf;
		m.msg_controllen = sizeof u.buf;
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	if (sendmsg(FD_SOCK, &m, MSG_NOSIGNAL) < 0)
		_exit(1);
}

/* child_fail sends "<errno> <step>" to the parent half. */
static void child_fail(int pipe, const char *step)
{
	char msg[128];
	int n = snprintf(msg, sizeof msg, "%d %s", errno, step);

	(void)!write(pipe, msg, (size_t)n);
	_exit(127);
}

/* argv: marker, "exec", init's pid, uid, gid, groups ("1,2" or "-"), folder,
 * a terminal's size ("rows:cols") or "-", cgroup files ("a:b" or "-"),
 * capabilities that are not for it ("1,2" or ""), program's argv...
 * The environment, less the marker, becomes the program's. */
int launcher_exec(int argc, char **argv, char **envp)
{
	gid_t groups[64];
	int ngroups = 0, pidfd, selffd, proc, master = -1, slave = -1, pipes[2], status;
	char msg[128], label[512], *save = NULL;
	uid_t uid;
	gid_t gid;
	pid_t init, pid;
	ssize_t n;
	sigset_t none;
	struct pollfd p[2];

	if (argc < 11) {
		errno = EINVAL;
		fail("arguments");
	}
	(void)fcntl(FD_SOCK, F_SETFD, FD_CLOEXEC);
	(void)prctl(PR_SET_NAME, "lxcrt-exec");
	uid = (uid_t)number(argv[3]);
	gid = (gid_t)number(argv[4]);
	if (strcmp(argv[5], "-") != 0)
		for (char *g = strtok_r(argv[5], ",", &save); g && ngroups < 64; g = strtok_r(NULL, ",", &save))
			groups[ngroups++] = (gid_t)number(g);
	init = (pid_t)number(argv[2]);
	pidfd = (int)syscall(SYS_pidfd_open, init, 0);
	if (pidfd < 0)
		fail("init");
	umask(022);
	confine_oom(init);
	confine_limits(init);
	confine_label(init, label, sizeof label);
	/* The host's: what stands at /proc inside is the container's choice. */
	proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		fail("proc");
	/* Into the container's cgroups first: they cannot be reached from inside. */
	save = NULL;
	if (strcmp(argv[8], "-") != 0)
		for (char *f = strtok_r(argv[8], ":", &save); f; f = strtok_r(NULL, ":", &save)) {
			int fd = open(f, O_WRONLY | O_CLOEXEC);

			if (fd < 0 || write(fd, "0", 1) != 1)
				fail("cgroup");
			close(fd);
		}
	if (setns(pidfd, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
		fail("namespaces");
	close(pidfd);
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		fail("container root");
	/* A session keyring of its own, as PID 1 has: the caller's is nobody's business. */
	if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS && errno != EDQUOT)
		fail("keyring");
	confine_caps(argv[9]);
	confine_calls();
	if (strcmp(argv[7], "-") != 0) {
		int unlock = 0;
		struct winsize size;

		memset(&size, 0, sizeof size);
		if (sscanf(argv[7], "%hu:%hu", &size.ws_row, &size.ws_col) != 2) {
			errno = EINVAL;
			fail("arguments");
		}

		master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
			fail("terminal");
		slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (slave < 0)
			fail("terminal");
		if (ioctl(master, TIOCSWINSZ, &size) < 0)
			fail("terminal size");
		if (fchown(slave, uid, (gid_t)-1) < 0)
			fail("terminal owner");
	}
	if (pipe2(pipes, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		char **e = envp, **out = envp;
		size_t marker = strlen(LAUNCHER_ENV "=");

		close(pipes[0]);
		for (; *e; e++)
			if (strncmp(*e, LAUNCHER_ENV "=", marker) != 0)
				*out++ = *e;
		*out = NULL;
		(void)setsid();
		if (slave >= 0) {
			if (ioctl(slave, TIOCSCTTY, 0) < 0)
				child_fail(pipes[1], "controlling terminal");
			for (int fd = 0; fd < 3; fd++)
				if (dup2(slave, fd) < 0)
					child_fail(pipes[1], "terminal");
		}
		if (label[0] && strcmp(label, "unconfined") != 0) {
			char change[sizeof label + 16];
			/* At once, not as it executes: a change of profile by exec would clear
			 * the death signal that is set below. */
			int fd = openat(proc, "self/attr/apparmor/current", O_WRONLY | O_CLOEXEC);

			if (fd < 0)
				fd = openat(proc, "self/attr/current", O_WRONLY | O_CLOEXEC);
			n = snprintf(change, sizeof change, "changeprofile %s", label);
			if (fd < 0 || write(fd, change, (size_t)n) != n)
				child_fail(pipes[1], "AppArmor profile");
			close(fd);
		}
		if (setgroups((size_t)ngroups, groups) < 0)
			child_fail(pipes[1], "groups");
		if (setresgid(gid, gid, gid) < 0)
			child_fail(pipes[1], "gid");
		if (setresuid(uid, uid, uid) < 0)
			child_fail(pipes[1], "uid");
		if (chdir(argv[6]) < 0)
			child_fail(pipes[1], argv[6]);
		sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		/* It ends with the process that stands for it, which the kernel may choose
		 * when memory runs out. A change of user clears this, so it comes after. */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		environ = envp;
		execvpe(argv[10], &argv[10], envp);
		child_fail(pipes[1], argv[10]);
	}
	close(pipes[1]);
	if (slave >= 0)
		close(slave);
	n = read(pipes[0], msg, sizeof msg - 1);
	if (n > 0) {
		char *step;

		msg[n] = 0;
		step = strchr(msg, ' ');
		errno = atoi(msg);
		fail(step ? step + 1 : "exec");
	}
	close(pipes[0]);
	selffd = (int)syscall(SYS_pidfd_open, pid, 0);
	report(pid, master);
	if (master >= 0)
		close(master);
	/* Our copies of the streams would keep the other ends waiting. */
	close(0);
	close(1);
	close(2);

	/* The caller's end of the socket closes when it lets go or dies. */
	p[0] = (struct pollfd){.fd = selffd, .events = POLLIN};
	p[1] = (struct pollfd){.fd = FD_SOCK, .events = POLLIN};
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	if (!(p[0].revents & POLLIN))
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			_exit(127);
	if (WIFSIGNALED(status)) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};

		(void)prctl(PR_SET_DUMPABLE, 0);
		(void)sigaction(WTERMSIG(status), &dfl, NULL);
		(void)kill(getpid(), WTERMSIG(status));
		_exit(128 + WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}
