"""The answers of seccomp filters, as the kernel would compute them; any bytes end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.record.machine.own_filters import run

pytestmark = pytest.mark.offline
DATA = struct.pack("<iIQ6Q", 321, 0xC000003E, 0, 5, 0xAABBCCDD11223344, 3, 4, 5, 6)
INSN = st.tuples(
    st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF)
)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ([(0x06, 0, 0, 7)], 7),
        ([(0x20, 0, 0, 0), (0x16, 0, 0, 0)], 321),
        ([(0x20, 0, 0, 24), (0x16, 0, 0, 0)], 0x11223344),  # the lower half comes first
        ([(0x20, 0, 0, 28), (0x16, 0, 0, 0)], 0xAABBCCDD),
        ([(0x80, 0, 0, 0), (0x16, 0, 0, 0)], 64),  # sizeof(struct seccomp_data)
        ([(0x00, 0, 0, 3), (0x14, 0, 0, 5), (0x16, 0, 0, 0)], 0xFFFFFFFE),
        ([(0x00, 0, 0, 3), (0x07, 0, 0, 0), (0x2C, 0, 0, 0), (0x16, 0, 0, 0)], 9),
        ([(0x00, 0, 0, 9), (0x02, 0, 0, 4), (0x61, 0, 0, 4), (0x87, 0, 0, 0), (0x16, 0, 0, 0)], 9),
        ([(0x00, 0, 0, 6), (0x45, 1, 0, 4), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x00, 0, 0, 6), (0x25, 0, 1, 6), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x00, 0, 0, 6), (0x35, 1, 0, 6), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x05, 0, 0, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)], 2),
        ([(0x20, 0, 0, 64), (0x16, 0, 0, 0)], None),  # past the end: seccomp takes none such
        ([(0x20, 0, 0, 8), (0x06, 0, 0, 7)], None),  # where the call was made from: not known
        ([(0x00, 0, 0, 1)], None),
    ],
)
def test_a_filter_returns(
    program: list[tuple[int, int, int, int]], result: int | None
) -> None:
    assert run(program, DATA) == result


@given(st.lists(INSN, max_size=50))
def test_any_filter_ends(program: list[tuple[int, int, int, int]]) -> None:
    found = run(program, DATA)
    assert found is None or 0 <= found <= 0xFFFFFFFF
