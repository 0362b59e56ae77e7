/* A bpf() with instructions in a page that never comes: see tests/record/test_careful.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

int main(int argc, char **argv)
{
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2};
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    char line[64], *page = mmap(0, 8192, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int n, fd;
    if (!strcmp(argv[1], "device")) {
        fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        if (fd >= 0) fd = ioctl(fd, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    } else {
        fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    }
    range.range.start = (unsigned long)page;
    range.range.len = 8192;
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) return 77;
    if (!strcmp(argv[1], "attached")) {
        write(1, "ready\n", 6);
        read(0, line, 1);
    }
    attr.insns = (unsigned long)page;
    attr.license = (unsigned long)"GPL";
    attr.prog_flags = 1u << 31; /* refused before the instructions are looked at */
    n = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    n = snprintf(line, sizeof line, "%d %d\n", n, errno);
    write(1, line, n);
    return 3;
}
