// SPDX-License-Identifier: GPL-2.0-only
/* Rounds of work with maps and programs, whose calls are the same in each. */
#include <linux/bpf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long bpf(int cmd, union bpf_attr *attr) { return syscall(SYS_bpf, cmd, attr, sizeof *attr); }

static int load(void)
{
    static struct bpf_insn insns[] = {{.code = 0xb7}, {.code = 0x95}};
    static char log[4096];
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insn_cnt = 2;
    attr.insns = (unsigned long)insns;
    attr.license = (unsigned long)"GPL";
    attr.log_level = 1;
    attr.log_size = sizeof log;
    attr.log_buf = (unsigned long)log;
    strcpy(attr.prog_name, "returns_zero");
    return bpf(BPF_PROG_LOAD, &attr);
}

/* A round of real work: a map, entries of changing bytes, a program. */
static int work(int salt)
{
    union bpf_attr attr;
    int map, prog;
    unsigned key;
    unsigned char value[200];
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_HASH;
    attr.key_size = 4;
    attr.value_size = sizeof value;
    attr.max_entries = 8;
    strcpy(attr.map_name, "counters");
    map = bpf(BPF_MAP_CREATE, &attr);
    if (map < 0) return 1;
    for (key = 0; key < 8; key++) {
        memset(value, salt * 8 + key, sizeof value);
        memset(&attr, 0, sizeof attr);
        attr.map_fd = map;
        attr.key = (unsigned long)&key;
        attr.value = (unsigned long)value;
        if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) return 2;
    }
    prog = load();
    if (prog < 0) return 3;
    close(prog);
    close(map);
    return 0;
}

/* For as long as it takes: only a signal ends this call. */
static int run_for_ever(void)
{
    static unsigned char data[64];
    union bpf_attr attr;
    int prog = load();
    if (prog < 0) return 3;
    puts("running");
    fflush(stdout);
    memset(&attr, 0, sizeof attr);
    attr.test.prog_fd = prog;
    attr.test.data_in = (unsigned long)data;
    attr.test.data_size_in = sizeof data;
    attr.test.repeat = 0xffffffff;
    bpf(BPF_PROG_TEST_RUN, &attr);
    return 9;
}

/* work ROUNDS PROCESSES CODE WITNESS | forever */
int main(int argc, char **argv)
{
    int i, status, failed = 0;
    sigset_t ends;
    /* A child's end, which no traced process ignores, may fail a PROG_LOAD with EAGAIN. */
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, 0);
    if (argc > 1 && !strcmp(argv[1], "forever")) return run_for_ever();
    if (argc < 6) return 99;
    for (i = 1; i < atoi(argv[3]); i++)
        if (!fork()) {
            int k;
            for (k = 0; k < atoi(argv[2]); k++) failed |= work(k);
            _exit(failed);
        }
    for (i = 0; i < atoi(argv[2]); i++) failed |= work(i);
    while (wait(&status) > 0) failed |= status;
    if (failed) return 98;
    if (*argv[5]) fclose(fopen(argv[5], "w"));
    return atoi(argv[4]);
}
