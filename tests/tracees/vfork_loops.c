// SPDX-License-Identifier: GPL-2.0-only
/* Loops of map updates in one place in memory, of which there are three: a process's, its child's by
 * vfork, and that of the program that the child becomes. argv[1]: the keys' first. */
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 8 };

static union bpf_attr attr;
static unsigned key;
static unsigned long long value;

static int fill(int map, unsigned first)
{
    unsigned number;
    memset(&attr, 0, sizeof attr);
    attr.map_fd = map;
    attr.key = (unsigned long)&key;
    attr.value = (unsigned long)&value;
    for (number = first; number < first + ROUNDS; number++) {
        key = number;
        value = number;
        if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr)) return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int map, status;
    if (argc > 2) return fill(atoi(argv[2]), atoi(argv[1]));
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_HASH;
    attr.key_size = 4;
    attr.value_size = 8;
    attr.max_entries = 64;
    map = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
    if (map < 0 || (map = dup(map)) != 4) return 2;
    if (!vfork()) {
        if (fill(map, 100)) _exit(3);
        execl("/proc/self/exe", argv[0], "200", "4", (char *)0);
        _exit(4);
    }
    wait(&status);
    return status || fill(map, 300) ? 5 : 0;
}
