/* large_loads WHO FLAGS COUNT...: loads of so many claimed instructions, all of them there.
 *
 * WHO: root, nobody, or namespace (nobody with all capabilities in a user namespace of his own).
 * FLAGS: prog_flags, in hex; unknown bits make the kernel refuse whatever the count. Each result is
 * printed, and after each a lookup that fails: a short call that is to be told as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned int attr[36], at, one;
	unsigned long flags = strtoul(argv[2], 0, 16);
	char *license = "GPL";

	if (strcmp(argv[1], "root")) {
		if (setgid(65534) || setuid(65534))
			return 1;
		if (!strcmp(argv[1], "namespace") && unshare(CLONE_NEWUSER))
			return 2;
	}
	for (at = 3; at < argc; at++) {
		unsigned int count = strtoul(argv[at], 0, 10);
		unsigned long *insns = mmap(0, 8ul * count, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (one = 0; one < count; one++)
			insns[one] = 0x1000000b7; /* r0 = 1 */
		memset(attr, 0, sizeof(attr));
		attr[0] = 1; /* BPF_PROG_TYPE_SOCKET_FILTER */
		attr[1] = count;
		memcpy(attr + 2, &insns, 8);
		memcpy(attr + 4, &license, 8);
		attr[11] = flags;
		if (syscall(SYS_bpf, 5, attr, sizeof(attr)) >= 0)
			return 3;
		printf("%u: %s\n", count, strerrorname_np(errno));
		fflush(stdout);
		munmap(insns, 8ul * count);
		syscall(SYS_bpf, 1, 8, 72);
	}
	return 7;
}
