"""Refusals of every kind, provoked for real: ``refused`` has the errnos, ``logs`` the logs."""

import os
import resource
import struct
from pathlib import Path
from typing import Any

from _common import (
    ATTACH,
    CMD,
    LO,
    MAP,
    PROG,
    Btf,
    Kit,
    asm,
    buffer,
    call,
    own_net,
    perf_event,
    pmu,
    returning,
    run,
    start_child,
    syscall,
    tracefs,
    u32s,
    u64s,
)

NOBODY = 65534
UNREADABLE = 1  # an address where nothing is mapped
RETURN = {"insns": returning(0), "insn_cnt": 2, "license": b"GPL\0"}
FILTER = {"prog_type": PROG["SOCKET_FILTER"], **RETURN}
ARRAY = {"map_type": MAP["ARRAY"], "key_size": 4, "value_size": 8, "max_entries": 1}


def without_privileges(kit: Kit) -> None:
    """EPERM and EACCES, in a child that is nobody."""

    def child() -> dict[str, Any]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        theirs = Kit()
        with theirs.may_be_refused("PROG_LOAD as nobody"):
            call("PROG_LOAD", **FILTER)
        with theirs.may_be_refused("MAP_CREATE as nobody"):
            call("MAP_CREATE", **ARRAY)
        with theirs.may_be_refused("BTF_LOAD as nobody"):
            kit.btf(Btf().blob())
        with theirs.may_be_refused("perf_event_open of another CPU's events as nobody"):
            perf_event(1, pid=-1, cpu=0)  # PERF_TYPE_SOFTWARE
        with theirs.may_be_refused("PROG_GET_NEXT_ID as nobody"):
            call("PROG_GET_NEXT_ID")
        return {"refused": theirs.refused}

    kit.refused.update(start_child(child)()["refused"])


def beyond_the_kernel(kit: Kit) -> None:
    """E2BIG: bytes that are not zero where this kernel has no fields yet."""
    with kit.may_be_refused("PROG_LOAD with a byte beyond the attr"):
        attr = bytearray(struct.pack("<IIQQ", PROG["SOCKET_FILTER"], 2, 0, 0).ljust(256, b"\0"))
        attr[240] = 1
        asm.bpf(CMD["PROG_LOAD"], attr)
    with kit.may_be_refused("MAP_CREATE of more than a page"):
        asm.bpf(CMD["MAP_CREATE"], bytes(5000))
    with kit.may_be_refused("perf_event_open with a byte beyond the attr"):
        attr = bytearray(struct.pack("<II", 1, 200).ljust(200, b"\0"))
        attr[199] = 1
        syscall("perf_event_open", bytes(attr), 0, -1, -1, 8)


def unknown(kit: Kit) -> None:
    """EINVAL: what this kernel does not know, and what nobody may ask for."""
    with kit.may_be_refused("command 200"):
        asm.bpf(200, bytes(8))
    with kit.may_be_refused("program type 250"):
        call("PROG_LOAD", **FILTER | {"prog_type": 250})
    with kit.may_be_refused("map type 250"):
        call("MAP_CREATE", **ARRAY | {"map_type": 250})
    with kit.may_be_refused("program flag 1 << 30"):
        call("PROG_LOAD", prog_flags=1 << 30, **FILTER)
    with kit.may_be_refused("map flag 1 << 30"):
        call("MAP_CREATE", map_flags=1 << 30, **ARRAY)
    with kit.may_be_refused("program name with a space"):
        call("PROG_LOAD", prog_name=b"not a name", **FILTER)
    with kit.may_be_refused("map name with a slash"):
        call("MAP_CREATE", map_name=b"a/b", **ARRAY)
    with kit.may_be_refused("program name without an end"):
        call("PROG_LOAD", prog_name=b"sixteen_letters_", **FILTER)
    with kit.may_be_refused("array with keys of 8 bytes"):
        call("MAP_CREATE", **ARRAY | {"key_size": 8})
    with kit.may_be_refused("attach type 250"):
        prog = call("PROG_LOAD", **FILTER).ret
        call("LINK_CREATE", prog_fd=prog, attach_type=250)
    with kit.may_be_refused("attach type of another program type"):
        call("LINK_CREATE", prog_fd=prog, attach_type=ATTACH["XDP"], target_fd=1)
    with kit.may_be_refused("BTF that is none"):
        kit.btf(b"not BTF at all, but long enough for a header")
    with kit.may_be_refused("program of no instructions"):
        call("PROG_LOAD", **FILTER | {"insn_cnt": 0})


