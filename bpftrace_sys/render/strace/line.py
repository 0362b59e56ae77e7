"""The text of one call: structs by their rows, strings at their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpftrace_sys.render.strace.grammar import Row, Word, row_of
from bpftrace_sys.render.strace.item import Frame, Item, PendingError
from bpftrace_sys.render.strace.places import places_of
from bpftrace_sys.render.strace.quoting import address, hex_quoted, quoted
from decoders.call import Call
from decoders.declare import bpf_link
from decoders.declare.fields import layout_of
from decoders.raw import ENTRY, EXIT
from decoders.uapi import const, names
from decoders.walk.memory import Snapshot

PATH_MAX: Final = 4096


class Line:
    """The text of a call so far."""

    def __init__(self, call: Call, string_limit: int, verbose: bool) -> None:
        self.call = call
        self.limit = string_limit
        self.verbose = verbose
        raw = call.raw
        self.failed: bool = raw.failed
        self.before = Snapshot(chunk for chunk in raw.chunks if chunk.stage == ENTRY)
        self.after = (
            Snapshot(chunk for chunk in raw.chunks if chunk.stage == EXIT)
            if raw.ret is not None
            else None
        )
        self.args = (*raw.args, 0, 0, 0, 0, 0, 0)[:6]
        self.out: list[str] = []

    def exit(self) -> Snapshot:
        """Memory at exit."""
        if self.after is None:
            raise PendingError
        return self.after

    def frame(self, path: tuple[str, ...], addr: int, size: int) -> Frame | None:
        """A struct of the tracee's; None where it cannot be read."""
        before = self.before.read(addr, size) if addr else None
        if before is None or len(before) < size:
            return None
        after: bytes | None = before
        if self.after is None:
            after = None
        else:
            written = self.after.read(addr, size)
            if written is not None and len(written) == size:
                after = written
        return Frame(path, size, before, after)

    # ------------------------------------------------------------ structs

    def struct(self, name: str, frame: Frame) -> None:
        """Prints a struct by its row, with what follows the fields that strace knows."""
        row = row_of(name)
        self.out.append("{")
        extra = self.fields(row, frame)
        data = frame.after if frame.late and frame.after is not None else frame.before
        if extra is not None and data[extra:].strip(b"\0") and name != "PERF_ATTR":
            rest = data[extra:]
            self.out.append(
                f", extra_data={hex_quoted(rest)} /* bytes {extra}..{len(data) - 1} */"
                if self.verbose
                else ", ..."
            )
        if name == "PERF_ATTR":
            claimed = places_of(name)["size"].number(frame.before)
            if claimed > frame.size:
                self.out.append(", ...")
        self.out.append("}")
        for word in row.words:
            if word.kind == "again":
                assert word.place is not None
                if frame.after is None:
                    raise PendingError
                new = word.place.number(frame.after)
                if new != word.place.number(frame.before):
                    outer, _, field = word.name.partition(".")
                    self.out.append(f" => {{{outer}={{{field}={new}}}}}")

    def fields(self, row: Row, frame: Frame) -> int | None:
        """Prints fields; where extra data would begin, None where the struct ended before."""
        end: int | None = row.end
        first = [True]
        stopped = False
        for word in row.words:
            if word.kind == "close":
                self.out.append("}")
                first.pop()
                stopped = False
            elif stopped:
                if word.kind == "open":
                    raise AssertionError("a struct after a stop")
            elif word.kind == "stop":
                stopped = frame.size <= word.bound
                if stopped and len(first) == 1:
                    return None
            elif word.kind == "open":
                self.name(word.name, first)
                self.out.append("{")
                first.append(True)
            elif word.kind == "link":
                inner = _variant(row, frame.before)
                if inner is None:
                    end = row.end
                else:
                    variant = row_of("LINK_CREATE", inner, word.name)
                    end = variant.end
                    self.link(variant, frame, first)
            elif word.kind == "field":
                self.field(word, frame, first)
        return end

    def link(self, row: Row, frame: Frame, first: list[bool]) -> None:
        """The variant part of a LINK_CREATE."""
        depth = len(first)
        stopped = False
        for word in row.words:
            if word.kind == "close":
                self.out.append("}")
                first.pop()
            elif word.kind == "open":
                self.name(word.name, first)
                self.out.append("{")
                first.append(True)
            elif word.kind == "stop":
                stopped = stopped or frame.size <= word.bound
            elif not stopped:
                self.field(word, frame, first)
        del first[depth:]

    def name(self, name: str, first: list[bool]) -> None:
        """Prints the name of a field, behind a comma if it is not the first."""
        self.out.append(f"{name}=" if first[-1] else f", {name}=")
        first[-1] = False

    def field(self, word: Word, frame: Frame, first: list[bool]) -> None:
        """Prints a field."""
        place, show = word.place, word.format
        assert place is not None
        assert show is not None
        data = frame.before
        late = frame.late
        if word.mark == "@" or late:
            if frame.after is None:
                raise PendingError
            data = frame.after
            late = True
        elif word.mark == "~" and frame.after is not None:
            late = True
        if word.test is not None and not word.test(data, frame.size):
            return
        memory = self.after if late else self.before
        count: int | None = None
        if word.length is not None:
            counter, by = word.length
            if counter is None:
                count = max(0, self.call.raw.ret or 0)
            else:
                count = counter.number(frame.before)
                if late and frame.after is not None:
                    count = min(count, counter.number(frame.after))
                count //= by

        def text(value: int) -> str:
            return show(Item(self, frame, word.name, place, value, late, memory, count))

        self.name(word.name.rpartition(".")[2], first)
        if word.mark not in (">", "+"):
            self.out.append(text(place.number(data)))
            return
        old = place.number(frame.before)
        self.out.append(text(old))
        if frame.after is not None:
            new = place.number(frame.after)
            if new != old:
                self.out.append(f" => {text(new)}")
        elif word.mark == ">":
            raise PendingError

    # ------------------------------------------------------------ strings

    def text(self, addr: int, most: int | None, memory: Snapshot | None) -> str:
        """A C string of at most ``most`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if memory is None:
            return address(addr)
        asked = self.limit + 1 if most is None else min(self.limit + 1, most)
        answer = memory.cstr(addr, asked) if asked else (b"", True)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < asked:
            return address(addr)
        return quoted(data[: self.limit]) + ("" if ended else "...")

    def data(
        self, addr: int, size: int, memory: Snapshot | None, quote: Callable[[bytes], str]
    ) -> str:
        """``size`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if not size:
            return '""'
        wanted = min(size, self.limit + 1)
        found = None if memory is None else memory.read(addr, wanted)
        if found is None or len(found) < wanted:
            return address(addr)
        return quote(found[: self.limit]) + ("..." if size > self.limit else "")

    def path(self, addr: int) -> str:
        """A path name, whole."""
        if not addr:
            return "NULL"
        answer = self.before.cstr(addr, PATH_MAX)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < PATH_MAX:
            return address(addr)
        return quoted(data) if ended else quoted(data[: PATH_MAX - 1]) + "..."


def _variant(row: Row, data: bytes) -> str | None:
    """Which row of LINK_ROWS a LINK_CREATE uses; None: strace prints nothing."""
    number = row.places["link_create.attach_type"].number(data)
    name = names.bpf_attach_type.get(number, "")
    if "CGROUP" in name:
        bits = row.places["link_create.flags"].number(data)
        ordered = bits & (const.BPF_F_BEFORE | const.BPF_F_AFTER)
        return "cgroup" if ordered else "cgroup_plain"
    declaration = bpf_link.VARIANTS.get(name)
    if declaration is None:
        return None
    return layout_of(declaration).slots[0].name
