// SPDX-License-Identifier: GPL-2.0-only
/* What a tracer could disturb, one case an argument: prints what it saw, which must be the same
 * traced and untraced. Times are only compared with what the kernel promises at least. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

extern char **environ;
static char *self;
static volatile sig_atomic_t hits;

static void hit(int number) { (void)number; hits++; }

static void handle(int number, int flags)
{
    struct sigaction action = {.sa_handler = hit, .sa_flags = flags};
    sigaction(number, &action, 0);
}

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void say(const char *what, long ret) { printf("%s %ld %d\n", what, ret, ret < 0 ? errno : 0); }

static void ended(const char *what, pid_t pid)
{
    int status = 0;
    pid_t got = waitpid(pid, &status, __WALL);
    printf("%s %d exit=%d signal=%d\n", what, got == pid, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static int itimers(void)
{
    static const int which[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
    static const int number[] = {SIGALRM, SIGVTALRM, SIGPROF};
    for (int i = 0; i < 3; i++) {
        struct itimerval timer = {{0, 10000}, {0, 10000}}, none = {{0}};
        hits = 0;
        handle(number[i], SA_RESTART);
        say("setitimer", setitimer(which[i], &timer, 0));
        while (hits < 5)
            if (i == 0) pause();
        say("stop", setitimer(which[i], &none, 0));
    }
    hits = 0;
    alarm(100);
    printf("alarm %u\n", alarm(1) > 90);
    say("pause", pause());
    printf("hits %d\n", hits);
    return 0;
}

static volatile int notified;
static void notify(union sigval value) { notified = value.sival_int; }

static int posix_timers(void)
{
    timer_t timer;
    struct itimerspec each = {{0, 5000000}, {0, 5000000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1,
                             .sigev_value.sival_int = 4711};
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, 0);
    say("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    say("timer_settime", timer_settime(timer, 0, &each, 0));
    for (int i = 0; i < 5; i++) {
        int number = sigwaitinfo(&set, &info);
        printf("got %d %d %d\n", number == SIGRTMIN + 1, info.si_code == SI_TIMER,
               info.si_value.sival_int);
    }
    timer_delete(timer);
    struct sigevent thread = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify,
                              .sigev_value.sival_int = 42};
    struct itimerspec once = {{0, 0}, {0, 5000000}};
    say("timer_create", timer_create(CLOCK_REALTIME, &thread, &timer));
    timer_settime(timer, 0, &once, 0);
    for (int i = 0; i < 2000 && !notified; i++) usleep(10000);
    printf("notified %d\n", notified);
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t times = 0, all = 0;
    timerfd_settime(fd, 0, &each, 0);
    while (all < 5 && read(fd, &times, 8) == 8) all += times;
    printf("timerfd %d\n", all >= 5);
    return 0;
}

/* Waits that a handled signal, or a stop, comes in between of. */
static int restarts(void)
{
    struct timespec wait = {0, 300000000}, left = {0, 0};
    struct itimerval soon = {{0, 0}, {0, 50000}};
    long start;
    handle(SIGALRM, SA_RESTART);
    setitimer(ITIMER_REAL, &soon, 0);
    say("nanosleep", nanosleep(&wait, &left));
    printf("left %d\n", left.tv_nsec > 0 && left.tv_nsec < 300000000);
    setitimer(ITIMER_REAL, &soon, 0);
    say("poll", poll(0, 0, 300));
    setitimer(ITIMER_REAL, &soon, 0);
    struct timeval some = {0, 300000};
    say("select", select(0, 0, 0, 0, &some));
    int epoll = epoll_create1(0);
    struct epoll_event event;
    setitimer(ITIMER_REAL, &soon, 0);
    say("epoll_wait", epoll_wait(epoll, &event, 1, 300));
    int word = 0;
    start = now();
    setitimer(ITIMER_REAL, &soon, 0);
    say("futex", syscall(SYS_futex, &word, FUTEX_WAIT, 0, &wait, 0, 0));
    printf("waited %d\n", now() - start >= 45);
    /* Stopped and continued, nobody notices: the kernel restarts what was under way. */
    pid_t parent = getpid();
    pid_t pid = fork();
    if (!pid) {
        for (int i = 0; i < 3; i++) {
            usleep(50000);
            kill(parent, SIGSTOP);
            usleep(20000);
            kill(parent, SIGCONT);
        }
        _exit(0);
    }
    struct timespec longer = {0, 400000000};
    start = now();
    say("nanosleep", nanosleep(&longer, 0));
    printf("slept %d\n", now() - start >= 399);
    start = now();
    say("poll", poll(0, 0, 100));
    printf("polled %d\n", now() - start >= 99);
    ended("stopper", pid);
    int ends[2];
    char c = 0;
    handle(SIGUSR1, SA_RESTART);
    pipe(ends);
    pid = fork();
    if (!pid) {
        for (int i = 0; i < 5; i++) {
            usleep(10000);
            kill(parent, SIGUSR1);
        }
        usleep(10000);
        write(ends[1], "x", 1);
        _exit(0);
    }
    long n = read(ends[0], &c, 1);
    printf("read %ld %c %d\n", n, c, hits > 1);
    ended("writer", pid);
    return 0;
}

