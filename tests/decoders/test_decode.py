"""Calls put together by hand: what this machine's kernel, CPU or devices do not have.

An attr is built from the kernel's layouts by the names of its fields; what the
declarations make of it is compared with what the kernel's headers and sources
say that it means.
"""

from __future__ import annotations

import pytest

from decoders import arch as arches
from decoders.decode import Call, decode
from decoders.raw import AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from decoders.uapi import const
from decoders.values import (
    EMPTY,
    NOT_WRITTEN,
    Bytes,
    Pointer,
)
from tests.support.by_hand import Room, bpf, built, plain, u32s
from tests.support.made_up import Facts, record


def test_values_of_one_cpu() -> None:
    """With BPF_F_CPU or BPF_F_ALL_CPUS a value is one, of its own size."""
    for flags, shown in (
        (3 << 32 | const.BPF_F_CPU, ["BPF_F_CPU", "3<<32"]),
        (const.BPF_F_ALL_CPUS, ["BPF_F_ALL_CPUS"]),
    ):
        call = bpf_elem("MAP_UPDATE_ELEM", flags)
        assert plain(call.attr("attr", "value")) == b"abc"
        assert plain(call.attr("attr", "flags")) == shown
        call = bpf_elem("MAP_LOOKUP_ELEM", flags)
        assert plain(call.attr("attr", "value")) == b"abc"
        assert plain(call.attr("attr", "flags")) == shown
    # Of a CPU array's 3 bytes each of 4 CPUs has 8.
    found = bpf_elem("MAP_UPDATE_ELEM", 0).attr("attr", "value")
    assert isinstance(found, Pointer)
    assert isinstance(found.value, Bytes)
    assert found.value.wanted == 32


def bpf_elem(cmd: str, flags: int) -> Call:
    """An operation on an element of the per-CPU map."""
    room = Room()
    attr = built("bpf_attr.MAP_*_ELEM", room, map_fd=4, key=u32s(0), value=b"abcdefgh", flags=flags)
    args = (getattr(const, f"BPF_{cmd}"), room.put(attr), len(attr), 0, 0, 0)
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    return decode(record(AUDIT_ARCH_X86_64, nr, args, room.memory(), room.memory(), 0), Facts())


def test_bloom_filter() -> None:
    """A lookup in a bloom filter passes the value and asks whether it is there."""
    for ret in (0, -2):
        call = bpf("MAP_LOOKUP_ELEM", ret=ret, map_fd=13, value=b"word")
        assert plain(call.attr("attr", "value")) == b"word"


def test_data_out_without_a_size() -> None:
    """bpf_test_finish(): a room of 0 is no limit, and what there was is in the size after."""
    call = bpf(
        "PROG_TEST_RUN", test__prog_fd=5, test__data_out=b"packet...", test__data_size_out=0,
        after={"test__data_size_out": 6},
    )  # fmt: skip
    assert plain(call.attr("attr", "test", "data_out")) == b"packet"
    call = bpf(
        "PROG_TEST_RUN", ret=-22, test__prog_fd=5, test__data_out=b"packet...",
        test__data_size_out=9,
    )  # fmt: skip
    assert plain(call.attr("attr", "test", "data_out")) == NOT_WRITTEN


def test_stream() -> None:
    """As much as the result says."""
    fields = {"prog_stream_read__stream_buf": b"hello, stream", "prog_stream_read__stream_id": 1,
              "prog_stream_read__stream_buf_len": 64}  # fmt: skip
    for ret, shown in ((5, b"hello"), (0, EMPTY)):
        call = bpf("PROG_STREAM_READ_BY_FD", ret=ret, **fields)
        assert plain(call.attr("attr", "prog_stream_read", "stream_buf")) == shown
        assert plain(call.attr("attr", "prog_stream_read", "stream_id")) == "BPF_STREAM_STDOUT"


def test_log_of_common_attrs() -> None:
    """The two further arguments, and the log that the kernel left behind them."""
    room = Room()
    log = room.put(b"array: key_size must be 4\0".ljust(64, b"\0"))
    common = room.put(built("bpf_common_attr", log_buf=log, log_size=64, log_level=1,
                            log_true_size=26))  # fmt: skip
    call = bpf("MAP_CREATE", room=room, ret=-22, map_type=2, flags=1 << 16, extra=(common, 24))
    assert call.command == "BPF_MAP_CREATE|BPF_COMMON_ATTRS"
    assert plain(call.attr("attr_common")) == {
        "log_buf": b"array: key_size must be 4", "log_size": 64, "log_level": 1,
        "log_true_size": 26,
    }  # fmt: skip
    assert plain(call.attr("size_common")) == 24
    assert bpf("MAP_CREATE", map_type=2).attr("attr_common") is None


def test_module_btf() -> None:
    """What is attached to is in the BTF of the kernel, of a module, or of a program."""
    for fd, name in ((0, "attach_prog_fd"), (5, "attach_prog_fd"), (6, "attach_btf_obj_fd")):
        call = bpf("PROG_LOAD", attach_btf_id=77, attach_prog_fd=fd)
        assert call.number("attr", name) == fd


def test_query_of_an_order() -> None:
    call = bpf(
        "PROG_QUERY", query__attach_type=const.BPF_NETKIT_PEER, query__target_ifindex=2,
        query__prog_ids=u32s(4, 5, 6), query__link_ids=u32s(7, 0, 0), query__count=3,
        after={"query__count": 1},
    )  # fmt: skip
    shown = plain(call.attr("attr", "query"))
    assert (shown["count"], shown["prog_ids"], shown["link_ids"]) == (1, [4], [7])
    assert "prog_cnt" not in shown


def test_assoc_struct_ops() -> None:
    call = bpf(
        "PROG_ASSOC_STRUCT_OPS", prog_assoc_struct_ops__map_fd=3, prog_assoc_struct_ops__prog_fd=5
    )
    assert plain(call.attr("attr", "prog_assoc_struct_ops")) == {
        "map_fd": 3, "prog_fd": 5, "flags": 0,
    }  # fmt: skip


def test_exclusive_map() -> None:
    call = bpf("MAP_CREATE", map_type=2, excl_prog_hash=bytes(range(32)), excl_prog_hash_size=32)
    assert plain(call.attr("attr", "excl_prog_hash")) == bytes(range(32))


@pytest.mark.parametrize("arch", [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64])
def test_architectures(arch: int) -> None:
    """One attr for all: an i386 caller's pointers are 64 bits wide in it, too."""
    call = bpf("PROG_LOAD", arch=arch, prog_type=6, license=b"GPL\0", prog_name=b"same")
    assert call.command == "BPF_PROG_LOAD"
    assert plain(call.attr("attr", "license")) == b"GPL"
    assert plain(call.attr("attr", "prog_name")) == b"same"
