/* Calls bpf(2) from many a place: build it in different ways, run it with the name of a place. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef TELL
#include <execinfo.h>
#endif

#ifdef __clang__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noipa)) /* nor a copy for the arguments that occur */
#endif

static volatile long sink;

NOINLINE long ask(void)
{
	unsigned attr[3] = {0, 0, 0};
#ifdef TELL
	void *frames[300];
	int count = backtrace(frames, 300);
	for (int at = 1; at < count; at++)
		printf("%p ", frames[at]);
	printf("\n");
	fflush(stdout);
#endif
	return sink = syscall(SYS_bpf, 11, attr, sizeof attr); /* BPF_PROG_GET_NEXT_ID */
}

NOINLINE long deep(int left)
{
	char room[40];
	memset(room, left, sizeof room);
	sink = (long)room;
	return left ? deep(left - 1) + room[left % 40] : ask();
}

/* The stack pointer moves by an amount that only a frame pointer remembers. */
NOINLINE long sized(int size)
{
	volatile char *room = __builtin_alloca(size);
	room[0] = room[size - 1] = 1;
	return ask() + room[0];
}

/* A frame that is aligned anew: its CFA comes from an expression. */
NOINLINE long aligned(void)
{
	volatile char room[256] __attribute__((aligned(128)));
	room[0] = 1;
	sink = (long)room;
	return sized(1000) + room[0];
}

static void handler(int number)
{
	sink = number;
	ask();
}