static int in_child(void *unused) { (void)unused; _exit(9); }

static int clones(const char *cgroup)
{
    static char stack[65536];
    int pidfd = -1, status;
    siginfo_t info = {0};
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) _exit(3);
    struct pollfd readable = {pidfd, POLLIN, 0};
    printf("pidfd %d\n", poll(&readable, 1, 20000));
    say("waitid", waitid(P_PIDFD, pidfd, &info, WEXITED));
    printf("info %d %d %d\n", info.si_pid == pid, info.si_status, info.si_code == CLD_EXITED);

    handle(SIGUSR1, 0);
    signal(SIGUSR2, SIG_IGN);
    args = (struct clone_args){.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) {
        struct sigaction one, two;
        sigaction(SIGUSR1, 0, &one);
        sigaction(SIGUSR2, 0, &two);
        _exit((one.sa_handler == SIG_DFL) + 2 * (two.sa_handler == SIG_IGN));
    }
    ended("clear_sighand", pid);

    int dir = open(cgroup, O_RDONLY | O_DIRECTORY);
    args = (struct clone_args){.flags = CLONE_INTO_CGROUP, .cgroup = dir, .exit_signal = SIGCHLD};
    pid = dir < 0 ? -1 : syscall(SYS_clone3, &args, sizeof args);
    if (!pid) {
        char line[4096];
        int found = 0;
        FILE *file = fopen("/proc/self/cgroup", "r");
        while (fgets(line, sizeof line, file))
            if (!strncmp(line, "0::", 3)) found = strstr(line, strrchr(cgroup, '/')) != 0;
        _exit(20 + found);
    }
    if (pid < 0) say("into_cgroup", pid);
    else ended("into_cgroup", pid);

    pid = clone(in_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, 0);
    ended("vfork", pid);
    args = (struct clone_args){.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) {
        /* The first process of a namespace: with its end all others are killed. */
        if (!fork()) for (;;) pause();
        _exit(getpid() == 1 ? 30 : 31);
    }
    ended("newpid", pid);
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (!pid) {
        fork(), fork();
        for (;;) pause();
    }
    kill(pid, SIGKILL);
    ended("newpid killed", pid);
    /* A child that is its grandparent's. */
    pid = fork();
    if (!pid) {
        args = (struct clone_args){.flags = CLONE_PARENT};
        pid = syscall(SYS_clone3, &args, sizeof args);
        if (!pid) _exit(40);
        _exit(41);
    }
    ended("middle", pid);
    ended("adopted", -1 == wait(&status) ? -1 : (printf("status %d\n", WEXITSTATUS(status)), -1));
    return 0;
}

static int spawns(void)
{
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t set;
    char *argv[] = {self, "state", 0};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 7, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addclose(&actions, 0);
    posix_spawnattr_init(&attr);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    posix_spawnattr_setsigmask(&attr, &set);
    sigaddset(&set, SIGUSR2);
    signal(SIGUSR2, SIG_IGN);
    posix_spawnattr_setsigdefault(&attr, &set);
    posix_spawnattr_setpgroup(&attr, 0);
    fflush(stdout);
    static const short flags[] = {
        0, POSIX_SPAWN_SETSIGMASK, POSIX_SPAWN_SETSIGDEF, POSIX_SPAWN_SETPGROUP, POSIX_SPAWN_SETSID,
    };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        posix_spawnattr_setflags(&attr, flags[i]);
        int error = posix_spawn(&pid, self, &actions, &attr, argv, environ);
        ended("spawned", pid);
        printf("spawn %d\n", error);
    }
    printf("missing %d\n", posix_spawnp(&pid, "no-such-program", 0, 0, argv, environ));
    printf("refused %d\n", posix_spawn(&pid, "/etc/passwd", 0, 0, argv, environ));
    return 0;
}

