"""The tiny programs that are traced: in C where there is a compiler, else in Python."""

from __future__ import annotations

from typing import Final

WORK_C: Final = r"""
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static clockid_t watch = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long bpf(int cmd, union bpf_attr *attr) { return syscall(SYS_bpf, cmd, attr, sizeof *attr); }

static int later(const void *a, const void *b)
{
    return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b);
}

int main(int argc, char **argv)
{
    if (!strcmp(argv[1], "filter")) {
        struct sock_filter allow = {0x06, 0, 0, SECCOMP_RET_ALLOW};
        struct sock_fprog program = {1, &allow};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
            return 1;
        execvp(argv[2], argv + 2);
        return 1;
    }
    int count = atoi(argv[2]), i;
    double began;
    if (argc > 3) watch = CLOCK_PROCESS_CPUTIME_ID; /* "cpu": what it costs us, not how long */
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!strcmp(argv[1], "updates")) {
        unsigned key;
        unsigned long long value;
        attr.map_type = BPF_MAP_TYPE_ARRAY;
        attr.key_size = 4;
        attr.value_size = 8;
        attr.max_entries = 1024;
        int map = bpf(BPF_MAP_CREATE, &attr);
        if (map < 0) return 1;
        memset(&attr, 0, sizeof attr);
        attr.map_fd = map;
        attr.key = (unsigned long)&key;
        attr.value = (unsigned long)&value;
        began = now();
        for (i = 0; i < count; i++) {
            key = i % 1024;
            value = i;
            if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) return 1;
        }
    } else if (!strcmp(argv[1], "missing")) {
        unsigned key;
        unsigned long long value;
        attr.map_type = BPF_MAP_TYPE_HASH;
        attr.key_size = 4;
        attr.value_size = 8;
        attr.max_entries = 1024;
        int map = bpf(BPF_MAP_CREATE, &attr);
        if (map < 0) return 1;
        memset(&attr, 0, sizeof attr);
        attr.map_fd = map;
        attr.key = (unsigned long)&key;
        attr.value = (unsigned long)&value;
        began = now();
        for (i = 0; i < count; i++) {
            key = i;
            if (!bpf(BPF_MAP_LOOKUP_ELEM, &attr)) return 1;
        }
    } else if (!strcmp(argv[1], "creates")) {
        attr.map_type = BPF_MAP_TYPE_HASH; /* its keys have no size */
        attr.value_size = 8;
        attr.max_entries = 1024;
        began = now();
        for (i = 0; i < count; i++)
            if (bpf(BPF_MAP_CREATE, &attr) >= 0) return 1;
    } else if (!strcmp(argv[1], "loads")) {
        struct bpf_insn insns[] = {{.code = 0xb7}, {.code = 0x95}};
        double *taken = calloc(count, sizeof *taken);
        attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
        attr.insns = (unsigned long)insns;
        attr.insn_cnt = 2;
        attr.license = (unsigned long)"GPL";
        for (i = 0; i < count; i++) {
            usleep(10000);
            double start = now();
            long fd = bpf(BPF_PROG_LOAD, &attr);
            taken[i] = now() - start;
            if (fd < 0) return 1;
            close(fd);
        }
        qsort(taken, count, sizeof *taken, later);
        began = now() - taken[count / 2];
    } else if (!strcmp(argv[1], "load")) {
        struct bpf_insn *insns = calloc(count, sizeof *insns);
        for (i = 0; i < count; i++) {
            insns[i].code = 0xb7; /* r0 = i */
            insns[i].imm = i;
        }
        insns[count - 1] = (struct bpf_insn){.code = 0x95};
        attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
        attr.insns = (unsigned long)insns;
        attr.insn_cnt = count;
        attr.license = (unsigned long)"GPL";
        began = now();
        if (bpf(BPF_PROG_LOAD, &attr) < 0) return 1;
    } else {
        began = now();
        for (i = 0; i < count; i++) {
            if (!fork()) _exit(0);
            wait(0);
        }
    }
    printf("%.9f s\n", now() - began);
    return 0;
}
"""

WORK_PY: Final = """
import ctypes, os, struct, sys, time
what, count = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(command, attr):
    result = libc.syscall(number, command, attr, len(attr))
    if result < 0: sys.exit(1)
    return result
if what == "updates":
    made = bpf(0, ctypes.create_string_buffer(struct.pack("IIII", 2, 4, 8, 1024), 48))
    key, value = ctypes.c_uint(), ctypes.c_ulonglong()
    attr = ctypes.create_string_buffer(
        struct.pack("I4xQQ", made, ctypes.addressof(key), ctypes.addressof(value)), 48)
    began = time.perf_counter()
    for i in range(count):
        key.value, value.value = i % 1024, i
        bpf(2, attr)
elif what == "missing":
    made = bpf(0, ctypes.create_string_buffer(struct.pack("IIII", 1, 4, 8, 1024), 48))
    key, value = ctypes.c_uint(), ctypes.c_ulonglong()
    attr = ctypes.create_string_buffer(
        struct.pack("I4xQQ", made, ctypes.addressof(key), ctypes.addressof(value)), 48)
    began = time.perf_counter()
    for i in range(count):
        key.value = i
        libc.syscall(number, 1, attr, 48)
elif what == "creates":
    attr = ctypes.create_string_buffer(struct.pack("IIII", 1, 0, 8, 1024), 48)
    began = time.perf_counter()
    for i in range(count):
        libc.syscall(number, 0, attr, 48)
elif what == "loads":
    insns = ctypes.create_string_buffer(struct.pack("BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack("IIQQ", 1, 2, ctypes.addressof(insns), ctypes.addressof(licence)), 128)
    taken = []
    for i in range(count):
        time.sleep(0.01)
        start = time.perf_counter()
        fd = bpf(5, attr)
        taken.append(time.perf_counter() - start)
        os.close(fd)
    began = time.perf_counter() - sorted(taken)[count // 2]
elif what == "load":
    insns = b"".join(struct.pack("BBhi", 0xB7, 0, 0, i) for i in range(count - 1))
    insns = ctypes.create_string_buffer(insns + struct.pack("BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack("IIQQ", 1, count, ctypes.addressof(insns), ctypes.addressof(licence)), 128)
    began = time.perf_counter()
    bpf(5, attr)
else:
    began = time.perf_counter()
    for i in range(count):
        if not os.fork(): os._exit(0)
        os.wait()
print("%.9f s" % (time.perf_counter() - began))
"""
