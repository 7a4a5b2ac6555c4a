//go:build linux && cgo && !nolxc

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launcher.h"

/* A logger holds the reading ends of a container's standard output and error and
 * the master of its console, and writes what comes as lines of JSON. It is a
 * process of its own, so that neither the death nor the return of the program
 * that started the container matters: it ends when nobody can write any more.
 *
 * Two processes: the outer one keeps the descriptors and starts the inner one
 * again if that is killed, so that the container does not lose its readers. */

#define MAX_LINE (16 << 10)
#define IDLE_MS 1000

struct stream {
	const char *name;
	int fd; /* -1 after its end */
	size_t len;
	char rest[MAX_LINE];
};

static struct {
	char dir[4096], name[256];
	long long limit, size;
	int files, fd;
	long lost;
	size_t len;
	char buf[256 << 10];
} out = {.fd = -1};

/* utf8 is the length of the sequence that s begins with: 0 if it is none, -1 if
 * it could become one with more bytes. */
static int utf8(const unsigned char *s, size_t n)
{
	unsigned char c = s[0], low = 0x80, high = 0xbf;
	int want;

	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		want = 2;
	else if (c >= 0xe0 && c <= 0xef)
		want = 3;
	else if (c >= 0xf0 && c <= 0xf4)
		want = 4;
	else
		return 0;
	if (c == 0xe0)
		low = 0xa0;
	else if (c == 0xed)
		high = 0x9f;
	else if (c == 0xf0)
		low = 0x90;
	else if (c == 0xf4)
		high = 0x8f;
	for (int i = 1; i < want; i++) {
		if ((size_t)i >= n)
			return -1;
		if (s[i] < low || s[i] > high)
			return 0;
		low = 0x80;
		high = 0xbf;
	}
	return want;
}

static void put(const char *s, size_t n)
{
	memcpy(out.buf + out.len, s, n);
	out.len += n;
}

/* entry appends one line to the buffer, which has room for it. */
static void entry(const char *stream, const char *text, size_t n)
{
	char head[96];
	struct timespec now;
	struct tm tm;
	int h;

	if (n > 0 && text[n - 1] == '\r')
		n--;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	h = snprintf(head, sizeof head, "{\"t\":\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\",\"s\":\"%s\",\"m\":\"", tm.tm_year + 1900,
		     tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec, stream);
	put(head, (size_t)h);
	for (size_t i = 0; i < n;) {
		const unsigned char *s = (const unsigned char *)text + i;
		int k = utf8(s, n - i);

		if (k <= 0) {
			put("\xef\xbf\xbd", 3);
			i++;
		} else if (k == 1 && (*s < 0x20 || *s == '"' || *s == '\\' || *s == 0x7f)) {
			h = *s == '"' || *s == '\\' ? snprintf(head, sizeof head, "\\%c", *s)
			    : *s == '\t'	    ? snprintf(head, sizeof head, "\\t")
						    : snprintf(head, sizeof head, "\\u%04x", *s);
			put(head, (size_t)h);
			i++;
		} else {
			put((const char *)s, (size_t)k);
			i += (size_t)k;
		}
	}
	put("\"}\n", 3);
}

/* path is the name of the i-th older file, or of the current one for 0. */
static bool path(char *to, size_t size, int i)
{
	int n = i == 0 ? snprintf(to, size, "%s/%s", out.dir, out.name) : snprintf(to, size, "%s/%s.%d", out.dir, out.name, i);

	return n > 0 && (size_t)n < size;
}

/* open_current goes on with the current file; a line that was cut short by a kill
 * gets its end. */
static bool open_current(void)
{
	char file[4608], last;
	struct stat st;

	if (!path(file, sizeof file, 0))
		return false;
	out.fd = open(file, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (out.fd < 0)
		return false;
	if (fstat(out.fd, &st) < 0)
		st.st_size = 0;
	out.size = st.st_size;
	if (out.size > 0 && pread(out.fd, &last, 1, out.size - 1) == 1 && last != '\n' && write(out.fd, "\n", 1) == 1)
		out.size++;
	return true;
}

static void rotate(void)
{
	char from[4608], to[4608];

	for (int i = out.files - 1; i > 0; i--)
		if (path(from, sizeof from, i - 1) && path(to, sizeof to, i))
			(void)rename(from, to);
	if (out.files == 1 && path(from, sizeof from, 0))
		(void)unlink(from);
	close(out.fd);
	out.fd = -1;
}

/* flush writes the buffer. What cannot be written is counted, and said by the
 * next line that can: the container is never made to wait for a full disk. */
static void flush_out(long lines)
{
	char note[80];
	ssize_t n;

	if (out.len == 0)
		return;
	if (out.fd < 0 && !open_current()) {
		out.lost += lines;
		out.len = 0;
		return;
	}
	if (out.lost > 0) {
		/* A line of its own, after what could be written again. */
		snprintf(note, sizeof note, "lxcrt: %ld lines could not be written", out.lost);
		entry("stderr", note, strlen(note));
	}
	if (out.size > 0 && out.size + (long long)out.len > out.limit) {
		rotate();
		if (!open_current()) {
			out.lost += lines;
			out.len = 0;
			return;
		}
	}
	do
		n = write(out.fd, out.buf, out.len);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)out.len) {
		out.size += n;
		out.lost = 0;
	} else {
		out.lost += lines;
		if (n > 0 && ftruncate(out.fd, out.size) < 0)
			out.size += n;
	}
	out.len = 0;
}