static int state(void)
{
    sigset_t mask;
    struct sigaction two;
    sigprocmask(SIG_BLOCK, 0, &mask);
    sigaction(SIGUSR2, 0, &two);
    printf("mask %d ignored %d leader %d session %d fd0 %d fd7 %d\n", sigismember(&mask, SIGUSR1),
           two.sa_handler == SIG_IGN, getpgrp() == getpid(), getsid(0) == getpid(),
           fcntl(0, F_GETFD), fcntl(7, F_GETFD) >= 0);
    return 17;
}

/* daemon(3), a double fork, a subreaper, and a signal at the parent's death. */
static int daemons(const char *path)
{
    char line[256] = "";
    pid_t pid = fork();
    if (!pid) {
        if (daemon(0, 0)) _exit(1);
        usleep(100000);
        FILE *file = fopen(path, "w");
        fprintf(file, "daemon session %d parent %d\n", getsid(0) != getpid(), getppid() == 1);
        fclose(file);
        _exit(0);
    }
    ended("daemon", pid);
    for (int i = 0; i < 3000; i++) {
        FILE *file = fopen(path, "r");
        if (file && fgets(line, sizeof line, file)) break;
        if (file) fclose(file);
        usleep(10000);
    }
    fputs(line, stdout);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!fork()) {
        if (!fork()) { usleep(50000); _exit(23); }
        _exit(22);
    }
    for (int i = 0, status; i < 2; i++) {
        wait(&status);
        printf("reaped %d\n", WEXITSTATUS(status));
    }
    int ends[2];
    pipe(ends);
    pid = fork();
    if (!pid) {
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGUSR1);
            handle(SIGUSR1, 0);
            write(ends[1], "r", 1);
            if (getppid() != 1) while (!hits) usleep(1000);
            _exit(50 + hits);
        }
        char c;
        read(ends[0], &c, 1);
        _exit(0);
    }
    for (int i = 0, status; i < 2; i++) {
        wait(&status);
        printf("reaped %d\n", WEXITSTATUS(status));
    }
    return 0;
}

static void *waits(void *flag)
{
    while (!*(volatile int *)flag) sleep(1000);
    return 0;
}

/* Thousands at the same time, that are killed by exec or exit. */
static int threads(int count, const char *how)
{
    int flag = 0, made = 0;
    pthread_t t;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    for (; made < count; made++)
        if (pthread_create(&t, &attr, waits, &flag)) break;
    printf("%d threads\n", made);
    fflush(stdout);
    if (!strcmp(how, "exec")) execl(self, self, "state", (char *)0);
    if (!strcmp(how, "wait")) { getchar(); puts("still there"); }
    exit(made == count ? 5 : 6);
}

static int children(int count, int batch)
{
    int codes[256] = {0}, status, sum = 0;
    for (int i = 0; i < count; i += batch) {
        for (int k = 0; k < batch; k++)
            if (!fork()) _exit((i + k) % 251);
        for (int k = 0; k < batch; k++) {
            if (wait(&status) < 0) return 1;
            codes[WEXITSTATUS(status)]++;
        }
    }
    for (int i = 0; i < 256; i++) sum += codes[i] * i;
    printf("%d\n", sum);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    self = argv[0];
    setvbuf(stdout, 0, _IOLBF, 0);
    if (!strcmp(what, "itimers")) return itimers();
    if (!strcmp(what, "timers")) return posix_timers();
    if (!strcmp(what, "restarts")) return restarts();
    if (!strcmp(what, "clones")) return clones(argv[2]);
    if (!strcmp(what, "spawns")) return spawns();
    if (!strcmp(what, "state")) return state();
    if (!strcmp(what, "daemons")) return daemons(argv[2]);
    if (!strcmp(what, "threads")) return threads(atoi(argv[2]), argv[3]);
    if (!strcmp(what, "children")) return children(atoi(argv[2]), atoi(argv[3]));
    if (!strcmp(what, "bomb")) {
        char left[16];
        int n = atoi(argv[2]);
        if (!n) return 8;
        snprintf(left, sizeof left, "%d", n - 1);
        execl(self, self, "bomb", left, (char *)0);
    }
    return 99;
}