NOINLINE long signalled(int alternate)
{
	struct sigaction action = {.sa_handler = handler};
	stack_t stack = {.ss_size = 1 << 16};
	if (alternate) {
		stack.ss_sp = mmap(0, 1 << 16, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		sigaltstack(&stack, 0);
		action.sa_flags = SA_ONSTACK;
	}
	sigaction(SIGUSR1, &action, 0);
	raise(SIGUSR1);
	return 0;
}

/* A function without a frame; GCC has no naked ones for aarch64. */
#define BARE(name, code) \
	__asm__(".text\n.globl " #name "\n.type " #name ", %function\n" #name ":\n" \
		".cfi_startproc\n" code "\n.cfi_endproc\n.size " #name ", .-" #name "\n")

/* A fault: the interrupted instruction is the very first of its function. */
void faulting(void);
#ifdef __x86_64__
BARE(faulting, "ud2\n\tret");
#else
BARE(faulting, "udf #0\n\tret");
#endif

static void after_fault(int number)
{
	sink = number;
	ask();
	_exit(0);
}

NOINLINE long faulted(void)
{
	struct sigaction action = {.sa_handler = after_fault};
	sigaction(SIGILL, &action, 0);
	faulting();
	return 1;
}

static void *thread(void *size)
{
	sized((int)(long)size);
	return 0;
}

NOINLINE long threaded(void)
{
	pthread_t id;
	pthread_create(&id, 0, thread, (void *)500L);
	return pthread_join(id, 0);
}

static pthread_t leader;

static void *left_behind(void *unused)
{
	pthread_join(leader, 0);
	usleep(10000); /* until it has no memory any more */
	ask();
	_exit(0);
}

/* The first thread ends, and the process goes on. */
NOINLINE void leaderless(void)
{
	pthread_t id;
	leader = pthread_self();
	pthread_create(&id, 0, left_behind, 0);
	pthread_exit(0);
}

typedef long call(long (*)(void));

/* A library that is loaded between two calls, and gone from its folder by then. */
NOINLINE long loaded(const char *path)
{
	void *library;
	call *through;
	ask();
	library = dlopen(path, RTLD_NOW);
	if (!library)
		return 1;
	through = (call *)dlsym(library, "through");
	unlink(path);
	through(ask);
	dlclose(library);
	ask();
	return 0;
}

/* Code of no file, with a frame pointer and without. */
NOINLINE long made(int framed)
{
#ifdef __x86_64__
	static const unsigned char with[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
#else
	/* stp x29, x30, [sp, -16]!; mov x29, sp; blr x0; ldp x29, x30, [sp], 16; ret */
	static const unsigned with[] = {0xa9bf7bfd, 0x910003fd, 0xd63f0000, 0xa8c17bfd, 0xd65f03c0};
#endif
	/* sub rsp, 8; call rdi; add rsp, 8; ret */
	static const unsigned char without[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7, 0x48,
						0x83, 0xc4, 0x08, 0xc3};
	char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, framed ? with : without, framed ? sizeof with : sizeof without);
	__builtin___clear_cache(code, code + sizeof with);
	if (framed) {
		char name[64];
		FILE *file;
		snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
		file = fopen(name, "w");
		fprintf(file, "%lx %zx made \033[31mup\n", (long)code, sizeof with);
		fclose(file);
		((call *)code)(ask);
		unlink(name);
		return 0;
	}
	((call *)code)(ask);
	return 0;
}

/* The same lookup, with the same arguments, from two places in turn. */
static union {
	char bytes[128];
	struct { unsigned type, key_size, value_size, entries; } map;
	struct { unsigned fd, pad; unsigned long key, value; } element;
} attr;

NOINLINE long lookup(void)
{
	return sink = syscall(SYS_bpf, 1, &attr, sizeof attr); /* BPF_MAP_LOOKUP_ELEM */
}

NOINLINE long even(void)
{
	return lookup() + 2;
}

NOINLINE long odd(void)
{
	return lookup() + 1;
}

NOINLINE long looping(void)
{
	static unsigned key;
	static unsigned long value;
	int fd;
	attr.map.type = 2; /* BPF_MAP_TYPE_ARRAY */
	attr.map.key_size = 4;
	attr.map.value_size = 8;
	attr.map.entries = 1;
	fd = syscall(SYS_bpf, 0, &attr, sizeof attr);
	memset(&attr, 0, sizeof attr);
	attr.element.fd = fd;
	attr.element.key = (unsigned long)&key;
	attr.element.value = (unsigned long)&value;
	for (int turn = 0; turn < 12; turn++)
		sink = turn % 2 ? odd() : even();
	return close(fd);
}

NOINLINE long waiting(void)
{
	for (;;) {
		usleep(20000);
		ask();
	}
}

/* A call with a stack pointer that leads nowhere: bpf(0, 0, 0), then exit(0). */
void lost(void);
#ifdef __x86_64__
BARE(lost, "mov $0x1000, %esp\n\tmov $321, %eax\n\txor %edi, %edi\n\txor %esi, %esi\n\t"
	   "xor %edx, %edx\n\tsyscall\n\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall");
#else
BARE(lost, "mov x8, #0x1000\n\tmov sp, x8\n\tmov x8, #280\n\tmov x0, #0\n\tmov x1, #0\n\t"
	   "mov x2, #0\n\tsvc #0\n\tmov x8, #93\n\tmov x0, #0\n\tsvc #0");
#endif

int main(int argc, char **argv)
{
#ifdef TELL
	void *first[1];
	backtrace(first, 1); /* loads what it needs */
#endif
	for (int number = 1; number < argc; number++) {
		const char *place = argv[number];
		if (!strcmp(place, "deep"))
			deep(30);
		else if (!strcmp(place, "deeper"))
			deep(2000);
		else if (!strcmp(place, "large"))
			sized(200000);
		else if (!strcmp(place, "aligned"))
			aligned();
		else if (!strcmp(place, "signalled"))
			signalled(0);
		else if (!strcmp(place, "alternate"))
			signalled(1);
		else if (!strcmp(place, "faulted"))
			faulted();
		else if (!strcmp(place, "threaded"))
			threaded();
		else if (!strcmp(place, "leaderless"))
			leaderless();
		else if (!strcmp(place, "loaded"))
			loaded(argv[++number]);
		else if (!strcmp(place, "framed"))
			made(1);
		else if (!strcmp(place, "frameless"))
			made(0);
		else if (!strcmp(place, "looping"))
			looping();
		else if (!strcmp(place, "waiting"))
			waiting();
		else if (!strcmp(place, "lost"))
			lost();
		else
			return 2;
	}
	return 0;
}