def verifier(kit: Kit) -> None:
    """Programs that the verifier refuses, with logs; the first with source lines."""
    logs = {}

    def load(name: str, log_level: int, log_size: int, insns: bytes, **more: Any) -> None:
        log = buffer(max(log_size, 1))
        with kit.may_be_refused(name):
            call(
                "PROG_LOAD", prog_type=PROG["SOCKET_FILTER"], insns=insns,
                insn_cnt=len(insns) // 8, license=b"GPL\0", prog_name=b"refused",
                log_level=log_level, log_size=log_size,
                log_buf=log if log_size else 0, **more,
            )  # fmt: skip
        logs[name] = log.value.decode()

    types = Btf()
    function = types.func("refused", ctx=types.ptr(0))
    file, lines = types.string("refused.c"), ("int refused(void *ctx)", "return never_set;")
    info = b"".join(
        u32s(at, file, types.string(line), number << 10 | 1)
        for number, (at, line) in enumerate(zip((0, 1), lines, strict=True), 1)
    )
    described = {
        "prog_btf_fd": kit.btf(types.blob()),
        "func_info": u32s(0, function), "func_info_cnt": 1, "func_info_rec_size": 8,
        "line_info": info, "line_info_cnt": 2, "line_info_rec_size": 16,
    }  # fmt: skip
    unset = asm.mov(asm.R1, 1) + asm.mov_reg(asm.R0, asm.R2) + asm.exit_()
    # As libbpf does it: without a log, then with one that is too small, then with a bigger one.
    load("uninitialised register, no log", 0, 0, unset, **described)
    load("uninitialised register, log of 64 bytes", 2, 64, unset, **described)
    load("uninitialised register, log level 1", 1, 65536, unset, **described)
    load("uninitialised register, log level 2", 2, 65536, unset, **described)
    beyond = asm.load("u64", asm.R0, asm.R10, 8) + asm.exit_()
    load("read beyond the stack", 1, 65536, beyond)
    load("jump out of range", 1, 65536, asm.goto(10) + returning(0))
    load("instruction that is never reached", 1, 65536, asm.goto(1) + asm.exit_() + returning(0))
    load("unknown opcode", 1, 65536, asm.raw(0xFF) + asm.exit_())
    load("accepted, but the log is too small", 2, 64, returning(0))
    load("log level without a log", 1, 0, returning(0))
    kit.say(logs=logs)


def absent(kit: Kit) -> None:
    """ENOENT, EBADF, EFAULT, EEXIST, EBUSY and the like."""
    raw = call("PROG_LOAD", **FILTER | {"prog_type": PROG["RAW_TRACEPOINT"]}).ret
    with kit.may_be_refused("raw tracepoint that is none"):
        call("RAW_TRACEPOINT_OPEN", name=b"no_such_tracepoint\0", prog_fd=raw)
    with kit.may_be_refused("id of a tracepoint that is none"):
        (tracefs() / "events/syscalls/sys_enter_no_such_call/id").read_text()
    with kit.may_be_refused("tracepoint 0x7fffffff"):
        perf_event(2, 0x7FFFFFFF, pid=-1, cpu=0)
    with kit.may_be_refused("uprobe in no file"):
        perf_event(pmu("uprobe"), text=b"/no/such/file", config2=64)
    with kit.may_be_refused("OBJ_GET of no file"):
        call("OBJ_GET", pathname=b"/sys/fs/bpf/no/such/pin\0")
    with kit.may_be_refused("fd that is not open"):
        call("MAP_LOOKUP_ELEM", map_fd=999, key=u32s(0), value=buffer(8))
    with kit.may_be_refused("fd of something else"):
        null = os.open(os.devnull, os.O_RDONLY)
        call("MAP_LOOKUP_ELEM", map_fd=null, key=u32s(0), value=buffer(8))
    with kit.may_be_refused("map fd in a program that is not open"):
        insns = asm.ld_imm64(asm.R1, 999, asm.MAP_FD) + returning(0)
        call("PROG_LOAD", **FILTER | {"insns": insns, "insn_cnt": 4})
    with kit.may_be_refused("insns at an unreadable address"):
        call("PROG_LOAD", **FILTER | {"insns": UNREADABLE})
    with kit.may_be_refused("license at an unreadable address"):
        call("PROG_LOAD", **FILTER | {"license": UNREADABLE})
    array = kit.map("ARRAY", 4, 8, 1, "array")
    with kit.may_be_refused("key at an unreadable address"):
        call("MAP_UPDATE_ELEM", map_fd=array, key=UNREADABLE, value=u64s(0))
    with kit.may_be_refused("attr at an unreadable address"):
        syscall("bpf", CMD["MAP_CREATE"], UNREADABLE, 32)
    table = kit.map("HASH", 4, 8, 1, "table")
    with kit.may_be_refused("element that exists"):
        for _ in range(2):
            call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(0), value=u64s(0), flags=1)
    with kit.may_be_refused("map frozen twice"):
        for _ in range(2):
            call("MAP_FREEZE", map_fd=array)
    with kit.may_be_refused("XDP link where one is"):
        own_net()
        xdp = call("PROG_LOAD", **FILTER | {"prog_type": PROG["XDP"]}).ret
        for _ in range(2):
            call("LINK_CREATE", prog_fd=xdp, target_fd=LO, attach_type=ATTACH["XDP"], flags=2)
    with kit.may_be_refused("map beyond all memory"):
        call("MAP_CREATE", **ARRAY | {"value_size": 1 << 30, "max_entries": 1 << 31})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with kit.may_be_refused("no more fds"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        call("MAP_CREATE", **ARRAY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def work(kit: Kit) -> None:
    without_privileges(kit)
    beyond_the_kernel(kit)
    unknown(kit)
    verifier(kit)
    absent(kit)
    sysctls = ("unprivileged_bpf_disabled", "perf_event_paranoid")
    kit.say(sysctls={name: int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in sysctls})


run(work)
