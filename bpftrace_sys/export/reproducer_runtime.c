/* The runtime: the same in every reproducer. Linux, little endian, 64 bits. */
#define _GNU_SOURCE
#pragma GCC diagnostic ignored "-Wunused-function"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

struct handle {
	int fd;			/* what a call returned; -1 where it failed */
	int seq;
	const char *loose;	/* why it may have failed */
};

struct step {
	int seq;
	const char *what;
	const char *expected;	/* fd, an errno's name, or a number */
	const char *loose;	/* why the result may differ, or NULL */
	int returns_fd;
	long user;		/* who made it, where it was refused; else -1 */
	uint64_t capabilities;
	struct handle *made;
	long (*issue)(void);	/* NULL: made is closed here */
};

static const struct step *current;
static jmp_buf out;
static char missing[600];
static const char *missing_loose;
static int as_recorded, refused, same, differ, may, not_issued;

static void not_there(const char *format, ...)
{
	va_list words;

	va_start(words, format);
	vsnprintf(missing, sizeof(missing), format, words);
	va_end(words);
	longjmp(out, 1);
}

static uint64_t fd_of(struct handle *handle)
{
	if (handle->fd < 0) {
		missing_loose = handle->loose;
		not_there("it needs what call %d returns", handle->seq);
	}
	return handle->fd;
}

/* ---- memory ---- */

static void put(void *to, size_t size, uint64_t value)
{
	memcpy(to, &value, size);
}

/* Zeros, as many as the kernel may write. */
static uint64_t room(size_t size)
{
	void *made = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (made == MAP_FAILED)
		not_there("%zu bytes of memory: %s", size, strerror(errno));
	return (uint64_t)(uintptr_t)made;
}

/* Bytes that end where memory does. */
static uint64_t torn(const void *data, size_t size)
{
	size_t page = sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
	char *start = (char *)(uintptr_t)room((pages + 1) * page);

	mprotect(start + pages * page, page, PROT_NONE);
	if (size)
		memcpy(start + pages * page - size, data, size);
	return (uint64_t)(uintptr_t)(start + pages * page - size);
}

#define ADDRESS(memory) ((uint64_t)(uintptr_t)(memory))
#define NOWHERE torn("", 0)

/* ---- calls ---- */

static void capabilities(uint64_t effective)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	syscall(SYS_capget, &header, data);
	data[0].effective = (uint32_t)effective & data[0].permitted;
	data[1].effective = (uint32_t)(effective >> 32) & data[1].permitted;
	syscall(SYS_capset, &header, data);
}

static long issue(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	long ret;
	int error;

	if (as_recorded && current->user >= 0) {
		if (seteuid(current->user))
			perror("seteuid");
		capabilities(current->capabilities);
	}
	ret = syscall(number, a, b, c, d, e);
	error = errno;
	if (as_recorded && current->user >= 0) {
		if (seteuid(0))
			perror("seteuid");
		capabilities(~0ULL);
	}
	errno = error;
	return ret;
}

static void name_errno(int number, char *to, size_t size)
{
	size_t count = sizeof(errnos) / sizeof(*errnos);
	const char *name = number >= 0 && (size_t)number < count ? errnos[number] : NULL;

	snprintf(to, size, "%s", name ? name : "");
	if (!name)
		snprintf(to, size, "%d", number);
}

static void say(const char *got, const char *verdict)
{
	printf("%6d  %-40.40s %-10s %-10s%s%s\n", current->seq, current->what,
	       current->expected, got, *verdict ? " " : "", verdict);
	fflush(stdout);
}

static void run(const struct step *step)
{
	char got[32];
	long ret;

	current = step;
	if (!step->issue) {
		if (step->made->fd >= 0)
			close(step->made->fd);
		step->made->fd = -1;
		return;
	}
	missing_loose = NULL;
	if (setjmp(out)) {
		if (step->made)
			step->made->loose = missing_loose;
		*(missing_loose ? &may : &not_issued) += 1;
		say("not issued", missing_loose ? "may differ" : missing);
		return;
	}
	errno = 0;
	ret = step->issue();
	if (ret < 0)
		name_errno(errno, got, sizeof(got));
	else if (step->returns_fd)
		snprintf(got, sizeof(got), "fd");
	else
		snprintf(got, sizeof(got), "%ld", ret);
	if (step->made && ret >= 0)
		step->made->fd = ret;
	else if (step->returns_fd && ret >= 0)
		close(ret);
	if (!strcmp(got, step->expected)) {
		same++;
		say(got, "");
	} else if (step->loose) {
		may++;
		if (step->made)
			step->made->loose = step->loose;
		say(got, "may differ");
	} else {
		differ++;
		refused += step->user >= 0 && !as_recorded;
		say(got, "DIFFERS");
	}
}
