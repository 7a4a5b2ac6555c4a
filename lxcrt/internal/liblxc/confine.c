//go:build linux && cgo && !nolxc

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launcher.h"

/* The system calls that no container gets, whatever its user namespace would say
 * to them: they reach the whole kernel, or have been the way out of a container
 * time and again. mount, umount, pivot_root, unshare, setns, clone and keyctl are
 * left alone on purpose: subcontainers are made with them.
 *
 * It is our own filter and not a profile of liblxc's, since programs that are
 * executed later have to get the very same one. */
#if defined(__x86_64__)
#define ARCH_NATIVE AUDIT_ARCH_X86_64
#define ARCH_COMPAT AUDIT_ARCH_I386
#define X32_BIT 0x40000000
/* In the order of native_calls, as they are numbered for 32-bit programs. */
static const unsigned compat_calls[] = {51, 357, 129, 350, 128, 101, 110, 283, 342, 336, 131, 115, 87, 374, 425, 426, 427, 443};
#define COMPAT_UMOUNT2 52
#elif defined(__aarch64__)
#define ARCH_NATIVE AUDIT_ARCH_AARCH64
#define ARCH_COMPAT AUDIT_ARCH_ARM
static const unsigned compat_calls[] = {51, 386, 129, 379, 128, 347, 371, 364, 131, 115, 87, 388, 401, 425, 426, 427, 443};
#define COMPAT_UMOUNT2 52
#elif defined(__riscv)
#define ARCH_NATIVE AUDIT_ARCH_RISCV64
#define ARCH_COMPAT AUDIT_ARCH_RISCV32
static const unsigned compat_calls[] = {89, 280, 106, 273, 105, 104, 265, 241, 60, 225, 224, 282, 294, 425, 426, 427, 443};
#define COMPAT_UMOUNT2 39
#endif

#ifdef ARCH_NATIVE
static const unsigned native_calls[] = {
	SYS_acct, SYS_bpf, SYS_delete_module, SYS_finit_module, SYS_init_module,
#ifdef SYS_ioperm
	SYS_ioperm, SYS_iopl,
#endif
	SYS_kexec_load, SYS_kexec_file_load, SYS_open_by_handle_at, SYS_perf_event_open, SYS_quotactl,
	SYS_swapoff, SYS_swapon, SYS_userfaultfd, 425, 426, 427, /* io_uring_setup, _enter, _register */
	443, /* quotactl_fd */
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static size_t denials(struct sock_filter *f, const unsigned *calls, size_t count, unsigned umount2)
{
	size_t n = 0;

	/* A forced unmount could take a network file system of the host's away. */
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, umount2, 0, 4);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		+ 4
#endif
	);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1 /* MNT_FORCE */, 0, 1);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	for (size_t i = 0; i < count; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return n;
}

void confine_calls(void)
{
	struct sock_filter f[128];
	struct sock_fprog prog = {.filter = f};
	size_t n = 0, jump;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_NATIVE, 1, 0);
	jump = n++;
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
#ifdef X32_BIT
	/* The x32 calls have numbers of their own; nothing of today uses them. */
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
#endif
	n += denials(f + n, native_calls, COUNT(native_calls), SYS_umount2);
	f[jump] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (unsigned)(n - jump - 1));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_COMPAT, 1, 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	n += denials(f + n, compat_calls, COUNT(compat_calls), COMPAT_UMOUNT2);
	prog.len = (unsigned short)n;
	/* Needs CAP_SYS_ADMIN in the own user namespace instead of no_new_privs, which
	 * would take setuid programs away. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		fail("seccomp filter");
}
#else
void confine_calls(void)
{
	errno = ENOSYS;
	fail("seccomp filter for this processor");
}
#endif

void confine_oom(pid_t init)
{
	char path[64], text[16];
	int own, fd;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", init);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		fail("oom score");
	close(fd);
	text[n] = 0;
	own = atoi(text);
	/* A caller that the kernel is told to spare shall not pass that on. */
	if (init == getpid()) {
		if (own >= 0)
			return;
		own = 0;
	}
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	n = snprintf(text, sizeof text, "%d", own);
	/* EACCES: it was lower, which not even root may go back to everywhere. */
	if (fd < 0 || (write(fd, text, (size_t)n) != n && errno != EACCES))
		fail("oom score");
	close(fd);
}

void confine_limits(pid_t init)
{
	for (int r = 0; r < RLIM_NLIMITS; r++) {
		struct rlimit own, theirs;

		if (prlimit(init, r, NULL, &theirs) < 0)
			fail("limits of PID 1");
		if (getrlimit(r, &own) < 0)
			continue;
		own.rlim_max = theirs.rlim_max;
		if (own.rlim_cur > own.rlim_max)
			own.rlim_cur = own.rlim_max;
		if (setrlimit(r, &own) < 0 && errno != EPERM) /* EPERM: ours is lower, and stays */
			fail("limits");
	}
}

void confine_label(pid_t init, char *label, size_t size)
{
	static const char *const files[] = {"/proc/%d/attr/apparmor/current", "/proc/%d/attr/current"};

	label[0] = 0;
	for (size_t i = 0; i < 2; i++) {
		char path[64];
		ssize_t n;
		int fd;

		snprintf(path, sizeof path, files[i], init);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, label, size - 1);
		close(fd);
		if (n <= 0) { /* no such module */
			label[0] = 0;
			continue;
		}
		label[n] = 0;
		label[strcspn(label, "\n")] = 0;
		if (strrchr(label, '(') && strrchr(label, '(') > label)
			*(strrchr(label, '(') - 1) = 0; /* the mode */
		return;
	}
}

void confine_caps(char *list)
{
	char *save = NULL;

	for (char *c = strtok_r(list, ",", &save); c; c = strtok_r(NULL, ",", &save))
		if (prctl(PR_CAPBSET_DROP, atoi(c), 0, 0, 0) < 0 && errno != EINVAL) /* EINVAL: the kernel has none of that number */
			fail("capabilities");
}
