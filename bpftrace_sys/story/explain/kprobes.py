"""Refusals of kprobes: functions that are not there, or that nobody may probe."""

from __future__ import annotations

import errno

from bpftrace_sys.story.explain.failure import NONE, Failure
from bpftrace_sys.story.explain.logs import locked


def because(failure: Failure, name: str, ftrace: bool = False) -> str:
    """Why the kernel has no kprobe at a function; empty where nothing speaks against one.

    ``ftrace``: one of many, which is an fprobe: the blacklist is not asked then.
    """
    answer = failure.fact(f"kprobe {name}") or ""
    if answer == NONE:
        return f"the kernel has no function {name}"
    if answer.startswith("blacklisted") and not ftrace:
        return f"{name} is one of the functions that cannot be probed (debugfs, kprobes/blacklist)"
    if answer.endswith("not traceable"):
        return f"{name} is not traceable: available_filter_functions does not have it"
    if answer.startswith("as "):
        return f"the kernel has no function {name}, but {answer.removeprefix('as ')}"
    return ""


def locked_down(failure: Failure) -> list[str]:
    """EPERM: lockdown, which keeps those out as well who have every capability."""
    if failure.text("kprobe_func") and locked(failure):
        return ["the kernel is locked down (confidentiality): it has no kprobes then"]
    return []


def kprobe(failure: Failure) -> list[str]:
    """ENOENT, EINVAL and EILSEQ of the kprobe PMU."""
    name = failure.text("kprobe_func")
    if not name:
        return []
    offset = failure.number("probe_offset")
    if failure.errno == errno.EILSEQ:
        return [f"{name}+{offset:#x} is inside of an instruction"]
    said = because(failure, name)
    if said:
        return [said]
    if failure.errno == errno.EINVAL and offset and failure.number("config") & 1:
        return [f"a kretprobe is at a function's beginning, and this one at {name}+{offset:#x}"]
    return []
