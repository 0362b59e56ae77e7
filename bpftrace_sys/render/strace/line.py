"""The text of one call: structs by their rows, strings at their limits."""

from __future__ import annotations

from bpftrace_sys.render.strace.call_memory import CallMemory, Frame, PendingError
from bpftrace_sys.render.strace.grammar import Row, Word, row_of
from bpftrace_sys.render.strace.item import Item
from bpftrace_sys.render.strace.manner import Manner
from bpftrace_sys.render.strace.places import places_of
from bpftrace_sys.render.strace.quoting import hex_quoted
from bpftrace_sys.render.strace.rows import AFTER_7_2, LATE_COUNTS, NO_VARIANT
from decoders.call import Call
from decoders.declare import bpf_link
from decoders.declare.structs import layout_of
from decoders.uapi import const, names
from decoders.walk.measures import PERF_ATTR_SIZE_VER0
from decoders.walk.memory import Snapshot


class Line(CallMemory):
    """The text of a call so far."""

    def __init__(self, call: Call, manner: Manner, apart: bool = False) -> None:
        super().__init__(call, manner)
        self.out: list[str] = []
        self.apart = apart
        """Fields are printed as they are at the entry; what became of them stands behind all."""
        self.changes: list[str] = []
        """Then: that."""

    def arg(self, name: str) -> list[str]:
        """Where the next argument is put: behind a comma, if it is not the first."""
        if self.out[-1][-1:] != "(":
            self.out.append(", ")
        if self.manner.arguments:
            self.out.append(f"{name}=")
        return self.out

    def inner(self, name: str, frame: Frame) -> str:
        """The text of a struct that a field leads to."""
        kept = len(self.out)
        self.struct(name, frame)
        text = "".join(self.out[kept:])
        del self.out[kept:]
        return text

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
            claimed = places_of(name)["size"].number(frame.before) or PERF_ATTR_SIZE_VER0
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
                inner = _variant(row, frame.before, self.names.exact)
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
        elif word.mark == "~" and frame.after is not None and not (self.apart or self.names.exact):
            late = True
        if word.test is not None and not word.test(data, frame.size):
            return
        if self.names.exact and word.name in AFTER_7_2:
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
                    after = counter.number(frame.after)
                    exact = self.names.exact and word.name in LATE_COUNTS
                    count = after if exact else min(count, after)
                count //= by

        def text(value: int, late: bool = late, memory: Snapshot | None = memory) -> str:
            return show(Item(self, frame, word.name, place, value, late, memory, count, self.inner))

        changing = word.mark == ">" or (word.mark == "+" and not self.names.exact)
        old = place.number(frame.before if changing else data)
        shown = text(old)
        if not shown:
            return
        self.name(word.name.rpartition(".")[2], first)
        self.out.append(shown)
        if not changing:
            apart = self.apart and not self.names.exact
            if word.mark == "~" and apart and frame.after is not None:
                became = text(place.number(frame.after), True, self.after)
                if became != shown:
                    self.change(word.name, became)
            return
        if frame.after is not None:
            new = place.number(frame.after)
            if new != old and word.mark == "+" and self.apart:
                self.change(word.name, text(new))
            elif new != old:
                self.out.append(f" => {text(new)}")
        elif word.mark == ">":
            raise PendingError

    def change(self, name: str, text: str) -> None:
        """What a field became that was printed as it was, as strace has it of some."""
        outer, _, field = name.rpartition(".")
        told = f"{field}={text}"
        self.changes.append(f" => {{{outer}={{{told}}}}}" if outer else f" => {{{told}}}")


def _variant(row: Row, data: bytes, exact: bool) -> str | None:
    """Which row of LINK_ROWS a LINK_CREATE uses; None: strace prints nothing."""
    number = row.places["link_create.attach_type"].number(data)
    name = names.bpf_attach_type.get(number, "")
    if exact and name in NO_VARIANT:
        return None
    if "CGROUP" in name:
        bits = row.places["link_create.flags"].number(data)
        ordered = bits & (const.BPF_F_BEFORE | const.BPF_F_AFTER)
        return "cgroup" if ordered else "cgroup_plain"
    declaration = bpf_link.VARIANTS.get(name)
    if declaration is None:
        return None
    return layout_of(declaration).slots[0].name
