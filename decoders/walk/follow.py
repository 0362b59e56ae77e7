"""The only pointer walker.

:func:`follow` walks a declaration over the bytes of a struct and a Memory.
Capture runs it over live memory, only for the reads that it makes; decode runs
the same function over the recorded chunks.  So neither can follow a pointer
that the other does not.
"""

from __future__ import annotations

import struct

from decoders.raw import ENTRY
from decoders.records import NamedTuple
from decoders.walk.layouts import READ_LIMIT, CStr, Layout, Log, Many, One

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from decoders.walk.layouts import Pointer, Slot, Target
    from decoders.walk.memory import Memory
    from decoders.walk.scope import Env

ITEM_LIMIT: Final = 1 << 16
"""The most elements of an array that become values of their own."""


LOG_HEAD: Final = 64
"""Bytes of a log's buffer that are kept as they were before the call."""


class View:
    """The raw fields of one struct: the scope of the expressions in its declaration.

    A name that the struct lacks is looked up in the struct around it.  Fields
    past the end of ``data`` read as zero.
    """

    __slots__ = ("data", "env", "layout", "node", "parent", "raws", "wanted")

    def __init__(
        self, layout: Layout, data: bytes, wanted: int, parent: View | None, env: Env
    ) -> None:
        self.layout: Any = layout
        """Where values are decoded it is the declared one, with all its slots."""
        self.data = data
        self.wanted = wanted
        self.parent = parent
        self.env = env
        self.raws: tuple[Any, ...] = layout.unpack(data)
        self.node: Node | None = None

    def __getitem__(self, name: str) -> Any:
        if name == "_":
            return self.parent
        index = self.layout.index.get(name)
        if index is not None:
            return self.raws[index]
        if self.parent is None:
            raise KeyError(name)
        return self.parent[name]

    def fetched(self, name: str, make: Callable[[bytes], Any], default: Any) -> Any:
        """``make`` of what an earlier pointer field led to, if it led anywhere."""
        found = None if self.node is None else self.node.found.get(self.layout.index[name])
        return default if found is None or found.data is None else make(found.data)


_ARGS: Final = struct.Struct("<6Q")
_MASK: Final = (1 << 64) - 1


def args_view(layout: Layout, args: tuple[int, ...], env: Env) -> View:
    """The argument registers of a call as the struct that its row declares: six u64."""
    if len(args) != 6:
        args = (*args, 0, 0, 0, 0, 0, 0)[:6]
    try:
        data = _ARGS.pack(*args)
    except struct.error:
        data = _ARGS.pack(*(arg & _MASK for arg in args))
    return View(layout, data, _ARGS.size, None, env)


NOTHING: Final = -1
"""What is ``wanted`` where nothing stands: the length of it is 0."""


class Found(NamedTuple):
    """Where a pointer led.

    ``data`` is None where nothing was captured, and shorter than ``wanted``
    where memory ended; ``wanted`` is NOTHING where a length of 0 was given.
    ``inner``: the Node of a single struct, or the Founds or Nodes of an array's
    elements; of a string how many bytes before it were left out.
    """

    addr: int
    data: bytes | None
    wanted: int
    inner: Any = None


