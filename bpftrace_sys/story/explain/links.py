"""Refusals of LINK_UPDATE and LINK_DETACH: the program before, links that cannot."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.fds import spoken_of
from bpftrace_sys.story.explain.wording import article, word_set
from bpftrace_sys.story.objects import Prog
from decoders.raw import FdFact
from decoders.uapi import const

UPDATES: Final = word_set("cgroup netns xdp tcx netkit iter sockmap struct_ops")
"""Links that have update_prog() or update_map(); by the name that fdinfo has for their type."""
DETACHES: Final = word_set("cgroup netns xdp tcx netkit netfilter sockmap struct_ops")
"""Links that have detach()."""


def _link(failure: Failure, command: str) -> tuple[FdFact | None, str]:
    """The link that the call is about, and its type."""
    fact = failure.call.fact("attr", command, "link_fd")
    if fact is None or fact.kind != "link":
        return None, ""
    return fact, str(fact.info.get("link_type", ""))


def _label(failure: Failure, fact: FdFact) -> str:
    known = failure.model.object(fact, failure.call.raw.pid)
    return spoken_of(fact) if known is None else known.label


def update(failure: Failure) -> list[str]:
    """EPERM, EINVAL, ENOLINK, EOPNOTSUPP of LINK_UPDATE."""
    fact, kind = _link(failure, "link_update")
    if fact is None:
        return []
    said = _label(failure, fact)
    if failure.errno == errno.ENOLINK:
        return [f"the target of {said} is gone"]
    has = fact.info.get("prog_id")
    old = failure.call.fact("attr", "link_update", "old_prog_fd")
    if failure.errno == errno.EPERM:
        if old is None or not isinstance(has, int) or old.id == has:
            return []
        known = failure.model.prog_by_id(has)
        label = f"prog id={has}" if known is None else known.label
        return [f"old_prog_fd is {_label(failure, old)}, and {said} has {label}"]
    if kind and kind not in UPDATES:
        return [f"links of type {kind} have no BPF_LINK_UPDATE"]
    if failure.errno != errno.EINVAL:
        return []
    if old is not None and not failure.number("link_update", "flags") & const.BPF_F_REPLACE:
        return ["old_prog_fd is given without BPF_F_REPLACE in flags"]
    return _other_type(failure, said, has)


def _other_type(failure: Failure, said: str, has: object) -> list[str]:
    new = failure.model.by_fd(failure.call, "attr", "link_update", "new_prog_fd")
    before = failure.model.prog_by_id(has) if isinstance(has, int) else None
    if not isinstance(new, Prog) or not isinstance(before, Prog):
        return []
    if not new.type or not before.type or new.type == before.type:
        return []
    kinds = article(before.type), article(new.type)
    return [f"{said} has {kinds[0]} program, and {new.label} is {kinds[1]} one"]


def detach(failure: Failure) -> list[str]:
    """EOPNOTSUPP of LINK_DETACH: a link that ends with its last fd only."""
    fact, kind = _link(failure, "link_detach")
    if fact is None or not kind or kind in DETACHES:
        return []
    return [f"links of type {kind} have no BPF_LINK_DETACH: they end with their last fd or pin"]
