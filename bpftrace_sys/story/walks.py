"""Walks: loaders look through all objects, fds or entries; what is said of such a run in a line.

A walk is a run of calls of one thread that only look: over ids and what they lead to, over
fds that hold no program, over the entries of one map.  The first FEW of its calls are held;
if more follow, the run is told in a line, else each call as any other.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object
from decoders.call import inner_value
from decoders.records import dataclass, field
from decoders.values import Insns

FEW: Final = 8
"""Calls that stand for themselves."""
KINDS: Final = {"PROG": "program", "MAP": "map", "BTF": "BTF", "LINK": "link"}
NEXT_ID: Final = {f"BPF_{word}_GET_NEXT_ID": kind for word, kind in KINDS.items()}
BY_ID: Final = {f"BPF_{word}_GET_FD_BY_ID": kind for word, kind in KINDS.items()}
FIELDS: Final = {command: f"{kind.lower()[:4]}_id" for command, kind in BY_ID.items()}
"""Where the id stands: prog_id, ..."""
INFO: Final = "BPF_OBJ_GET_INFO_BY_FD"
QUERY: Final = "BPF_TASK_FD_QUERY"
READ: Final = "BPF_MAP_LOOKUP_ELEM"
STEP: Final = "BPF_MAP_GET_NEXT_KEY"
ENOTSUPP: Final = 524
"""What TASK_FD_QUERY says of an fd that can hold no program (kernel/bpf/syscall.c)."""
NO_PROGRAM: Final = frozenset({errno.ENOENT, errno.EBADF, ENOTSUPP, errno.EOPNOTSUPP})

Key = tuple[str, int, Object | None]
"""ids, queries or entries; the thread; the map whose entries are read."""


@dataclass(slots=True)
class Run:
    """Calls of one walk."""

    key: Key
    calls: list[NotedCall | str] = field(default_factory=list)
    """Only the first of them, as long as they may yet be told one by one; of loops their text."""
    done: Counter[str] = field(default_factory=Counter)
    """How often each command was done."""
    missing: int = 0
    """Keys that were asked for and not there."""
    reasons: dict[str, None] = field(default_factory=dict)
    """Why some were refused with EPERM."""
    ids: set[tuple[str, int | None]] = field(default_factory=set)
    """Kinds and ids of what was opened: some walks open things twice."""

    @property
    def count(self) -> int:
        """Calls."""
        return self.done.total()

    def add(self, command: str, failed: bool, count: int = 1) -> None:
        """Counts some, that were not forbidden."""
        if failed and command != QUERY:
            self.done["failed"] += count
            self.missing += count * (command == READ)
        else:
            self.done[command] += count


def key_of(call: NotedCall, model: Model, before: Key | None) -> Key | None:
    """Which walk a call may be a part of; ``before``: the one that the call before it was of."""
    command, tid, ret = call.command, call.raw.tid, call.raw.ret
    if ret is None or call.notes.probe is not None or call.notes.mismatch:
        return None
    if command in (READ, STEP):
        found = model.by_fd(call, "attr", "map_fd")
        plainly = ret >= 0 or ret == -errno.ENOENT
        return ("entries", tid, found) if plainly and found is not None else None
    if command == QUERY:
        return ("queries", tid, None) if -ret in (*NO_PROGRAM, errno.EPERM) else None
    ids: Key = ("ids", tid, None)
    if command in NEXT_ID or command in BY_ID:
        return ids if ret >= 0 or ret == -errno.ENOENT else None
    if command == INFO and ret >= 0 and before == ids:
        # What it gives back of instructions has a listing.
        dumped = inner_value(call.attr("attr", "info", "info", "xlated_prog_insns"))
        return None if isinstance(dumped, Insns) and dumped.data else ids
    return None


class Walks:
    """The walk that goes on, if one does."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._run: Run | None = None

    def __bool__(self) -> bool:
        return self._run is not None

    def key(self, call: NotedCall) -> Key | None:
        """Which walk a call may be a part of."""
        return key_of(call, self._model, None if self._run is None else self._run.key)

    def goes_on(self, key: Key) -> bool:
        """Whether a call of this key would be one more of a run that is told in a line."""
        run = self._run
        return run is not None and run.key == key and not run.calls

    def more(self, command: str, failed: bool, count: int) -> None:
        """More of a run that goes on, of the commands on a map's entries."""
        assert self._run is not None
        self._run.add(command, failed, count)

    def hold_text(self, key: Key, command: str, failed: bool, text: str) -> None:
        """As :meth:`hold`, of a call on a map's entries that has its text already."""
        if self._run is None:
            self._run = Run(key)
        run = self._run
        if run.count < FEW:
            run.calls.append(text)
        else:
            run.calls.clear()
        run.add(command, failed)

    def hold(self, call: NotedCall, key: Key) -> None:
        """Takes a call; what was held of another walk has been taken before."""
        if self._run is None:
            self._run = Run(key)
        run = self._run
        first = run.count < FEW
        command = call.command
        if call.raw.ret == -errno.EPERM:
            run.done["refused"] += 1
            if len(run.reasons) < FEW:
                run.reasons.update(dict.fromkeys(call.notes.explanation[:1]))
        else:
            run.add(command, call.raw.failed)
            if command in BY_ID and not call.raw.failed:
                run.ids.add((BY_ID[command], call.number("attr", FIELDS[command])))
        if first:
            run.calls.append(call)
        else:
            run.calls.clear()

    def other(self, key: Key | None) -> bool:
        """Whether what is held has to be told before a call of this key."""
        return self._run is not None and self._run.key != key

    def take(self) -> tuple[list[NotedCall | str], tuple[int, str, list[str]] | None]:
        """What was held: calls to tell one by one, or (tid, line, reasons)."""
        run, self._run = self._run, None
        if run is None or run.calls:
            return (run.calls if run is not None else []), None
        line = ", ".join(_said(run)) + f" ({run.count:,} calls, -v shows them)"
        return [], (run.key[1], line, list(run.reasons))


def counted(count: int, what: str) -> str:
    """``1 map``, ``2,283 maps``."""
    if count != 1:
        what = what[:-1] + "ies" if what.endswith("ry") else what + "s"
    return f"{count:,} {what}"


def _said(run: Run) -> Iterator[str]:
    what, _, found = run.key
    if what == "queries":
        if run.done[QUERY]:
            yield f"{counted(run.done[QUERY], 'fd')} queried, none has BPF"
        if run.done["refused"]:
            yield f"{counted(run.done['refused'], 'query')} refused with EPERM"
    elif found is not None:
        name = found.name or found.label
        reads, keys = run.done[READ], run.done[STEP]
        if not reads:
            yield f"went over {counted(keys, 'key')} of {name}"
        elif reads <= keys:
            yield f"read {counted(reads, 'entry')} of {name}"
        else:
            # Nothing says that each was of another key.
            yield f"{counted(reads, 'lookup')} in {name}"
        if run.missing:
            yield f"{counted(run.missing, 'key')} not there"
    else:
        kinds = Counter(kind for kind, _ in run.ids)
        opened = [counted(kinds[kind], kind) for kind in KINDS.values() if kinds[kind]]
        ids = [
            counted(run.done[command], f"{kind} id")
            for command, kind in NEXT_ID.items()
            if run.done[command]
        ]
        if opened:
            yield f"looked through {', '.join(opened)}"
        elif ids:
            yield f"went over {', '.join(ids)}"
        else:
            yield "looked for objects by id, none is there"
