"""What stands in the way at a hook of a cgroup, a device or a network namespace.

What is attached there is asked in the exit stop (record/machine/hook_state.py). Where an errno has
one reason only, that is said without.
"""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.fds import spoken_of
from bpftrace_sys.story.explain.queries import DEVICE_HOOKS, of_cgroups
from bpftrace_sys.story.explain.wording import and_words, decimal
from decoders.records import NamedTuple
from decoders.uapi import const

MULTI, OVERRIDE, REPLACE = (
    const.BPF_F_ALLOW_MULTI,
    const.BPF_F_ALLOW_OVERRIDE,
    const.BPF_F_REPLACE,
)
KINDS: Final = {
    0: "alone, without BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI",
    OVERRIDE: "with BPF_F_ALLOW_OVERRIDE",
    MULTI: "with BPF_F_ALLOW_MULTI",
}
MAX_PROGS: Final = 64
"""BPF_CGROUP_MAX_PROGS, netns_bpf_max_progs()"""
MPROG_MAX: Final = 63
"""bpf_mprog_max(): BPF_MPROG_MAX, less the one that marks the end."""
SHOWN: Final = 3


class Level(NamedTuple):
    """A cgroup, itself (0) or above, with programs."""

    above: int
    flags: int
    progs: list[int]
    path: str


def where_of(failure: Failure) -> tuple[str, ...]:
    """Where in attr the call says what it attaches to."""
    return ("link_create",) if failure.command == "BPF_LINK_CREATE" else ()


def _hook(failure: Failure) -> str:
    return failure.name(*where_of(failure), "attach_type")


def _prog_label(failure: Failure, prog_id: int) -> str:
    known = failure.model.prog_by_id(prog_id)
    return f"prog id={prog_id}" if known is None else known.label


def _own_prog(failure: Failure) -> str:
    path = ("link_create", "prog_fd") if where_of(failure) else ("attach_bpf_fd",)
    prog = failure.model.by_fd(failure.call, "attr", *path)
    return "the program" if prog is None else prog.label


def _ids(text: str) -> list[int]:
    return [number for number in map(decimal, text.split(",")) if number is not None]


def _labels(failure: Failure, ids: list[int]) -> str:
    shown = [_prog_label(failure, prog_id) for prog_id in ids[:SHOWN]]
    more = [f"{len(ids) - SHOWN} more"] if len(ids) > SHOWN else []
    return and_words(shown + more)


# ---------------------------------------------------------------- cgroups


def _levels(failure: Failure) -> list[Level]:
    found = []
    for line in (failure.now("hook") or "").splitlines():
        words = line.split(" ", 3)
        numbers = [decimal(word) for word in words[:2]]
        if len(words) == 4 and None not in numbers:
            found.append(Level(numbers[0] or 0, numbers[1] or 0, _ids(words[2]), words[3]))
    return found


def cgroup_taken(failure: Failure) -> list[str]:
    """EPERM: hierarchy_allows_attach(), and programs there that were attached in another way."""
    if not of_cgroups(_hook(failure)):
        return []
    asked = failure.number("attach_flags") & (MULTI | OVERRIDE) if not where_of(failure) else MULTI
    for level in _levels(failure):
        if level.above and level.flags & MULTI:
            return []
        said = f"{level.path} has {_labels(failure, level.progs)}, attached"
        kind, wanted = KINDS.get(level.flags & (MULTI | OVERRIDE)), KINDS.get(asked)
        if level.above == 0 and level.flags & (MULTI | OVERRIDE) != asked and kind and wanted:
            return [f"{said} {kind}; this is to be attached {wanted}"]
        if level.above and not level.flags & OVERRIDE:
            return [f"{said} {KINDS[0]}: so nothing can be attached below"]
        if level.above:
            return []
    return []


def cgroup_missing(failure: Failure) -> list[str]:
    """ENOENT: a cgroup that was removed, a program that is not attached there."""
    where = ("query",) if failure.command == "BPF_PROG_QUERY" else where_of(failure)
    fact = failure.call.fact("attr", *where, "target_fd")
    if fact is None or not of_cgroups(failure.name(*where, "attach_type")):
        return []
    path = spoken_of(fact)
    if path.endswith(" (deleted)"):
        return [f"target_fd {fact.fd} is {path.removesuffix(' (deleted)')}, which was removed"]
    if failure.command == "BPF_PROG_DETACH":
        return [f"{_own_prog(failure)} is not attached to {path} for {_hook(failure)}"]
    if failure.number("attach_flags") & REPLACE and not where:
        old = failure.model.by_fd(failure.call, "attr", "replace_bpf_fd")
        return [f"{old.label} is not attached to {path}, so as to be replaced"] if old else []
    return []


