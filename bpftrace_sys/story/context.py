"""What a program is given: the names of what stands in its context.

A context is a struct of the UAPI (XDP, skb, sock_ops, ...), the registers of whom a kprobe
interrupted, the fields of a tracepoint, or the arguments of a function.  Each kind is a Layout,
which names an access to it by offset and size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.notes import Given
from bpftrace_sys.trace.facts import Facts
from decoders.arch import AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64
from decoders.call import Call
from decoders.formats import insn as isa
from decoders.formats.ctx_flow import Access, accesses
from decoders.formats.insn import Insn
from decoders.records import dataclass
from decoders.uapi import names

if TYPE_CHECKING:
    from decoders.uapi.layouts import Member

STRUCTS: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("SOCKET_FILTER", "SCHED_CLS", "SCHED_ACT", "CGROUP_SKB", "LWT_IN", "LWT_OUT", "LWT_XMIT",
         "LWT_SEG6LOCAL", "SK_SKB", "FLOW_DISSECTOR"),
        "__sk_buff",
    ),
    "XDP": "xdp_md",
    "SOCK_OPS": "bpf_sock_ops",
    "CGROUP_SOCK": "bpf_sock",
    "CGROUP_SOCK_ADDR": "bpf_sock_addr",
    "CGROUP_DEVICE": "bpf_cgroup_dev_ctx",
    "CGROUP_SYSCTL": "bpf_sysctl",
    "CGROUP_SOCKOPT": "bpf_sockopt",
    "SK_MSG": "sk_msg_md",
    "SK_REUSEPORT": "sk_reuseport_md",
    "SK_LOOKUP": "bpf_sk_lookup",
}  # fmt: skip
"""The struct that a program type is given (include/linux/bpf_types.h), by its name."""
ARGUMENTS: Final = frozenset({"TRACING", "LSM", "RAW_TRACEPOINT", "RAW_TRACEPOINT_WRITABLE"})
"""Types that are given arguments, 8 bytes each."""

AS_IT_IS: Final = frozenset({*ARGUMENTS, "KPROBE", "TRACEPOINT", "STRUCT_OPS"})
"""Types whose accesses to the context the verifier leaves as they are: there is no
convert_ctx_access() for them."""

# struct pt_regs (arch/x86/include/asm/ptrace.h) and user_pt_regs (arch/arm64/include/uapi/asm).
_X86_64: Final = [
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di",
    "orig_ax", "ip", "cs", "flags", "sp", "ss",
]  # fmt: skip
_AARCH64: Final = [*(f"regs[{number}]" for number in range(31)), "sp", "pc", "pstate"]
REGISTERS: Final[dict[int, list[str]]] = {
    AUDIT_ARCH_X86_64: _X86_64, AUDIT_ARCH_AARCH64: _AARCH64,
}  # fmt: skip
PASSED: Final[dict[int, list[str]]] = {
    AUDIT_ARCH_X86_64: ["di", "si", "dx", "cx", "r8", "r9"],
    AUDIT_ARCH_AARCH64: [f"regs[{number}]" for number in range(8)],
}
"""The registers in which a function gets its arguments."""
RETURNED: Final[dict[int, str]] = {AUDIT_ARCH_X86_64: "ax", AUDIT_ARCH_AARCH64: "regs[0]"}
SAMPLE: Final = ("sample_period", "addr")
"""What follows the registers in struct bpf_perf_event_data."""
NETFILTER: Final = ("const struct nf_hook_state *state", "struct sk_buff *skb")
"""struct bpf_nf_ctx (include/linux/netfilter.h)"""
PARAMS: Final = 64
"""Parameters of a prototype that are looked at."""


class Layout:
    """Names what an access to the context is about."""

    def name(self, offset: int, size: int) -> str | None:
        """``ctx->data``; None where nothing certain can be said."""
        raise NotImplementedError


@dataclass(frozen=True)
class StructLayout(Layout):
    """A struct of the UAPI."""

    members: Sequence[Member]

    def name(self, offset: int, size: int) -> str | None:
        for member in self.members:
            if member.offset <= offset and offset + size <= member.offset + member.size:
                inside = offset - member.offset
                array = re.search(r"\[(\d+)\]$", member.ctype)
                path = member.path
                if array and int(array[1]):
                    each = member.size // int(array[1])
                    path += f"[{inside // each}]"
                    inside %= each
                return f"ctx->{path}" + (f" +{inside}" if inside else "")
        return None


@dataclass(frozen=True)
class RegistersLayout(Layout):
    """struct pt_regs, and what its registers are to a function that is called."""

    arch: int
    params: Sequence[str] = ()
    """Declarations of the parameters, where the function is known."""
    returns: bool = False
    """It is given when the function returns: then its arguments are no longer there."""
    sampled: bool = False
    """A perf event interrupted whatever ran: the registers are nobody's arguments."""

    def name(self, offset: int, size: int) -> str | None:
        registers = [*REGISTERS.get(self.arch, ()), *(SAMPLE if self.sampled else ())]
        if offset % 8 or not 0 <= offset // 8 < len(registers) or size > 8:
            return None
        register = registers[offset // 8]
        passed = [] if self.sampled else PASSED.get(self.arch, [])
        if self.returns:
            return f"ctx->{register}" + (
                ": what it returns" if register == RETURNED.get(self.arch) else ""
            )
        if register not in passed:
            return f"ctx->{register}"
        place = passed.index(register)
        if place < len(self.params):
            return f"ctx->{register}: {self.params[place]}"
        return f"ctx->{register}" + ("" if self.params else f": argument {place + 1}")


@dataclass(frozen=True)
class ArgumentsLayout(Layout):
    """Arguments one after the other, 8 bytes each, and then what the function returned."""

    params: Sequence[str]
    returns: bool = False

    def name(self, offset: int, size: int) -> str | None:
        place = offset // 8
        if not offset >= 0 or offset % 8 + size > 8:
            return None
        if place < len(self.params):
            return self.params[place]
        return "what it returns" if self.returns and place == len(self.params) else None


@dataclass(frozen=True)
class FieldsLayout(Layout):
    """Fields of a tracepoint: (declaration, offset, size)."""

    fields: Sequence[tuple[str, int, int]]

    def name(self, offset: int, size: int) -> str | None:
        for declaration, at, length in self.fields:
            if at <= offset and offset + size <= at + length:
                inside = offset - at
                name = declared(declaration)
                return f"args->{name}" + (f" +{inside}" if inside else "")
        return None


# ---------------------------------------------------------------- texts of facts


def params_of(prototype: str) -> list[str]:
    """The parameters of ``int f(int a, void (*b)(int, int))``: what stands between its commas."""
    start, end = prototype.find("("), prototype.rfind(")")
    if start < 0 or end < start:
        return []
    parts, depth = [""], 0
    for letter in prototype[start + 1 : end]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            if len(parts) == PARAMS:
                break
            parts.append("")
        else:
            parts[-1] += letter
    found = [part.strip() for part in parts]
    return [] if found in ([""], ["void"]) else found


def declared(declaration: str) -> str:
    """The name that a declaration ends with: ``filename`` of ``const char * filename``."""
    found = re.search(r"(\w+)\s*(?:\[[^\]]*\]|:\d+)?$", declaration)
    return found[1] if found else declaration


def fields_of(text: str) -> list[tuple[str, int, int]]:
    """The fields of a ``format`` fact: ``int dfd@16+8;...``."""
    found = []
    for part in text.split(";")[:PARAMS]:
        match = re.fullmatch(r"(.{1,200})@(\d{1,6})\+(\d{1,6})", part)
        if match:
            found.append((match[1], int(match[2]), int(match[3])))
    return found


# ---------------------------------------------------------------- which layout


def type_of(call: Call) -> str:
    """A load's program type, without BPF_PROG_TYPE_."""
    number = call.number("attr", "prog_type")
    return names.bpf_prog_type.get(-1 if number is None else number, "").removeprefix(
        "BPF_PROG_TYPE_"
    )


def _struct(call: Call, facts: Facts) -> Layout:
    from decoders.uapi.layouts import LAYOUTS

    return StructLayout(LAYOUTS.get(STRUCTS[type_of(call)], ()))


def _member_of_ops(call: Call, facts: Facts) -> Layout | None:
    ops = call.number("attr", "attach_btf_id")
    member = call.number("attr", "expected_attach_type") or 0
    prototype = facts.fact(f"member_prototype {member}", ops) if ops else None
    return None if prototype is None else ArgumentsLayout(params_of(prototype))


def _function(call: Call, facts: Facts) -> Layout | None:
    if call.number("attr", "attach_prog_fd"):
        return None
    target = call.number("attr", "attach_btf_id")
    prototype = facts.fact("prototype", target) if target else None
    if prototype is None:
        return None
    attach = call.number("attr", "expected_attach_type") or 0
    name = names.bpf_attach_type.get(attach, "")
    return ArgumentsLayout(
        params_of(prototype), name in ("BPF_TRACE_FEXIT", "BPF_MODIFY_RETURN")
    )


LOADED: Final[dict[str, Callable[[Call, Facts], Layout | None]]] = {
    **dict.fromkeys(STRUCTS, _struct),
    **dict.fromkeys(ARGUMENTS, _function),
    "KPROBE": lambda call, facts: RegistersLayout(call.raw.arch),
    "PERF_EVENT": lambda call, facts: RegistersLayout(
        call.raw.arch, sampled=call.raw.arch in REGISTERS
    ),
    "NETFILTER": lambda call, facts: ArgumentsLayout(NETFILTER),
    "STRUCT_OPS": _member_of_ops,
}
"""By program type."""
NOT_LOADED: Final = {
    "UNSPEC": "no type",
    "TRACEPOINT": "fields of a tracepoint, known once it is attached",
    "EXT": "what the function has that it takes the place of",
    "SYSCALL": "whatever its caller passes",
    "LIRC_MODE2": "one number",
}
"""Program types of whose context nothing is known at the load, and why."""


def loaded_layout(call: Call, facts: Facts) -> Layout | None:
    """What is known of a program's context when it is loaded, before it is attached."""
    kind = LOADED.get(type_of(call))
    return None if kind is None else kind(call, facts)


def named(program: Iterable[Insn], layout: Layout | None) -> dict[int, str]:
    """What accesses to the context are about, by pc."""
    found = {}
    for access in accesses(program) if layout is not None else ():
        name = layout.name(access.offset, access.size)  # type: ignore[union-attr]
        if name:
            found[access.pc] = name
    return found


# ---------------------------------------------------------------- with the attachment


_TARGET: Final = (
    r"(kprobe|kretprobe|fentry|fexit|fmod_ret|lsm|tp_btf|raw tracepoint|tracepoint) ([\w.:/]+)$"
)


def place(target: str, arch: int, facts: Facts) -> tuple[str, Layout] | None:
    """What a program is given at a target, in words and as a layout; None where it is not known.

    ``arch``: AUDIT_ARCH_* of the kernel, for its registers.
    """
    match = re.fullmatch(_TARGET, target)
    if match is None:
        return None
    kind, name = match[1], match[2]
    if kind == "tracepoint":
        fields = fields_of(facts.fact(f"format {name}", 0) or "")
        if not fields:
            return None
        words = ", ".join(declaration for declaration, _, _ in fields)
        return f"args: {words}", FieldsLayout(fields)
    if kind in ("tp_btf", "raw tracepoint"):
        question = f"tracepoint_args {name.removeprefix('btf_trace_')}"
    else:
        hook = "bpf_lsm_" if kind == "lsm" and not name.startswith("bpf_lsm_") else ""
        question = f"prototype {hook}{name}"
    what = facts.fact(question, 0)
    if not what:
        return None
    params = params_of(what)
    if kind in ("kprobe", "kretprobe"):
        return what, RegistersLayout(arch, params, kind == "kretprobe")
    return what, ArgumentsLayout(params, kind in ("fexit", "fmod_ret"))


def given(target: str, call: Call | None, model: Model) -> Given | None:
    """What a program is given at a target; ``call``: its load, where that was seen."""
    found = place(target, 0 if call is None else call.raw.arch, model.facts)
    if found is None:
        return None
    what, layout = found
    return Given(what, sorted(named(_program(call), layout).items()))


def _program(call: Call | None) -> Iterable[Insn]:
    from decoders.call import inner_value
    from decoders.values import Insns

    insns = None if call is None else inner_value(call.attr("attr", "insns"))
    return isa.listed(insns.data) if isinstance(insns, Insns) else []


__all__ = ["Access", "given", "loaded_layout", "named"]