class Node:
    """A struct and what its pointers led to, at one stage of the call."""

    __slots__ = ("found", "inner", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        if view.node is None:
            view.node = self
        self.found: dict[int, Found] = {}
        self.inner: dict[int, Node] = {}
        """Of slots that are structs or unions themselves."""


def follow(
    view: View,
    memory: Memory,
    stage: int,
    failed: bool = False,
    entry: Node | None = None,
) -> Node:
    """Walks over ``view``, by its layout.

    At EXIT, ``entry`` is the node of the same struct at entry: addresses are
    taken from it (the tracee or the kernel may have changed them since), and
    lengths are the smaller of both stages.
    """
    node = Node(view)
    for slot in view.layout.followed:
        _follow_slot(slot, node, memory, stage, failed, entry)
    return node


def _follow_slot(
    slot: Slot, node: Node, memory: Memory, stage: int, failed: bool, entry: Node | None
) -> None:
    view = node.view
    if slot.offset >= len(view.data):
        return  # beyond the size that the caller passed
    kind = slot.kind
    if kind == "ptr":
        found = _follow_pointer(slot, view, memory, stage, failed, entry)
        if found is not None:
            node.found[slot.index] = found
    elif kind == "fd":
        slot.visit.fact(view.raws[slot.index], view)
    elif kind == "asked":
        slot.visit.ask(view.raws[slot.index], view)
    else:
        layout = slot.visit.layout(view) if kind == "pick" else slot.visit
        if layout is not None:
            before = None if entry is None else entry.inner.get(slot.index)
            if before is not None and before.view.layout is not layout:
                before = None
            size = slot.size if kind == "pick" else layout.size
            data = view.data[slot.offset : slot.offset + size]
            # What the caller's size cuts off, it cuts off from inner structs too.
            wanted = min(size, max(0, view.wanted - slot.offset))
            inner = View(layout, data, wanted, view, view.env)
            node.inner[slot.index] = follow(inner, memory, stage, failed, before)


def _follow_pointer(
    slot: Slot, view: View, memory: Memory, stage: int, failed: bool, entry: Node | None
) -> Found | None:
    field: Pointer = slot.visit
    addr = (view if entry is None else entry.view).raws[slot.index]
    if not addr:
        return None
    before = None if entry is None else entry.found.get(slot.index)
    if stage == ENTRY:
        if field.reads or (field.reads_if is not None and field.reads_if(view)):
            return follow_target(field.target, addr, view, view, memory, stage, failed, None)
        if isinstance(field.target, Log) and field.target.most(view):
            # Whether a log is the kernel's word shows in what stood there before.
            size = min(LOG_HEAD, field.target.most(view))
            return Found(addr, memory.read(addr, size), size)
        return None
    scope = view if entry is None else entry.view
    if field.writes:
        if failed and not field.kept(view.env.ret):
            return None
        return follow_target(field.target, addr, scope, view, memory, stage, failed, before)
    # A struct that the kernel reads may hold what it writes (bpf_attr).
    if isinstance(field.target, One) and before is not None and before.inner is not None:
        inner: Node = before.inner
        if inner.view.layout.written and (
            not field.target.rewritten or -(view.env.ret or 0) in field.target.rewritten
        ):
            return follow_target(field.target, addr, scope, view, memory, stage, failed, before)
        if inner.view.layout.exits:
            again = follow(inner.view, memory, stage, failed, inner)
            return before._replace(inner=again)
    return None


def follow_target(
    target: Target,
    addr: int,
    scope: View,
    later: View,
    memory: Memory,
    stage: int,
    failed: bool,
    before: Found | None,
) -> Found:
    """Reads what stands at ``addr``; ``scope`` and ``later`` measure it at entry and now."""
    if isinstance(target, CStr):
        limit = target.most(scope)
        if not limit:
            return Found(addr, b"", NOTHING)
        start = addr
        if isinstance(target, Log):
            start += target.skipped(later)
            if start == addr:
                start = memory.late(addr, target.room(scope), limit)
        answer = memory.cstr(start, limit)
        if answer is None:
            return Found(addr, None, 1)
        data, ended = answer
        return Found(addr, data, len(data) if ended else len(data) + 1, start - addr)
    if isinstance(target, One) and target.peek is not None:
        wanted = min(target.peek(memory.read(addr, 8) or b""), target.limit)
    else:
        size_ = target.size(scope)
        if size_ is None:
            return Found(addr, None, 0)
        wanted = size_
        if later is not scope:
            final = target.size(later) or 0
            wanted = final if target.open_end and not wanted else min(wanted, final)
    if wanted <= 0:
        return Found(addr, b"", NOTHING)
    read = memory.read(addr, min(wanted, READ_LIMIT))
    if read is None:
        return Found(addr, None, wanted)
    for fd in target.fds(read, scope):
        scope.env.fd(fd)
    inner: Any = None
    if isinstance(target, One):
        inner = _follow_one(target, read, wanted, scope, later, memory, stage, failed, before)
    elif isinstance(target, Many):
        inner = _follow_many(target, read, later, memory, stage, failed)
    return Found(addr, read, wanted, inner)


def _follow_one(
    target: One,
    data: bytes,
    wanted: int,
    scope: View,
    later: View,
    memory: Memory,
    stage: int,
    failed: bool,
    before: Found | None,
) -> Node | None:
    layout = target.layout(later)
    if layout is None:
        return None
    view = View(layout, data, wanted, scope, scope.env)
    entry = None if before is None else before.inner
    if entry is not None and entry.view.layout is not layout:
        entry = None
    return follow(view, memory, stage, failed, entry)


def _follow_many(
    target: Many, data: bytes, scope: View, memory: Memory, stage: int, failed: bool
) -> tuple[Any, ...] | None:
    step = target.step(scope)
    if not step or not target.layout.followed:
        return None
    views = views_of(target, data, step, scope)
    pointed = target.pointed
    if pointed is not None:
        return tuple(
            follow_target(pointed, view.raws[0], view, view, memory, stage, failed, None)
            if view.raws[0]
            else Found(0, None, 0)
            for view in views
        )
    if target.scalar:
        return None
    return tuple(follow(view, memory, stage, failed) for view in views)


def views_of(target: Many, data: bytes, step: int, scope: View) -> list[View]:
    """A view of each whole element that was read."""
    size = min(target.layout.size, step)
    last = min(len(data) // step, ITEM_LIMIT)
    return [
        View(target.layout, data[at : at + size], size, scope, scope.env)
        for at in range(0, last * step, step)
    ]
