"""Saved traces as a kernel of the future would have made them: what this one refuses succeeds.

For what no kernel at hand can do: trace a tracee that tries, and say what the call would have come
to. All that comes after the capture can then be tested (what is shown, attached, compared), with
bytes of a real caller. docs/extending.md has an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bpftrace_sys.story.explain.last_fields import layout_of
from bpftrace_sys.trace.items import Item
from decoders.raw import ENTRY, EXIT, NOTHING, Chunk, FdFact, RawCall
from decoders.uapi import names
from decoders.uapi.layouts import LAYOUTS, Member
from tests.support.rewriting import BPF, rewritten


class Success(NamedTuple):
    """What a kernel made of a bpf call that another one refused."""

    command: str
    """``BPF_LINK_CREATE``."""
    ret: int = 0
    made: tuple[str, Mapping[str, int | str]] | None = None
    """What the fd is that the call returned: its kind, and what its fdinfo says. Later calls of
    the process that name the number are about it, whatever the tracee had put there."""
    wrote: Mapping[str, int | bytes] = {}
    """What the kernel wrote, by the field's path in bpf_attr (``info.info_len``): a number in the
    attr, or bytes behind a pointer."""
    nth: int = 0
    """Which of the command's calls that were refused."""


def in_future(source: Path, path: Path, *successes: Success) -> Path:
    """Saves the trace with these calls done; LookupError where there is no such call."""
    return rewritten(source, path, lambda found: changed(found, successes))


def changed(found: Iterable[Item], successes: Iterable[Success]) -> Iterator[Item]:
    """The items with these calls done."""
    left = list(successes)
    refused: dict[str, int] = {}
    fds: dict[tuple[int, int], FdFact] = {}
    for item in found:
        if not isinstance(item, RawCall):
            yield item
            continue
        call = item.replace(fds=[_known(fact, item, fds) for fact in item.fds])
        name = names.bpf_cmd.get(call.args[0]) if call.nr == BPF else None
        if name is not None and call.failed:
            at = refused[name] = refused.get(name, -1) + 1
            for success in [one for one in left if (one.command, one.nth) == (name, at)]:
                left.remove(success)
                call = done(call, success)
                if success.made is not None:
                    fds[call.pid, success.ret] = call.fds[-1]
        yield call
    if left:
        raise LookupError(f"no refused call for {left}")


def _known(fact: FdFact, call: RawCall, fds: Mapping[tuple[int, int], FdFact]) -> FdFact:
    found = fds.get((call.pid, fact.fd))
    return fact if found is None else found._replace(stage=fact.stage)


def done(call: RawCall, success: Success) -> RawCall:
    """A refused call as one that succeeded."""
    addr = call.args[1]
    chunks = [one for one in call.chunks if one.stage == ENTRY]
    attr = bytearray(next(one.data for one in chunks if one.addr == addr))
    for path, value in success.wrote.items():
        member = _member(success.command, path)
        place = slice(member.offset, member.offset + member.size)
        if isinstance(value, bytes):
            target = int.from_bytes(attr[place], "little")
            chunks.append(Chunk(EXIT, target, value, len(value)))
        else:
            attr[place] = value.to_bytes(member.size, "little")
    chunks.append(Chunk(EXIT, addr, bytes(attr), len(attr)))
    fds = [fact for fact in call.fds if fact.stage == ENTRY]
    if success.made is not None:
        kind, info = success.made
        fds.append(FdFact(success.ret, EXIT, kind, dict(info)))
    extra = NOTHING._replace(devices=call.extra.devices)
    return call.replace(ret=success.ret, failed=False, chunks=chunks, fds=fds, extra=extra)


def _member(command: str, path: str) -> Member:
    """A field of the command's part of bpf_attr."""
    part = layout_of(command)
    own = {one.path for one in LAYOUTS[f"bpf_attr.{part}"]}
    if path.removeprefix(f"{part}.") not in own:
        raise LookupError(f"{command} has no {path}")
    return next(one for one in LAYOUTS["bpf_attr"] if one.path == path)


