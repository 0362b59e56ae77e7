"""Perf events and ioctls that this machine's CPU or devices do not have, by hand."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from decoders import arch as arches
from decoders.declare import perf_ioctl
from decoders.decode import Call, decode
from decoders.raw import AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, FdFact
from decoders.uapi import const, perf
from decoders.values import (
    Fd,
    Int,
)
from tests.support.by_hand import Room, built, plain, u32s, u64s
from tests.support.made_up import FDS, Facts, record


def event(
    arch: int = AUDIT_ARCH_X86_64,
    size: int | None = None,
    ret: int = 3,
    args: tuple[int, ...] = (0, 0, 0, 0),
    **fields: Any,
) -> Call:
    """A decoded perf_event_open."""
    room = Room()
    attr = built("perf_event_attr", room, size=144 if size is None else size, **fields)
    addr = room.put(attr)
    nr = arches.number(arch, "perf_event_open")
    raw = record(arch, nr, (addr, *args, 0), room.memory(), room.memory(), ret)
    call = decode(raw, Facts())
    assert call.problem is None
    return call


def test_probes() -> None:
    """The kprobe and uprobe PMUs, whose types are 6 and 7 here."""
    call = event(type=6, kprobe_func=b"vfs_read\0", probe_offset=16, config=1)
    assert call.attr("attr", "type") == Int(6, 10, "kprobe")
    assert plain(call.attr("attr", "kprobe_func")) == b"vfs_read"
    assert call.attr("attr", "probe_offset") == Int(16, 16)
    assert call.attr("attr", "config") == Int(1, 16, "retprobe")
    call = event(type=6, kprobe_addr=0xFFFFFFFF81000000)
    assert call.number("attr", "kprobe_addr") == 0xFFFFFFFF81000000
    assert call.attr("attr", "probe_offset") is None
    call = event(type=7, uprobe_path=b"/bin/sh\0", probe_offset=0x1234, config=0x20 << 32 | 1)
    assert plain(call.attr("attr", "uprobe_path")) == b"/bin/sh"
    assert call.attr("attr", "config") == Int(0x2000000001, 16, "retprobe, ref_ctr_offset=0x20")


@pytest.mark.parametrize(
    ("config", "name"), [(n, name) for n, name in perf.perf_hw_id.items()]
)
def test_hardware(config: int, name: str) -> None:
    """Of the only PMU, and of one among several (PERF_PMU_TYPE_SHIFT)."""
    assert plain(event(type=0).attr("attr", "type")) == "PERF_TYPE_HARDWARE"
    assert plain(event(type=0, config=config).attr("attr", "config")) == name
    assert event(type=0, config=8 << 32 | config).attr("attr", "config") == Int(
        8 << 32 | config, 16, f"cpu_core<<32|{name}"
    )


def test_cache() -> None:
    triple = "PERF_COUNT_HW_CACHE_RESULT_MISS<<16|PERF_COUNT_HW_CACHE_OP_READ<<8|{}"
    level = "PERF_COUNT_HW_CACHE_LL"
    found = event(type=3, config=1 << 16 | 2).attr("attr", "config")
    assert found == Int(0x10002, 16, triple.format(level))
    found = event(type=3, config=8 << 32 | 1 << 16 | 2).attr("attr", "config")
    assert found == Int(8 << 32 | 0x10002, 16, "cpu_core<<32|" + triple.format(level))
    call = event(type=3, config=0xFF)
    assert plain(call.attr("attr", "type")) == "PERF_TYPE_HW_CACHE"
    assert call.attr("attr", "config") == Int(0xFF, 16)


def test_raw() -> None:
    """A number of the CPU's own, of which nobody has a name."""
    call = event(type=4, config=0x1C2, config1=5, config2=6)
    assert plain(call.attr("attr", "type")) == "PERF_TYPE_RAW"
    assert call.attr("attr", "config") == Int(0x1C2, 16)
    assert (call.number("attr", "config1"), call.number("attr", "config2")) == (5, 6)


@pytest.mark.parametrize(("number", "name"), list(perf.hw_breakpoint_type.items()))
def test_breakpoints(number: int, name: str) -> None:
    call = event(type=5, bp_type=number, bp_addr=0x1000, bp_len=8)
    assert plain(call.attr("attr", "type")) == "PERF_TYPE_BREAKPOINT"
    assert plain(call.attr("attr", "bp_type")) == name
    assert plain(call.attr("attr", "bp_len")) == "HW_BREAKPOINT_LEN_8"
    assert call.number("attr", "bp_addr") == 0x1000


@pytest.mark.parametrize(
    ("arch", "mask", "shown"),
    [
        (AUDIT_ARCH_X86_64, 0b11 << 32 | 1 << 8, ["PERF_REG_X86_XMM0", "PERF_REG_X86_IP"]),
        (AUDIT_ARCH_X86_64, 1 << 63, [1 << 63]),
        (AUDIT_ARCH_I386, 1 << 7, ["PERF_REG_X86_SP"]),
        (AUDIT_ARCH_AARCH64, 1 << 32 | 1, ["PERF_REG_ARM64_X0", "PERF_REG_ARM64_PC"]),
    ],
)
def test_registers(arch: int, mask: int, shown: list[Any]) -> None:
    call = event(arch, sample_regs_user=mask, sample_regs_intr=mask)
    for name in ("sample_regs_user", "sample_regs_intr"):
        assert sorted(map(str, plain(call.attr("attr", name)))) == sorted(map(str, shown))


