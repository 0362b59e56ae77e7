"""What the verifier and the BTF verifier wrote into the loader's log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.objects import text_of
from decoders.call import inner_value
from decoders.values import Bytes, Insns, Text

if TYPE_CHECKING:
    from bpftrace_sys.story.verifier.verdict import Verdict

LOCKDOWN: Final = "/sys/kernel/security/lockdown"
LOG_READ: Final = 128 << 10
"""Bytes at the end of a log that are read: the reason stands at the end."""


def said(failure: Failure) -> tuple[Verdict, int | None] | None:
    """The verdict that stands in the log, and the instruction that it is about."""
    from bpftrace_sys.story.verifier.verdict import verdict

    log = inner_value(failure.call.attr("attr", "log_buf"))
    if not isinstance(log, Text) or not log.data:
        return None
    found = verdict(log.data[-LOG_READ:].decode("utf-8", "backslashreplace"))
    if found is None:
        return None
    return found, faulty(failure, found.lines) if found.pc is None else found.pc


def verifier(failure: Failure) -> list[str]:
    """The verifier's last words, at the instruction that they are about."""
    answer = said(failure)
    if answer is None:
        return []
    found, pc = answer
    first, *more = found.lines
    lines = [f"verifier: {first}", *(f"          {line}" for line in more)]
    if pc is not None:
        lines += _place(failure, pc, found.insn)
    for line in found.lines:
        taken = re.search(_TAKEN, line)
        if taken is not None and int(taken[1]) != pc:
            lines += _place(failure, int(taken[1]), None, "taken at")
    if found.state is not None:
        lines.append(f"with {found.state}")
    if any(re.search(_READS, line) for line in found.lines) and locked(failure):
        lines.append("the kernel is locked down (confidentiality): no program reads its memory")
    return lines


_READS: Final = (
    r"(unknown func|invalid func|cannot use helper) bpf_probe_read(_kernel)?(_str)?#"
)
"""Helpers that bpf_tracing_func_proto() gives nobody under LOCKDOWN_BPF_READ_KERNEL."""


def locked(failure: Failure) -> bool:
    """Whether lockdown keeps the kernel's memory confidential."""
    return "[confidentiality]" in (failure.now(f"file {LOCKDOWN}") or "")


_TAKEN: Final = r"\balloc_insn=(\d{1,9})\b"


def faulty(failure: Failure, words: tuple[str, ...]) -> int | None:
    """The instruction that the verifier found fault with before it walked the program.

    Its first passes (check_subprogs(), resolve_pseudo_ldimm64()) say what is wrong, not always
    where; the only instruction of which it can be true is the place.
    """
    from bpftrace_sys.story.verifier.scan import place

    insns = inner_value(failure.call.attr("attr", "insns"))
    if not isinstance(insns, Insns) or len(insns.data) != 8 * insns.total:
        return None
    return place(words, insns.data)


def _place(failure: Failure, pc: int, said: str | None, at: str = "at") -> list[str]:
    from bpftrace_sys.story.places import place_of

    place = place_of(failure.call, failure.model, pc)
    if place is None:
        return [f"{at} {pc}: {said}"] if said else []
    lines = [f"{at} {pc}: {place.insn}"]
    if place.source:
        where = place.where
        lines.append(f"of {where}: {place.source}" if where else f"of {place.source}")
    elif place.function:
        lines.append(f"in {place.function}")
    return lines


def load_enospc(failure: Failure) -> list[str]:
    """A log that did not fit, though the program may well be right."""
    prefix = "btf_" if failure.command == "BPF_BTF_LOAD" else ""
    size = failure.number(f"{prefix}log_size")
    true = failure.number(f"{prefix}log_true_size")
    if size and true > size:
        return [f"the log needs {true} bytes, log_size is {size}", *verifier(failure)]
    log = inner_value(failure.call.attr("attr", f"{prefix}log_buf"))
    if size and isinstance(log, Text) and len(log.data) >= size - 1:
        return [f"the log did not fit: log_size is {size}", *verifier(failure)]
    return []


def btf_invalid(failure: Failure) -> list[str]:
    """The last line of the BTF verifier's log."""
    log = text_of(failure.call.attr("attr", "btf_log_buf"))
    said = [line for line in log.splitlines() if line.strip()]
    if said:
        return [f"BTF verifier: {said[-1].strip()}"]
    blob = inner_value(failure.call.attr("attr", "btf"))
    if isinstance(blob, Bytes) and len(blob.data) >= 2 and blob.data[:2] != b"\x9f\xeb":
        return [f"the blob does not begin with BTF's magic number: {blob.data[:2].hex(' ')}"]
    if isinstance(blob, Bytes) and len(blob.data) == blob.wanted < 24:
        return ["the blob is shorter than BTF's header"]
    return []
