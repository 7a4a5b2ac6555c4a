//go:build linux && cgo && !nolxc

#ifndef LXCRT_LAUNCHER_H
#define LXCRT_LAUNCHER_H

#define LAUNCHER_MARKER "lxcrt-launcher"
#define LAUNCHER_ENV "LXCRT_LAUNCHER"

/* Where the container's root stands in the monitor's mount namespace. Any folder
 * that every Debian has and that liblxc needs nothing from would do. */
#define LAUNCHER_STAGE "/mnt"

/* Descriptors that the launcher is started with. */
enum { FD_SOCK = 3, FD_READY = 4, FD_GO = 5 };

/* fail sends "E<errno> <step>" over the socket and ends the process. */
void fail(const char *step) __attribute__((noreturn));

int launcher_start(int argc, char **argv);
int launcher_exec(int argc, char **argv, char **envp);

#endif
