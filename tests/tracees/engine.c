/* What the ptrace loop has to cope with: one mode a test. See tests/record/test_engine.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char *self;

static void mark(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/marker-%s", name);
    syscall(SYS_openat, AT_FDCWD, path, 0, 0);
}

static void *thread(void *name) { mark(name); return 0; }
static void *sleeper(void *name) { for (;;) pause(); return 0; }
static void *executor(void *name)
{
    execl("/bin/sh", "sh", "-c", "true 2>/dev/null </marker-after; exit 5", (char *)0);
    return 0;
}
static int child(void *name) { mark(name); _exit(0); }

static int many_ways(void)
{
    int status;
    pid_t pid;
    static char stack[65536];
    if (!fork()) { mark("fork"); _exit(0); }
    wait(&status);
    if (!vfork()) { mark("vfork"); _exit(0); }
    wait(&status);
    char *argv[] = {self, "mark", "spawn", 0};
    if (posix_spawn(&pid, self, 0, 0, argv, environ)) return 1;
    waitpid(pid, &status, 0);
    struct clone_args args = {.exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) { mark("clone3"); _exit(0); }
    waitpid(pid, &status, 0);
    pid = clone(child, stack + sizeof stack, 0, "clone");
    waitpid(pid, &status, __WALL);
    pthread_t t;
    pthread_create(&t, 0, thread, "thread");
    pthread_join(t, 0);
    if (!fork()) {
        if (!fork()) { usleep(20000); mark("grandchild"); _exit(0); }
        _exit(0);
    }
    wait(&status);
    usleep(60000);
    mark("parent");
    return 0;
}

static int exec_thread(int leader_gone)
{
    pthread_t t;
    for (int i = 0; i < 5; i++) pthread_create(&t, 0, sleeper, 0);
    usleep(20000);
    pthread_create(&t, 0, executor, 0);
    if (leader_gone) pthread_exit(0);
    for (;;) pause();
}

static void on_siginfo(int number, siginfo_t *info, void *context)
{
    char line[128];
    int n = snprintf(line, sizeof line, "%d %d %d %d\n", number, info->si_code,
                     info->si_value.sival_int, info->si_pid == getpid());
    write(1, line, n);
}

static int siginfo(void)
{
    struct sigaction action = {.sa_sigaction = on_siginfo, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 3, &action, 0);
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGSEGV, &action, 0);
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 4711});
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigaction(SIGTRAP, &action, 0);
    raise(SIGTRAP);
    return 0;
}

static volatile int *alarms;
static void on_alarm(int number) { write(1, "alarm\n", 6); ++*alarms; }

/* Until a process sleeps (or is gone). */
static void asleep(pid_t pid)
{
    char path[32], line[256], *state;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    for (;;) {
        FILE *file = fopen(path, "r");
        if (!file) return;
        state = fgets(line, sizeof line, file) ? strrchr(line, ')') : 0;
        fclose(file);
        if (state && state[2] == 'S') return;
        usleep(1000);
    }
}

static int restart(void)
{
    int ends[2];
    char c;
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, 0);
    pipe(ends);
    alarms = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!fork()) {
        asleep(getppid());
        kill(getppid(), SIGALRM);
        while (!*alarms) usleep(1000);
        asleep(getppid());
        write(ends[1], "x", 1);
        _exit(0);
    }
    long n = syscall(SYS_read, ends[0], &c, 1);
    printf("%ld %c\n", n, c);
    wait(0);
    return 0;
}

static void on_term(int number) { _exit(8); }

static int own_filter(unsigned action)
{
    struct sock_filter insns[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, insns};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) { perror("filter"); return 1; }
    mark("filtered");
    errno = 0;
    long ret = syscall(SYS_bpf, 9999, 0, 0);
    printf("%ld %d\n", ret, errno);
    fflush(stdout);
    if (!fork()) {
        ret = syscall(SYS_bpf, 9998, 0, 0);
        printf("%ld %d\n", ret, errno);
        fflush(stdout);
        _exit(0);
    }
    wait(0);
    return 0;
}

/* Both sides of every such call find what they passed as it was. */
static int untraced(void)
{
    static const struct clone_args given = {.flags = CLONE_UNTRACED, .exit_signal = SIGCHLD};
    static const struct clone_args shares = {.flags = CLONE_UNTRACED | CLONE_VM | CLONE_VFORK,
                                             .exit_signal = SIGCHLD};
    int status, wrong = 0;
    pid_t pid = syscall(SYS_clone3, &given, sizeof given);
    if (!pid) { mark("clone3"); _exit(given.flags != CLONE_UNTRACED); }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status
        || given.flags != CLONE_UNTRACED) wrong |= 1;
    if (syscall(SYS_clone3, 8, sizeof given) != -1 || errno != EFAULT) wrong |= 4;
