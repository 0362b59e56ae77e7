"""What a walk over memory needs of a declaration: where pointers stand and how far they lead.

The classes of decoders/declare extend these by how values read; table.py and bpf_table.py hold
every declaration of a traced call reduced to these, so that the first stop needs neither construct
nor the tables of names.
"""

from __future__ import annotations

import struct

from decoders.walk.measures import MOST_FDS, map_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Final, TypeAlias

    from decoders.raw import FdFact
    from decoders.walk.scope import Scope

    Expr: TypeAlias = int | Callable[[Any], Any]

READ_LIMIT: Final = 16 << 20
"""The most that one pointer can make us copy, in bytes."""


def number(expr: Expr, scope: Scope) -> int:
    """The value of an expression."""
    return expr if isinstance(expr, int) else int(expr(scope))


# ---------------------------------------------------------------- layouts


class Slot:
    """A field that a walk visits: its kind (ptr, fd, asked, pick, struct) and place."""

    __slots__ = ("index", "kind", "offset", "size", "visit")

    def __init__(self, kind: str, index: int, offset: int, size: int, visit: Any) -> None:
        self.kind = kind
        self.index = index
        """Among the raw fields of its struct."""
        self.offset = offset
        self.size = size
        self.visit = visit
        """A Pointer, FdIn, Asked or Union of this module; of a struct its Layout."""


class Layout:
    """A struct: how to unpack it, and which of its fields a walk visits.

    ``names`` in order, as a text or one by one; :meth:`unpack` takes a struct that its caller
    cut short, with zeros for what is missing, as the kernel does. ``written``: the kernel
    writes into the struct itself; ``exits``: into it or behind one of its pointers, so that
    there is something to copy at exit.
    """

    __slots__ = ("exits", "followed", "full", "index", "names", "size", "written")

    def __init__(
        self,
        fmt: str,
        names: str | Sequence[str],
        followed: Sequence[Slot] = (),
        written: bool = False,
        exits: bool = False,
    ) -> None:
        self.full = struct.Struct(fmt)
        self.size = self.full.size
        self.names = tuple(names.split() if isinstance(names, str) else names)
        self.index = {name: index for index, name in enumerate(self.names)}
        self.followed: tuple[Slot, ...] = tuple(followed)
        self.written = written
        self.exits = exits

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        """The raw fields; missing bytes are zero."""
        if len(data) >= self.size:
            return self.full.unpack_from(data)
        return self.full.unpack(data + bytes(self.size - len(data)))


# ---------------------------------------------------------------- fields


class FdIn:
    """A file descriptor.

    ``optional``: 0 means that there is none (most fds of bpf_attr), so nothing
    is looked up for it; else 0 is an fd like any other.
    """

    optional: bool

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def fact(self, raw: int, scope: Scope) -> FdFact | None:
        """What the fd is, or None where it is none or nobody knows."""
        if raw < 0 or raw >= 1 << 31 or (raw == 0 and self.optional):
            return None
        return scope.env.fd(raw)


class Asked:
    """A number whose name the machine is asked for in the stop.

    ``when``: whether it has one, where other fields decide that.
    """

    kind: str
    when: Callable[[Any], bool] | None

    def __init__(self, kind: str, when: Callable[[Any], bool] | None = None) -> None:
        self.kind = kind
        self.when = when

    def ask(self, raw: int, scope: Scope) -> str | None:
        """The name; None where it has none."""
        asked = raw and (self.when is None or self.when(scope))
        return scope.env.fact(self.kind, raw) if asked else None


class Union:
    """What stands here, other fields decide: the layout that ``key`` selects, or none."""

    def __init__(
        self, key: Callable[[Any], Any], rows: Mapping[Any, Layout | None],
        default: Layout | None = None,
    ) -> None:  # fmt: skip
        self.key = key
        self.rows = rows
        self.default = default

    def layout(self, scope: Scope) -> Layout | None:
        """The layout of what stands here."""
        return self.rows.get(self.key(scope), self.default)


class Pointer:
    """A user-space address.  ``way``: the kernel reads ("in"), writes ("out"), or both.

    ``always``: it has written there also when the call failed, or failed with one of
    these errors. ``reads_if``: whether, with these other fields, it reads there before.
    """

    target: Target
    always: bool | frozenset[int]
    reads_if: Callable[[Any], bool] | None

    def __init__(
        self,
        target: Target,
        way: str,
        always: bool | frozenset[int] = False,
        reads_if: Callable[[Any], bool] | None = None,
    ) -> None:
        self.target = target
        self.reads = "in" in way
        self.writes = "out" in way
        self.always = always
        self.reads_if = reads_if

    def kept(self, ret: int | None) -> bool:
        """Whether a failed call wrote there all the same."""
        if isinstance(self.always, bool):
            return self.always
        return ret is not None and -ret in self.always


def fd(index: int, offset: int, optional: bool = False) -> Slot:
    """A slot in which an fd is."""
    return Slot("fd", index, offset, 4, FdIn(optional))


def asked(
    index: int, offset: int, size: int, kind: str, when: Callable[[Any], bool] | None = None
) -> Slot:
    """A slot whose name the machine is asked for."""
    return Slot("asked", index, offset, size, Asked(kind, when))


def ptr(
    index: int,
    offset: int,
    target: Target,
    way: str,
    always: bool | frozenset[int] = False,
    reads_if: Callable[[Any], bool] | None = None,
) -> Slot:
    """A slot in which a pointer is."""
    return Slot("ptr", index, offset, 8, Pointer(target, way, always, reads_if))


