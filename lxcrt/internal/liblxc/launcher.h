//go:build linux && cgo && !nolxc

#ifndef LXCRT_LAUNCHER_H
#define LXCRT_LAUNCHER_H

#include <sys/types.h>

#define LAUNCHER_MARKER "lxcrt-launcher"
#define LAUNCHER_ENV "LXCRT_LAUNCHER"

/* Where the container's root stands in the monitor's mount namespace. Any folder
 * that every Debian has and that liblxc needs nothing from would do. */
#define LAUNCHER_STAGE "/mnt"

/* Descriptors that the launcher is started with. */
enum { FD_SOCK = 3, FD_READY = 4, FD_GO = 5 };

/* Descriptors that a logger is started with; the slave is held so that the
 * console's master reports no end while nobody has it open. */
enum { LOG_OUT = 3, LOG_ERR = 4, LOG_CONSOLE = 5, LOG_SLAVE = 6 };

/* fail sends "E<errno> <step>" over the socket and ends the process. */
void fail(const char *step) __attribute__((noreturn));

/* confine_calls installs the system call filter that every process of a container
 * has; what is executed later inherits it. */
void confine_calls(void);
/* confine_oom takes over a process's place in the order in which the kernel kills
 * for want of memory; given itself, it gives up being spared. */
void confine_oom(pid_t init);
/* confine_limits takes over PID 1's hard resource limits; before the namespaces. */
void confine_limits(pid_t init);
/* confine_label reads PID 1's AppArmor label, or "" where there is none. */
void confine_label(pid_t init, char *label, size_t size);
/* confine_caps drops the listed capabilities from the bounding set. */
void confine_caps(char *list);

int launcher_start(int argc, char **argv);
int launcher_exec(int argc, char **argv, char **envp);
int launcher_log(int argc, char **argv) __attribute__((noreturn));

#endif