def test_newest_fields() -> None:
    call = event(
        type=1, config=9, aux_watermark=4096, aux_sample_size=64, aux_pause=1, sig_data=5,
        config3=6, config4=7, use_clockid=1, clockid=1, sample_max_stack=9, defer_callchain=1,
        precise_ip=2,
    )  # fmt: skip
    shown = plain(call.attr("attr"))
    wanted = {
        "aux_watermark": 4096, "aux_sample_size": 64, "aux_pause": 1, "aux_resume": 0,
        "sig_data": 5, "config3": 6, "config4": 7, "clockid": "CLOCK_MONOTONIC",
        "sample_max_stack": 9, "defer_callchain": 1, "defer_output": 0, "precise_ip": 2,
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted


def test_frequency_and_watermark() -> None:
    shown = plain(event(freq=1, sample_freq=99, watermark=1, wakeup_watermark=5).attr("attr"))
    assert (shown["sample_freq"], shown["wakeup_watermark"]) == (99, 5)
    assert "sample_period" not in shown
    assert "wakeup_events" not in shown


def test_cgroup_event() -> None:
    """With PERF_FLAG_PID_CGROUP the process is a cgroup's fd."""
    call = event(args=(11, 0, 0xFFFFFFFF, const.PERF_FLAG_PID_CGROUP))
    assert isinstance(call.attr("pid"), Fd)
    assert call.fact("pid") == FdFact(11, 0, *FDS[11])
    call = event(args=(0xFFFFFFFF, 0, 0xFFFFFFFF, 0))
    assert (call.attr("pid"), call.number("group_fd")) == (Int(-1), -1)


def ioctl(request: str, arch: int, arg: int | bytes, fd: int = 10) -> Call:
    """A decoded ioctl; the number is the one of that architecture's pointers."""
    room = Room()
    table = perf.perf_event_ioc_compat32 if arch == AUDIT_ARCH_I386 else perf_ioctl.NAMES
    number = next(n for n, name in table.items() if name == request)
    if isinstance(arg, bytes):
        room._next = 0xF7000000
        arg = room.put(arg)
    nr = arches.number(arch, "ioctl")
    raw = record(arch, nr, (fd, number, arg, 0, 0, 0), room.memory(), room.memory(), 0)
    call = decode(raw, Facts())
    assert call.problem is None
    assert call.command == request
    return call


@pytest.mark.parametrize("arch", [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64])
def test_ioctls(arch: int) -> None:
    """Of both sizes of pointers: the requests that carry one have numbers of their own."""
    found = {
        name: plain(ioctl(f"PERF_EVENT_IOC_{name}", arch, arg).attr("arg"))
        for name, arg in {
            "SET_FILTER": b"pid == 1\0",
            "ID": u64s(77),
            "PERIOD": u64s(1000),
            "QUERY_BPF": u32s(3, 2, 8, 9, 10),
            "MODIFY_ATTRIBUTES": built("perf_event_attr", size=64, type=1, config=9),
            "SET_OUTPUT": 0xFFFFFFFF,
            "SET_BPF": 5,
            "PAUSE_OUTPUT": 1,
            "REFRESH": 0xFFFFFFFF,
            "ENABLE": 1,
            "DISABLE": 0,
            "RESET": 1,
        }.items()
    }
    attr = found.pop("MODIFY_ATTRIBUTES")
    assert (attr["type"], attr["config"]) == ("PERF_TYPE_SOFTWARE", "PERF_COUNT_SW_DUMMY")
    assert found == {
        "SET_FILTER": b"pid == 1", "ID": {"id": 77}, "PERIOD": {"period": 1000},
        "QUERY_BPF": {"ids_len": 3, "prog_cnt": 2, "ids": [8, 9]}, "SET_OUTPUT": -1,
        "SET_BPF": 5, "PAUSE_OUTPUT": 1, "REFRESH": -1, "ENABLE": ["PERF_IOC_FLAG_GROUP"],
        "DISABLE": [], "RESET": ["PERF_IOC_FLAG_GROUP"],
    }  # fmt: skip


def test_kcm() -> None:
    assert plain(ioctl("SIOCKCMATTACH", AUDIT_ARCH_X86_64, u32s(11, 5)).attr("arg")) == {
        "fd": 11, "bpf_fd": 5,
    }  # fmt: skip
    assert plain(ioctl("SIOCKCMUNATTACH", AUDIT_ARCH_X86_64, u32s(11)).attr("arg")) == {"fd": 11}
    assert plain(ioctl("SIOCKCMCLONE", AUDIT_ARCH_X86_64, u32s(11)).attr("arg")) == {"fd": 11}


def test_tun() -> None:
    for request in ("TUNSETSTEERINGEBPF", "TUNSETFILTEREBPF"):
        call = ioctl(request, AUDIT_ARCH_X86_64, struct.pack("<i", -1))
        assert plain(call.attr("arg")) == {"fd": -1}
