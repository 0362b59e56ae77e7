"""EBADF, EINVAL, EMFILE: fds that are not open or something else; ids that nobody has."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.wording import signed
from decoders.call import inner_value
from decoders.raw import FdFact
from decoders.values import Fd, Insns, below

FD_KINDS: Final[dict[str, str]] = {
    "map_fd": "map",
    "prog_fd": "prog",
    "link_fd": "link",
    "btf_fd": "btf",
    "prog_btf_fd": "btf",
    "inner_map_fd": "map",
    "attach_bpf_fd": "prog",
    "replace_bpf_fd": "prog",
    "old_prog_fd": "prog",
    "prog_token_fd": "token",
    "map_token_fd": "token",
    "btf_token_fd": "token",
}
"""What the fd in a field has to be, where there is only one answer."""
SPOKEN: Final = {"prog": "a program", "map": "a map", "link": "a link", "btf": "BTF",
                 "token": "a BPF token"}  # fmt: skip


def wrong_fd(failure: Failure) -> list[str]:
    """An fd that is not open, or is something else."""
    call = failure.call
    found: list[str] = []
    for name, value in below(call.args, items=256):
        if not isinstance(value, Fd):
            continue
        number = value.value
        wanted = FD_KINDS.get(name)
        if value.fact is None:
            if failure.model.without_proc:
                continue  # not seen is not closed
            if failure.errno in (errno.EBADF, errno.EBADFD) and _looked_up(name, number):
                found.append(f"{name} {signed(number)} is not open")
        elif wanted is not None and value.fact.kind != wanted:
            if failure.command == "BPF_LINK_CREATE" and value.fact.kind == "map":
                continue  # struct_ops
            found.append(f"{name} {number} is {spoken_of(value.fact)}, not {SPOKEN[wanted]}")
        elif name == "bpf_fd" and value.fact.kind not in SPOKEN:
            found.append(f"{name} {number} is {spoken_of(value.fact)}, no object of BPF's")
    if failure.command == "BPF_PROG_LOAD":
        found += _map_fds(failure)
    return found[:3]


def _looked_up(name: str, number: int) -> bool:
    # Optional fds are 0 where there is none, and -1 is often meant to be nothing.
    return number != 0 or name in ("map_fd", "prog_fd", "link_fd", "bpf_fd", "fd")


def spoken_of(fact: FdFact) -> str:
    """What an fd is, in words."""
    if fact.kind == "file":
        return str(fact.info.get("path", "a file"))
    return SPOKEN.get(fact.kind, "a perf event" if fact.kind == "perf_event" else fact.kind)


def _map_fds(failure: Failure) -> list[str]:
    """ld_imm64 with an fd that is no map's: EINVAL, or EBADF where it is not open."""
    insns = inner_value(failure.call.attr("attr", "insns"))
    if not isinstance(insns, Insns) or failure.model.without_proc:
        return []
    found: list[str] = []
    data = insns.data
    at = 0
    while at + 16 <= len(data) and len(found) < 3:
        if data[at] != 0x18:
            at += 8
            continue
        if data[at + 1] >> 4 in (1, 2):
            fd = int.from_bytes(data[at + 4 : at + 8], "little", signed=True)
            fact = failure.call.fd(fd)
            if fact is None and failure.errno == errno.EBADF:
                found.append(f"instruction {at // 8} names map fd {fd}, which is not open")
            elif fact is not None and fact.kind != "map" and failure.errno == errno.EINVAL:
                what = spoken_of(fact)
                found.append(f"instruction {at // 8} names fd {fd} as a map; it is {what}")
        at += 16
    return found


def no_more_ids(failure: Failure) -> list[str]:
    """The end of an iteration over ids; an id that nobody has."""
    command = failure.command
    if command.endswith("_GET_NEXT_ID"):
        if not failure.number("start_id"):
            return ["there is none"]  # the first id was asked for, and nothing came before
        return ["that was the last id"]
    if command.endswith("_GET_FD_BY_ID"):
        kind = command.removeprefix("BPF_").removesuffix("_GET_FD_BY_ID").lower()
        number = failure.number(f"{kind}_id") or failure.number("start_id")
        spoken = {"prog": "program", "btf": "BTF"}.get(kind, kind)
        return [f"no {spoken} has id {number} any more, or yet"] if number else []
    return []


def no_fds(failure: Failure) -> list[str]:
    """EMFILE."""
    return ["the process has as many fds open as RLIMIT_NOFILE lets it"]
