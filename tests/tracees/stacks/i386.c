/* A 32-bit program without libc that calls bpf(2) below a few functions, and in a signal handler. */

enum { EXIT = 1, GETPID = 20, KILL = 37, RT_SIGACTION = 174, BPF = 357, SIGUSR1 = 10 };

static int call(int number, int a, int b, int c, int d)
{
	int ret;
	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d)
			 : "memory");
	return ret;
}

__attribute__((noinline)) int ask(void)
{
	unsigned attr[3] = {0, 0, 0};
	return call(BPF, 11, (int)attr, sizeof attr, 0); /* BPF_PROG_GET_NEXT_ID */
}

__attribute__((noinline)) int deep(int left)
{
	volatile char room[100];
	room[left] = 1;
	return left ? deep(left - 1) + room[left] : ask();
}

__attribute__((noinline, regparm(0))) void handler(int number)
{
	volatile int kept = number;
	ask();
	(void)kept;
}

__attribute__((noinline)) int signalled(void)
{
	/* Without a restorer of our own the handler returns through the vdso. */
	struct { void *handler; unsigned long flags; void *restorer; unsigned mask[2]; } action = {
		(void *)handler, 0, 0, {0, 0}};
	call(RT_SIGACTION, SIGUSR1, (int)&action, 0, 8);
	return call(KILL, call(GETPID, 0, 0, 0, 0), SIGUSR1, 0, 0);
}

__attribute__((used, noinline)) void start(void)
{
	deep(5);
	signalled();
	call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined eip\n"
	"	call start\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	".size _start, .-_start\n");