def pick(
    index: int, offset: int, size: int, key: Callable[[Any], Any],
    rows: Mapping[Any, Layout | None], default: Layout | None = None,
) -> Slot:  # fmt: skip
    """A slot in which a union is."""
    return Slot("pick", index, offset, size, Union(key, rows, default))


def inner(index: int, offset: int, size: int, layout: Layout) -> Slot:
    """A slot in which a struct is."""
    return Slot("struct", index, offset, size, layout)


# ---------------------------------------------------------------- targets


class Target:
    """What a pointer points at."""

    open_end = False

    def size(self, scope: Scope) -> int | None:
        """How many bytes that is; None where only the memory can tell (strings)."""
        raise NotImplementedError

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        """The fds inside, so that their identity is recorded with them."""
        return ()


class CStr(Target):
    """A NUL-terminated string of at most ``limit`` bytes."""

    def __init__(self, limit: Expr = 4096) -> None:
        self.limit = limit

    def size(self, scope: Scope) -> int | None:
        return None

    def most(self, scope: Scope) -> int:
        """The limit in bytes."""
        return max(0, min(number(self.limit, scope), READ_LIMIT))


class Log(CStr):
    """What the kernel wrote into a buffer of the caller's.

    ``end``: how long that is, as the kernel says it; 0 where it does not. ``buffer``: the bytes
    that there is room for. Of what is longer than ``limit`` the end is kept, since the verdict
    stands there.
    """

    def __init__(self, limit: Expr, end: Expr, buffer: Expr) -> None:
        super().__init__(limit)
        self.end = end
        self.buffer = buffer

    def room(self, scope: Scope) -> int:
        """The buffer's size, in bytes."""
        return number(self.buffer, scope)

    def skipped(self, scope: Scope) -> int:
        """Bytes before those that are kept, as the kernel's own length has it."""
        return max(0, number(self.end, scope) - self.most(scope))

    def untouched(self, head: bytes, data: bytes, scope: Scope) -> bool:
        """Whether what stands there afterwards is what stood there before: no word of the kernel's.

        A load that is refused before bpf_check() leaves the buffer, and the length, as they were.
        A kernel before 6.4 tells no length (commit 47a71c1f9af0), so a 0 alone proves nothing.
        """
        if not head or not head[0] or number(self.end, scope):
            return False
        return data.startswith(head.partition(b"\0")[0])


class Blob(Target):
    """Bytes that nothing here interprets."""

    def __init__(self, length: Expr, open_end: bool = False) -> None:
        """``open_end``: a length of 0 at entry means as much as there is."""
        self.length = length
        self.open_end = open_end

    def size(self, scope: Scope) -> int | None:
        if isinstance(self.length, int):
            return self.length
        found: int | None = self.length(scope)  # None: of a map that nobody knows
        return found


class InsnArray(Target):
    """``struct bpf_insn[count]``; ``maps``: their map loads name fds.

    ``claimed``: how many the caller says that there are, where ``count`` are fewer: what the
    kernel would read of them.
    """

    def __init__(self, count: Expr, maps: bool = True, claimed: Expr | None = None) -> None:
        self.count = count
        self.maps = maps
        self.claimed = claimed

    def size(self, scope: Scope) -> int | None:
        return number(self.count, scope) * 8

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        return map_fds(data) if self.maps else ()


class Many(Target):
    """An array of structs, scalars (``scalar``), or pointers to ``pointed``.

    ``layout`` is an element's; ``stride`` the caller's record size where that may differ
    from ours. ``are_fds``: each element is an fd.
    """

    def __init__(
        self,
        layout: Layout,
        count: Expr,
        stride: Expr | None = None,
        scalar: bool = False,
        pointed: Target | None = None,
        are_fds: bool = False,
    ) -> None:
        self.layout = layout
        self.count = count
        self.stride = stride
        self.scalar = scalar
        self.pointed = pointed
        self.are_fds = are_fds

    def step(self, scope: Scope) -> int:
        """Bytes from one element to the next."""
        step = self.layout.size if self.stride is None else number(self.stride, scope)
        return step if step > 0 else 0

    def size(self, scope: Scope) -> int | None:
        return number(self.count, scope) * self.step(scope)

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        if self.are_fds:
            usable = len(data) - len(data) % self.layout.size
            return [raw for (raw,) in self.layout.full.iter_unpack(data[:usable])][:MOST_FDS]
        return ()


class One(Target):
    """A single struct, or what a Union selects, of which ``length`` bytes are valid.

    ``peek``: the struct's first 8 bytes say its own size. ``rewritten``: what the kernel
    writes into a struct that it only reads, it writes when it fails with one of these errors.
    """

    def __init__(
        self,
        item: Layout | Union,
        length: Expr | None = None,
        limit: int = 4096,
        peek: Callable[[bytes], int] | None = None,
        rewritten: frozenset[int] = frozenset(),
    ) -> None:
        self.inner = item
        self.length = length
        self.limit = limit
        self.peek = peek
        self.rewritten = rewritten

    def layout(self, scope: Scope) -> Layout | None:
        """The layout of the struct that stands there."""
        inner = self.inner
        return inner.layout(scope) if isinstance(inner, Union) else inner

    def size(self, scope: Scope) -> int | None:
        if self.length is None:
            layout = self.layout(scope)
            return 0 if layout is None else layout.size
        return min(number(self.length, scope), self.limit)