#ifdef __x86_64__
    register long stack __asm__("rsi") = 0, parent __asm__("rdx") = 0, kid __asm__("r10") = 0;
    register long tls __asm__("r8") = 0;
    long flags = CLONE_UNTRACED | SIGCHLD, ret = SYS_clone;
    __asm__ volatile("syscall" : "+a"(ret), "+D"(flags)
                     : "r"(stack), "r"(parent), "r"(kid), "r"(tls) : "rcx", "r11", "memory");
    if (!ret) { mark("register"); _exit(flags != (CLONE_UNTRACED | SIGCHLD)); }
    if (ret < 0 || waitpid(ret, &status, 0) != ret || status
        || flags != (CLONE_UNTRACED | SIGCHLD)) wrong |= 2;
    ret = SYS_clone3; /* the child has our stack, and uses none */
    __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n"
                     "mov %2, %%eax\n mov $-100, %%rdi\n mov %3, %%rsi\n xor %%edx, %%edx\n"
                     "xor %%r10d, %%r10d\n syscall\n"
                     "mov $60, %%eax\n xor %%edi, %%edi\n syscall\n 1:"
                     : "+a"(ret) : "D"(&shares), "i"(SYS_openat), "r"("/marker-shares"),
                       "S"(sizeof shares) : "rdx", "r10", "rcx", "r11", "memory");
#elif defined(__aarch64__)
    /* The first argument's register is the result's; the kernel keeps all others. */
    register long ret __asm__("x0") = CLONE_UNTRACED | SIGCHLD, stack __asm__("x1") = 0;
    register long parent __asm__("x2") = 0, tls __asm__("x3") = 0, kid __asm__("x4") = 0;
    register long other __asm__("x7") = 4711, number __asm__("x8") = SYS_clone;
    __asm__ volatile("svc #0" : "+r"(ret), "+r"(stack), "+r"(other), "+r"(number)
                     : "r"(parent), "r"(tls), "r"(kid) : "memory");
    int changed = stack != 0 || other != 4711 || number != SYS_clone;
    pid = ret;
    if (!pid) { mark("register"); _exit(changed); }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status || changed) wrong |= 2;
    register long size __asm__("x1") = sizeof shares;
    register const char *path __asm__("x9") = "/marker-shares";
    ret = (long)&shares;
    number = SYS_clone3; /* the child has our stack, and uses none */
    __asm__ volatile("svc #0\n cbnz x0, 1f\n"
                     "mov x8, %4\n mov x0, #-100\n mov x1, %3\n mov x2, #0\n mov x3, #0\n svc #0\n"
                     "mov x8, %5\n mov x0, #0\n svc #0\n 1:"
                     : "+r"(ret), "+r"(size), "+r"(number)
                     : "r"(path), "i"(SYS_openat), "i"(SYS_exit) : "x2", "x3", "memory");
#endif
#if defined(__x86_64__) || defined(__aarch64__)
    pid = ret;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status
        || shares.flags != (CLONE_UNTRACED | CLONE_VM | CLONE_VFORK)) wrong |= 8;
#endif
    return wrong;
}

/* Seccomp's strict mode: said without a call that it would not allow. */
static int strict(const char *then)
{
    char line[64];
    int n, by_call = !strcmp(then, "call"), filtered = !strcmp(then, "filtered");
    if (filtered && own_filter(SECCOMP_RET_ERRNO | EPERM)) return 1;
    n = by_call ? syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0)
                : prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    n = snprintf(line, sizeof line, "strict %d %d\n", n, n ? errno : 0);
    write(1, line, n);
    if (!strcmp(then, "killed")) syscall(SYS_openat, AT_FDCWD, "/marker-killed", 0, 0);
    write(1, "end\n", 4);
    syscall(SYS_exit, 3);
}

