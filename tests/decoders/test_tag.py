"""Program tags, against the kernel's own and against known ones."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.formats.tag import tag, tagged, tags
from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1
from tests.support.bpf_programs import PROGRAMS, Program, loaded

RETURN = asm.mov(R0, 0) + asm.exit_()


@pytest.fixture(scope="module")
def column() -> str:
    """The hash that this kernel uses: a field of Tags.  Skips where nothing can be loaded."""
    if reason := asm.why_not():
        pytest.skip(reason)
    with asm.prog_load(RETURN) as loaded_:
        names = {"a04f5eef06a7f555": "sha1", "59f4a931744dcdc6": "sha256"}
        return names[asm.prog_info(loaded_.fd).tag]


def test_known_tags() -> None:
    assert tags(RETURN) == ("a04f5eef06a7f555", "59f4a931744dcdc6")
    hello = next(program for program in PROGRAMS if program.name == "stack_string")
    insns = hello.build(None)  # type: ignore[arg-type]
    assert len(insns) == 13 * 8
    assert tag(insns, "sha1") == "38dd440716c4900f"
    assert tag(insns, "sha256") == tags(insns).sha256


@pytest.mark.parametrize(
    "program",
    [program for program in PROGRAMS if program.accepted],
    ids=lambda program: program.name,
)
@pytest.mark.live
def test_the_kernels_tag(column: str, program: Program) -> None:
    with loaded(program) as outcome:
        if outcome.fd < 0:
            pytest.skip(f"this kernel refuses it: {outcome.log[-300:]}")
        theirs = asm.prog_info(outcome.fd).tag
    assert getattr(tags(outcome.insns), column) == theirs


@pytest.mark.parametrize(
    ("src", "counts"),
    [
        (0, True),
        (asm.MAP_FD, False),
        (asm.MAP_VALUE, False),
        (asm.BTF_ID, True),
        (asm.FUNC, True),
        (asm.MAP_IDX, True),
        (asm.MAP_IDX_VALUE, True),
    ],
)
def test_which_constants_count(src: int, counts: bool) -> None:
    one = asm.ld_imm64(R1, 5, src, 7) + RETURN
    other = asm.ld_imm64(R1, 6, src, 8) + RETURN
    assert (tags(one) != tags(other)) == counts
    assert (tagged(one) == one) == counts


def test_only_an_empty_second_slot_is_cleared() -> None:
    load = asm.ld_imm64(R1, 5, asm.MAP_FD)[:8]
    cleared = asm.ld_imm64(R1, 0, asm.MAP_FD)[:8]
    assert tagged(load + asm.raw(0, imm=9)) == cleared + bytes(8)
    for second in (asm.raw(0, dst=1, imm=9), asm.raw(0, off=1, imm=9), asm.mov(R0, 9)):
        assert tagged(load + second) == cleared + second
    # The slot after a load is never itself taken for one; the next is.
    assert tagged(load * 2) == cleared + load
    assert tagged(load * 3) == cleared + load + cleared
    assert tagged(load) == cleared
    assert tagged(load + b"\0\0\0") == cleared


def slot_by_slot(data: bytes) -> bytes:
    """The rule as bpf_prog_calc_tag() walks it, one slot after the other."""
    out, after_map = [], False
    for at in range(0, len(data) - 7, 8):
        slot = data[at : at + 8]
        if not after_map and slot[0] == 0x18 and slot[1] >> 4 in (1, 2):
            after_map, slot = True, slot[:4] + bytes(4)
        elif after_map and slot[:4] == bytes(4):
            after_map, slot = False, bytes(8)
        else:
            after_map = False
        out.append(slot)
    return b"".join(out)


@given(
    st.lists(
        st.one_of(
            st.binary(min_size=8, max_size=8),
            st.sampled_from(
                [b"\x18\x11\0\0abcd", b"\x18\x21\0\0abcd", b"\0\0\0\0abcd", b"\x18" * 8]
            ),
        )
    ),
    st.binary(max_size=7),
)
def test_the_rule_on_any_slots(slots: list[bytes], rest: bytes) -> None:
    data = b"".join(slots)
    wanted = slot_by_slot(data)
    assert tagged(data + rest) == wanted
    assert tags(memoryview(data + rest)) == (
        hashlib.sha1(wanted).hexdigest()[:16],
        hashlib.sha256(wanted).hexdigest()[:16],
    )