/* room for one more line at its worst: six bytes for each. */
#define FULL(n) (out.len + 6 * (n) + 512 > sizeof out.buf)

static long pending;

static void line(struct stream *s, const char *text, size_t n)
{
	if (FULL(n)) {
		flush_out(pending);
		pending = 0;
	}
	entry(s->name, text, n);
	pending++;
}

/* feed cuts what came into lines; one that is too long is cut between letters. */
static void feed(struct stream *s, const char *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (data[i] == '\n') {
			line(s, s->rest, s->len);
			s->len = 0;
			continue;
		}
		if (s->len == sizeof s->rest) {
			size_t cut = s->len;

			for (size_t back = 1; back < 4; back++) {
				int k = utf8((unsigned char *)s->rest + s->len - back, back);
				if (k == -1)
					cut = s->len - back;
				if (k != 0)
					break;
			}
			line(s, s->rest, cut);
			memmove(s->rest, s->rest + cut, s->len - cut);
			s->len -= cut;
		}
		s->rest[s->len++] = data[i];
	}
}

static void finish(struct stream *s)
{
	if (s->len > 0)
		line(s, s->rest, s->len);
	s->len = 0;
}

/* take reads once; false at the end of the stream, or when there is nothing. */
static bool take(struct stream *s)
{
	static char buf[64 << 10];
	ssize_t n = read(s->fd, buf, sizeof buf);

	if (n > 0) {
		feed(s, buf, (size_t)n);
		return true;
	}
	return n < 0 && errno == EINTR;
}

static int carry(void)
{
	static struct stream streams[3] = {{.name = "stdout", .fd = LOG_OUT}, {.name = "stderr", .fd = LOG_ERR}, {.name = "console", .fd = LOG_CONSOLE}};
	char lock[4608];
	int fd;

	/* The logger of the container's last run may not be through yet. */
	if (snprintf(lock, sizeof lock, "%s/.lock", out.dir) < (int)sizeof lock) {
		fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
			;
	}
	for (int i = 0; i < 3; i++)
		(void)fcntl(streams[i].fd, F_SETFL, O_NONBLOCK);
	while (streams[0].fd >= 0 || streams[1].fd >= 0) {
		struct pollfd p[3];
		bool waiting = false;
		int ready;

		for (int i = 0; i < 3; i++) {
			p[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
			waiting |= streams[i].len > 0;
		}
		/* A line without its end, such as a prompt, is shown too after a while. */
		ready = poll(p, 3, waiting ? IDLE_MS : -1);
		if (ready == 0)
			for (int i = 0; i < 3; i++)
				finish(&streams[i]);
		for (int i = 0; ready > 0 && i < 3; i++) {
			if (p[i].revents == 0 || take(&streams[i]) || (errno == EAGAIN && !(p[i].revents & (POLLHUP | POLLERR))))
				continue;
			finish(&streams[i]);
			close(streams[i].fd);
			streams[i].fd = -1;
		}
		flush_out(pending);
		pending = 0;
	}
	while (streams[2].fd >= 0 && take(&streams[2]))
		;
	finish(&streams[2]);
	flush_out(pending);
	return 0;
}

/* argv: marker, "log", folder, file name, bytes of a file, number of files. */
int launcher_log(int argc, char **argv)
{
	if (argc != 6 || strlen(argv[2]) >= sizeof out.dir || strlen(argv[3]) >= sizeof out.name)
		_exit(2);
	strcpy(out.dir, argv[2]);
	strcpy(out.name, argv[3]);
	out.limit = atoll(argv[4]);
	out.files = atoi(argv[5]);
	umask(077);
	(void)!chdir("/");
	(void)prctl(PR_SET_NAME, "lxcrt-log");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	for (;;) {
		struct timespec moment = {.tv_nsec = 50 * 1000 * 1000};
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			_exit(carry());
		if (pid > 0) {
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			if (WIFEXITED(status))
				_exit(WEXITSTATUS(status));
		}
		nanosleep(&moment, NULL);
	}
}
