/* Children, and what becomes of those who make them: see tests/record/test_births.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void mark(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/marker-%s", name);
    syscall(SYS_openat, AT_FDCWD, path, 0, 0);
}

/* A thread has a child, and when there is one, another thread of its process executes a program:
   who made the child is then gone, perhaps before it could say so, and its process lives on. */
static volatile pid_t made;
static int ends[2];
static int child(void *name) { mark("child"); write(ends[1], "x", 1); _exit(0); }
static void *makes(void *name)
{
    static char stack[65536];
    clone(child, stack + sizeof stack, CLONE_PARENT_SETTID | SIGCHLD, 0, &made);
    for (;;) pause();
}
static void executes(char *self, char *how)
{
    char fd[16];
    pthread_t t;
    pipe(ends);
    snprintf(fd, sizeof fd, "%d", ends[0]);
    pthread_create(&t, 0, makes, 0);
    while (!made) usleep(1000);
    execl(self, self, how, fd, (char *)0);
}

int main(int argc, char **argv)
{
    const char *what = argv[1];
    char c;
    int status;
    if (!strcmp(what, "waits")) {
        read(atoi(argv[2]), &c, 1);
    } else if (!strcmp(what, "computes")) {
        /* No call ever sleeps. */
        fcntl(atoi(argv[2]), F_SETFL, O_NONBLOCK);
        do for (volatile int n = 0; n < 10000000; n++); while (read(atoi(argv[2]), &c, 1) != 1);
    } else if (!strcmp(what, "executes")) {
        if (!fork()) executes(argv[0], argv[2]);
        wait(&status);
        return status != 0;
    } else if (!strcmp(what, "orphan")) {
        /* The parent of the child is killed. */
        pipe(ends);
        if (!fork()) {
            if (!fork()) child(0);
            pause();
        }
        wait(&status);
        read(ends[0], &c, 1);
        return WTERMSIG(status);
    } else if (!strcmp(what, "sibling") || !strcmp(what, "tracer's")) {
        /* CLONE_PARENT: the child is its maker's sibling; and the tracer's child, where the maker
           is what the tracer has started. */
        static char stack[65536];
        pipe(ends);
        if (!strcmp(what, "sibling")) {
            if (!fork()) {
                clone(child, stack + sizeof stack, CLONE_PARENT | SIGCHLD, 0);
                _exit(0);
            }
            while (wait(&status) > 0);
        } else {
            clone(child, stack + sizeof stack, CLONE_PARENT | SIGCHLD, 0);
        }
        read(ends[0], &c, 1);
    } else if (!strcmp(what, "fork")) {
        if (!fork()) { mark("child"); _exit(7); }
        wait(&status);
        return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    return 0;
}