#ifdef __x86_64__
static int compat(void)
{
    char *path = mmap(0, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(path, "/marker-i386");
    long ret;
    /* i386: openat is 295 */
    __asm__ volatile("int $0x80" : "=a"(ret)
        : "a"(295), "b"(AT_FDCWD), "c"(path), "d"(0), "S"(0) : "memory", "r8", "r9", "r10", "r11");
    printf("%ld\n", ret);
    ret = syscall(0x40000000 | 257, AT_FDCWD, "/marker-x32", 0, 0);
    printf("%ld %d\n", ret, errno);
    mark("native");
    return 0;
}
#endif

int main(int argc, char **argv)
{
    self = argv[0];
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "mark")) { mark(argv[2]); return 0; }
    if (!strcmp(what, "ways")) return many_ways();
    if (!strcmp(what, "exec-thread")) return exec_thread(0);
    if (!strcmp(what, "exec-zombie")) return exec_thread(1);
    if (!strcmp(what, "siginfo")) return siginfo();
    if (!strcmp(what, "restart")) return restart();
    if (!strcmp(what, "own-errno")) return own_filter(SECCOMP_RET_ERRNO | EPERM);
    if (!strcmp(what, "own-trace")) return own_filter(SECCOMP_RET_TRACE | 7);
    if (!strcmp(what, "strict")) return strict(argv[2]);
    if (!strcmp(what, "waits-in-vfork")) {
        if (argc > 2) signal(SIGTERM, on_term);
        if (!vfork()) {
            char line[32];
            /* It outlives its parent, but not who reads what it says. */
            int n = snprintf(line, sizeof line, "%d\n", (int)syscall(SYS_getpid));
            write(1, line, n);
            read(0, line, 1);
            _exit(0);
        }
        return 6;
    }
    if (!strcmp(what, "traceme")) {
        long ret = ptrace(PTRACE_TRACEME, 0, 0, 0);
        printf("%ld %d\n", ret, errno);
        return 0;
    }
    if (!strcmp(what, "storm")) {
        int rounds = atoi(argv[2]), n = 0;
        for (int i = 0; i < rounds; i++) {
            pid_t pid = fork();
            if (!pid) {
                pthread_t t;
                alarm(30);
                srand(getpid());
                for (int k = 0; k < 20; k++) pthread_create(&t, 0, thread, "storm");
                usleep(rand() % 20000);
                if (rand() % 3 == 0) execl("/bin/true", "true", (char *)0);
                if (rand() % 2) _exit(0);
                kill(getpid(), SIGKILL);
            }
            usleep(3000);
            if (i % 2) kill(pid, SIGKILL);
        }
        while (wait(0) > 0) n++;
        printf("%d\n", n);
        return 0;
    }
    if (!strcmp(what, "forks")) {
        for (int i = 0; i < atoi(argv[2]); i++)
            if (!fork()) { mark("child"); _exit(0); }
        int n = 0;
        while (wait(0) > 0) n++;
        printf("%d\n", n);
        return 0;
    }
    if (!strcmp(what, "threads")) {
        int n = atoi(argv[2]);
        pthread_t *t = calloc(n, sizeof *t);
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 65536);
        for (int i = 0; i < n; i++)
            if (pthread_create(&t[i], &attr, thread, "many")) return 1;
        for (int i = 0; i < n; i++) pthread_join(t[i], 0);
        return 0;
    }
    if (!strcmp(what, "zombie-leader")) {
        pthread_t t;
        pthread_create(&t, 0, sleeper, 0);
        pthread_create(&t, 0, thread, "zombie");
        if (!fork()) { usleep(100000); kill(getppid(), SIGKILL); _exit(0); }
        pthread_exit(0);
    }
    if (!strcmp(what, "clone-untraced")) {
        static char stack[65536];
        int pid = clone(child, stack + sizeof stack, CLONE_UNTRACED | SIGCHLD, "untraced");
        waitpid(pid, 0, __WALL);
        return untraced();
    }
#ifdef __x86_64__
    if (!strcmp(what, "compat")) return compat();
    if (!strcmp(what, "compat-untraced")) {
        int status;
        unsigned long flags = CLONE_UNTRACED | SIGCHLD;
        long ret = 120; /* clone: its flags are in ebx */
        __asm__ volatile("int $0x80" : "+a"(ret), "+b"(flags) : "c"(0), "d"(0), "S"(0), "D"(0)
                         : "r8", "r9", "r10", "r11", "memory");
        if (!ret) { mark("i386"); _exit(flags != (CLONE_UNTRACED | SIGCHLD)); }
        if (ret < 0) return 77;
        return waitpid(ret, &status, 0) != ret || status || flags != (CLONE_UNTRACED | SIGCHLD);
    }
#endif
    return 99;
}
