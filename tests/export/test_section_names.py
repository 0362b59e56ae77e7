"""Names of sections, as libbpf takes them."""

from __future__ import annotations

import ctypes
from typing import Final, NamedTuple

import pytest

from bpftrace_sys.export.section_names import NO_SECTION, SECTIONS, USUAL
from decoders.uapi import names

TYPES: Final = {
    number: name.removeprefix("BPF_PROG_TYPE_").lower()
    for number, name in names.bpf_prog_type.items()
}
ATTACH_TYPES: Final = {
    number: name.removeprefix("BPF_").lower() for number, name in names.bpf_attach_type.items()
}
NEWER: Final = {"sk_skb/verdict", "netfilter"}
"""Sections for attach types that libbpf knew before it had a section for them."""
NO_SECTION_OF_LIBBPF: Final = {"tracing"}
"""What a program gets of which it is not known what it traces."""


class Told(NamedTuple):
    """What libbpf makes of the name of a section."""

    kind: str
    attach: str


@pytest.fixture(scope="module")
def libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("libbpf is not installed")
    library.libbpf_set_print(None)
    library.libbpf_bpf_attach_type_str.restype = ctypes.c_char_p
    return library


def told(libbpf: ctypes.CDLL, section: str) -> Told | None:
    """None where libbpf knows no such section; some need a target behind a slash."""
    for name in (section, f"{section}/x"):
        kind, attach = ctypes.c_int(-1), ctypes.c_int(-1)
        numbers = (ctypes.byref(kind), ctypes.byref(attach))
        if libbpf.libbpf_prog_type_by_name(name.encode(), *numbers) == 0:
            return Told(TYPES[kind.value], ATTACH_TYPES[attach.value])
    return None


@pytest.mark.parametrize("kind", SECTIONS)
def test_libbpf_takes_them_for_the_same(libbpf: ctypes.CDLL, kind: str) -> None:
    numbers = {name: number for number, name in ATTACH_TYPES.items()}
    for attach, section in SECTIONS[kind].items():
        found = told(libbpf, section)
        if found is not None:
            assert found.kind == kind, section
            assert not attach or found.attach == attach, section
        elif section not in NEWER | NO_SECTION_OF_LIBBPF:
            assert attach, section
            assert libbpf.libbpf_bpf_attach_type_str(numbers[attach]) is None, section


def test_every_attach_type_has_a_section_or_a_reason(libbpf: ctypes.CDLL) -> None:
    named = {attach for rows in SECTIONS.values() for attach in rows if attach}
    usual = (told(libbpf, rows[""]) for rows in SECTIONS.values())
    assert {found.attach for found in usual if found is not None} - named == USUAL
    assert named | USUAL | set(NO_SECTION) == set(ATTACH_TYPES.values())
    assert not (named | USUAL) & set(NO_SECTION)