def full(failure: Failure) -> list[str]:
    """E2BIG of attaching: as many programs as a cgroup or a network namespace takes."""
    hook = _hook(failure)
    if of_cgroups(hook):
        return [f"the cgroup has {MAX_PROGS} programs for {hook}: it takes no more"]
    if hook == "BPF_FLOW_DISSECTOR":
        return ["the network namespace has a link of a flow_dissector already, and takes one"]
    if hook == "BPF_SK_LOOKUP":
        return [f"the network namespace has {MAX_PROGS} links for {hook}: it takes no more"]
    return []


def namespace_taken(failure: Failure) -> list[str]:
    """EEXIST of a flow_dissector: a link and a program without one exclude each other."""
    if _hook(failure) != "BPF_FLOW_DISSECTOR":
        return []
    other = "a program without a link" if where_of(failure) else "a link"
    return [f"the network namespace has {other} there: one excludes the other"]


# ---------------------------------------------------------------- programs in an order


def _device(failure: Failure, *where: str) -> str:
    index = failure.number(*where, "target_ifindex")
    name = failure.call.raw.extra.devices.get(index)
    return f"device {name or index}"


def mprog(failure: Failure) -> list[str]:
    """tcx and netkit (kernel/bpf/mprog.c): each errno has its own reason, by the flags."""
    hook = _hook(failure)
    if hook not in DEVICE_HOOKS:
        return []
    where = where_of(failure)
    flags = failure.number(*where, "flags") if where else failure.number("attach_flags")
    sides = [
        name
        for bit, name in (
            (const.BPF_F_BEFORE, "BPF_F_BEFORE"),
            (const.BPF_F_AFTER, "BPF_F_AFTER"),
            (REPLACE, "BPF_F_REPLACE"),
        )
        if flags & bit
    ]
    place = f"{_device(failure, *where)} for {hook}"
    if failure.errno == errno.ESTALE:
        return _stale(failure, place)
    if failure.errno == errno.EEXIST:
        return [f"{_own_prog(failure)} is attached to {place} already"]
    if failure.errno == errno.EBUSY:
        old = "the program to be replaced" if REPLACE & flags else _own_prog(failure)
        return [f"a link holds {old} on {place}: LINK_UPDATE or LINK_DETACH is for that"]
    if failure.errno == errno.ERANGE and not sides[1:]:
        return [f"{place} has {MPROG_MAX} programs: it takes no more"]
    if failure.errno == errno.ERANGE:
        return [f"no one place on {place} is what {and_words(sides)} ask for"]
    return _not_there(failure, sides, place)


def netkit(failure: Failure) -> list[str]:
    """ENXIO and EACCES of netkit's hooks (netkit_dev_fetch()): what the device is."""
    where = ("query",) if failure.command == "BPF_PROG_QUERY" else where_of(failure)
    if not failure.name(*where, "attach_type").startswith("BPF_NETKIT_"):
        return []
    device = _device(failure, *where)
    if failure.errno == errno.ENXIO:
        return [f"{device} is no netkit device"]
    if failure.now("filtered") == "yes":
        return []
    return [f"{device} is the peer of a netkit pair: all is attached through the primary device"]


def _stale(failure: Failure, place: str) -> list[str]:
    tcx = ("tcx",) if failure.call.attr("attr", "link_create", "tcx") is not None else ("netkit",)
    where = ("link_create", *tcx) if where_of(failure) else ()
    asked = failure.number(*where, "expected_revision")
    now = decimal((failure.now("hook") or "").partition(" ")[0])
    if now is None or now == asked:
        return []
    return [f"expected_revision is {asked}, and {place} is at {now}"]


def _not_there(failure: Failure, sides: list[str], place: str) -> list[str]:
    """ENOENT: of programs, and of those that one is to be put beside."""
    if failure.command == "BPF_PROG_DETACH" and not sides:
        return [f"{_own_prog(failure)} is not attached to {place}"]
    if sides == ["BPF_F_REPLACE"]:
        old = failure.model.by_fd(failure.call, "attr", "replace_bpf_fd")
        return [f"{old.label} is not attached to {place}, so as to be replaced"] if old else []
    if len(sides) != 1 or failure.command == "BPF_PROG_DETACH":
        return []
    found = _relative(failure)
    return [f"{found}, of {sides[0]}, is not attached to {place}"] if found else []


def _relative(failure: Failure) -> str | None:
    base = ("link_create",) if where_of(failure) else ()
    for middle in ((*base, "tcx"), (*base, "netkit"), base):
        for name in ("relative_fd", "relative_id"):
            if failure.call.attr("attr", *middle, name) is None:
                continue
            known = failure.model.by_fd(failure.call, "attr", *middle, name)
            number = failure.number(*middle, name)
            return known.label if known is not None else f"{name} {number}"
    return None
