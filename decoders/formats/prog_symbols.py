"""Names around a loaded program: of its own functions, and those that its text needs."""

from __future__ import annotations

from decoders.formats import insn as isa
from decoders.formats.btf import Btf
from decoders.formats.native_targets import ARCHITECTURES
from decoders.formats.prog_info import ProgInfo
from decoders.uapi.helpers import bpf_func_id

_MASK = (1 << 64) - 1


def own(info: ProgInfo, btf: Btf | None) -> list[str]:
    """What the kernel calls each function: ``bpf_prog_38dd440716c4900f_hello_world``.

    As bpf_get_prog_name() in kernel/bpf/core.c makes it: of its tag and its name in BTF, which
    for a program without that is the name it was loaded with, and F for its subprograms
    (jit_subprogs() in kernel/bpf/verifier.c).  The first is the main program, named by the tag of
    the whole.
    """
    functions = info.func_info
    names = []
    for index, tag in enumerate([info.tag, *info.tags[1:]]):
        name = ""
        if index < len(functions) and btf is not None:
            name = btf.name(functions[index][1])
        name = name or ("F" if index else info.name)
        names.append(f"bpf_prog_{tag}_{name}" if name else f"bpf_prog_{tag}")
    return names


def wanted(info: ProgInfo, machine: str, call_base: int) -> set[int]:
    """The addresses whose names the listings of a program show, and some more.

    ``call_base``: the address of __bpf_call_base; 0 where it is hidden.
    """
    found: set[int] = set()
    for site in isa.calls(isa.insns(info.xlated), xlated=True) if call_base else ():
        if site.kind != "subprog" and site.id and site.id not in bpf_func_id:
            found.add((call_base + site.id) & _MASK)
    targets = ARCHITECTURES.get(machine)
    for addr, code in info.functions() if targets is not None else ():
        if addr:
            found.update(targets(code, addr))  # type: ignore[misc]
    return found - set(info.ksyms)
