"""The text of one call: its arguments, structs, listings and result.

Every byte of the tracee's passes :func:`quoted` or ``printable`` before it gets here, so nothing
of it can steer a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.render.left_out import left_in
from bpftrace_sys.render.line_breaks import filled
from bpftrace_sys.render.listing_text import ListingText
from bpftrace_sys.render.style import Painter, plain_painter, visible
from bpftrace_sys.render.text_quoting import octets, quoted
from bpftrace_sys.render.times import spent
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object
from bpftrace_sys.story.targets import open_note, printable
from decoders.call import inner_value
from decoders.raw import ENTRY, FdFact
from decoders.values import (
    BEYOND_SIZE,
    EMPTY,
    NULL,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Flags,
    Insns,
    Int,
    Name,
    Pointer,
    Struct,
    Text,
    Value,
)

if TYPE_CHECKING:
    from bpftrace_sys.story.notes import Listing

from bpftrace_sys.render.text_options import (
    HOLE,
    INDENT,
    ITEMS_SHOWN,
    LOG_LINES,
    LOGS,
    NAME_LIMIT,
    NAMES,
    Options,
)

_DEEP: Final = frozenset({Pointer, Changed, Struct, Text, Insns})
"""Values that may need lines of their own."""


class CallText:
    """Makes text of calls, one after the other."""

    def __init__(self, model: Model, options: Options, paint: Painter = plain_painter) -> None:
        self.model = model
        self.options = options
        self.paint = paint
        self.listings = ListingText(options, paint)
        self.objects: dict[tuple[int, int], Object] = {}
        self.call_: NotedCall | None = None
        self._words: dict[int, list[str]] = {}
        """The fields of the structs of this call on one line each, by the struct's id()."""
        self.holes: list[tuple[str, bool]] | None = None
        """While a template is made: what stands for data, one after the other, and whether
        that is octets."""
        self._values: dict[type, Callable[[Any], str]] = {
            Int: self._int,
            Name: self._name,
            Flags: self._flags,
            Fd: self._fd,
            Text: self._text,
            Bytes: self._bytes,
            Insns: self._insns,
            Struct: self._struct,
            Array: self._array,
            Pointer: self._pointer,
            Absent: self._absent,
            Changed: self._changed,
        }

    def pid(self, tid: int) -> str:
        """Who, as it stands before a line."""
        return self.paint("pid", f"[{tid}]")

    def _head(self, call: NotedCall) -> str:
        """Who makes a call, and when."""
        pid = f"[{call.raw.tid}]"
        if self.options.comms:
            pid = f"[{call.raw.tid}<{printable(call.raw.comm)}>]"
        stamp = self.options.stamp
        return f"{self.paint('pid', pid)} {stamp(call.raw.time) if stamp else ''}"

    def call_text(self, call: NotedCall) -> str:
        """A call as text, of one or many lines."""
        self.call_ = call
        self.objects = call.notes.objects
        self._words.clear()
        head = f"{self._head(call)}{self.paint('syscall', call.syscall.name)}("
        args = [
            (name, value)
            for name, value in call.args.fields
            if not (isinstance(value, Absent) and value.reason == BEYOND_SIZE)
        ]
        note = self._opened(call)
        more = f"{self._injected(call)}{self._spent(call)}"
        result = f"){self._result(call)}"
        note, result = (f"   {note}{more}", result) if note else ("", result + more)
        flat = self._flat_args(args)
        if flat is not None:
            words = [head + ", ".join(flat[:1]), *flat[1:]]
            breakable = self._breakable(args)
            if not breakable or visible(f"{', '.join(words)}{result}{note}") <= self.options.width:
                return self._filled(words, result, note)
        return self._broken_args(head, args, result, note)

    def _filled(self, words: list[str], tail: str, note: str = "") -> str:
        """Arguments, and what follows them, in as many lines as they need."""
        line = f"{', '.join(words)}{tail}{note}"
        # A word of several lines is none that could be filled into them.
        if visible(line) <= self.options.width or "\n" in line:
            return line
        *before, last = words
        units = [*(f"{word}," for word in before), f"{last}{tail}"]
        return filled([*units, note[1:]] if note else units, self.options.width, INDENT)

    def _spent(self, call: NotedCall) -> str:
        word = spent(call.raw.duration, self.options.spent)
        return word if self.holes is None else HOLE * len(word)

    def _injected(self, call: NotedCall) -> str:
        return f" {self.paint('note', '(INJECTED)')}" if call.raw.extra.injected else ""

    def _flat_args(self, args: list[tuple[str, Value]]) -> list[str] | None:
        words = []
        for name, value in args:
            if self._needs_lines(value):
                return None
            words.append(self._argument(name, value))
        return words

    def _argument(self, name: str, value: Value) -> str:
        if name.startswith("attr") and isinstance(value, Pointer):
            return self.value(value.value)
        return self._named(name, value)

    def _named(self, name: str, value: Value) -> str:
        """The value of a field, with what its name says of how to show it."""
        if name == "tag" and type(value) is Bytes:
            return value.data.hex()
        if name in NAMES or name in LOGS:
            inner = inner_value(value)
            if isinstance(inner, Text):
                shown = self.paint("string", quoted(inner.data, NAME_LIMIT, inner.whole))
                if isinstance(value, Pointer) and self._shows_address():
                    return f"{value.addr:#x} {shown}"
                return shown
        return self.value(value)

    @staticmethod
    def _breakable(args: list[tuple[str, Value]]) -> bool:
        return any(isinstance(inner_value(value), Struct) for _, value in args)

    def _broken_args(
        self, head: str, args: list[tuple[str, Value]], result: str, note: str
    ) -> str:
        text = ""
        words: list[str] = []
        for name, value in args:
            struct = inner_value(value)
            begin = "" if words or text else head
            if isinstance(struct, Struct):
                body = "\n".join(self._struct_lines(struct, INDENT))
                text += f"{self._filled([*words, f'{begin}{{'], '')}\n{body}\n"
                words = [f"{INDENT[:-2]}}}"]
            else:
                words.append(begin + self._argument(name, value))
        return text + self._filled(words, result, note)

    def _struct_lines(self, struct: Struct, indent: str) -> list[str]:
        """The fields of a struct, filled into lines; large ones stand alone."""
        lines: list[str] = []
        current = ""
        width = max(self.options.width, 40)

        def flush() -> None:
            nonlocal current
            if current:
                lines.append(indent + current)
                current = ""

        shown, folded = self._shown(struct)
        words = self._words.get(id(struct))
        for index, (name, value) in enumerate(shown):
            comma = "," if index < len(shown) - 1 or folded else ""
            block = None
            if words is None or visible(indent + words[index]) + 2 > width:
                block = self._block(name, value, indent, comma)
            if block is not None:
                flush()
                lines.extend(block)
                continue
            if words is not None:
                word = words[index] + comma
            else:
                word = f"{self._key(name)}{self._named(name, value)}{comma}"
            if visible(indent + word) > width:
                flush()
                lines.extend(filled([indent + word], width, indent + "  ").split("\n"))
                continue
            if current and visible(indent + current) + 1 + visible(word) > width:
                flush()
            current = f"{current} {word}" if current else word
        if folded:
            if current and visible(indent + current) + len(" ...") > width:
                flush()
            current = f"{current} ..." if current else "..."
        flush()
        return lines

    def _key(self, name: str) -> str:
        return self.paint("field", f"{name}=") if name else ""

    def _shown(self, struct: Struct) -> tuple[list[tuple[str, Value]], bool]:
        """The fields to print, and whether any was folded."""
        if not self.options.verbose:
            return left_in(struct, self.call_)
        return [
            (name, value)
            for name, value in struct.fields
            if not (isinstance(value, Absent) and value.reason == BEYOND_SIZE)
        ], False

    def _needs_lines(self, value: Value) -> bool:
        inner = value
        while True:
            kind = type(inner)
            if kind is Pointer:
                inner = inner.value  # type: ignore[union-attr, assignment]
            elif kind is Changed:
                inner = inner.after  # type: ignore[union-attr]
            else:
                break
        if kind is Struct:
            return any(
                self._needs_lines(field)
                for name, field in inner.fields  # type: ignore[union-attr]
                if type(field) in _DEEP and name not in NAMES
            )
        if kind is Text:
            return b"\n" in inner.data.rstrip(b"\n")  # type: ignore[union-attr]
        return kind is Insns

    def _block(self, name: str, value: Value, indent: str, comma: str) -> list[str] | None:
        """The lines of a field that does not fit into one; None if it does."""
        inner = inner_value(value)
        if isinstance(inner, Bytes) and inner.typed is not None:
            inner = inner_value(inner.typed)
        if isinstance(inner, Insns):
            return self._insn_block(name, inner, indent, comma)
        several = isinstance(inner, Text) and b"\n" in inner.data.rstrip(b"\n")
        if isinstance(inner, Text) and several and name not in NAMES:
            return self._log_block(name, inner, indent, comma)
        if isinstance(inner, Struct):
            flat = None if self._needs_lines(inner) else self.value(inner)
            if flat is None or visible(indent + name + flat) + 2 > self.options.width:
                body = self._struct_lines(inner, indent + "  ")
                return [f"{indent}{self._key(name)}{{", *body, f"{indent}}}{comma}"]
        if isinstance(inner, Array) and any(
            isinstance(inner_value(item), Struct) for item in inner.items[:1]
        ):
            flat = self._array(inner)
            if visible(indent + name + flat) + 2 > self.options.width:
                items = self._limited(inner)
                body = [f"{indent}  {item}," for item in items]
                return [f"{indent}{self._key(name)}[", *body, f"{indent}]{comma}"]
        return None

    def _log_block(self, name: str, text: Text, indent: str, comma: str) -> list[str]:
        rows = text.data.rstrip(b"\n").split(b"\n")
        dropped = 0
        if not self.options.verbose and len(rows) > LOG_LINES:
            dropped = len(rows) - LOG_LINES
            rows = rows[-LOG_LINES:]
        lines = [f'{indent}{self._key(name)}"""']
        if text.before:
            kept = f"{indent}  ... {text.before} bytes before these, which were not kept"
            lines.append(self.paint("comment", kept))
        if dropped:
            lines.append(self.paint("comment", f"{indent}  ... {dropped} lines before (-v)"))
        failed = self.call_ is not None and self.call_.raw.failed
        style = "complaint" if failed else "string"
        for row in rows:
            shown = printable(row.decode("utf-8", "backslashreplace").replace("\t", "    "))
            lines.append(f"{indent}  {self.paint(style, shown)}")
        return [*lines, f'{indent}"""{"" if text.whole else "..."}{comma}']

    def _insn_block(self, name: str, insns: Insns, indent: str, comma: str) -> list[str] | None:
        call = self.call_
        found: Listing | None = None
        if call is not None:
            from bpftrace_sys.story.listing import listing_for

            found = listing_for(call, insns, self.model)
        again = call is not None and call.notes.retry is not None and not self.options.verbose
        if not self.options.insns or again:
            return None  # an attempt before this one has the listing
        if found is None:
            from decoders.formats.insn_text import disasm

            body = [f"{indent}  {line}" for line in disasm(insns.data)]
            return [f"{indent}{self._key(name)}[", *body, f"{indent}]{comma}"]
        once = self.options.once and not self.options.verbose
        shown = self.listings.shown_before(call, found) if once and call is not None else None
        if shown is not None:
            return [f"{indent}{self._key(name)}{self._comment(f'as {shown}')}{comma}"]
        return [
            f"{indent}{self._key(name)}[",
            *self.listings.lines(found, indent + "  "),
            f"{indent}]{comma}",
        ]

    def _result(self, call: NotedCall) -> str:
        raw = call.raw
        if raw.ret is None:
            how = "detached" if raw.extra.detached else "unfinished"
            return f" = {self.paint('error', f'? ({how})')}"
        if raw.failed:
            name = self.paint("error", errno_name(-raw.ret))
            meaning = os.strerror(-raw.ret) if 0 < -raw.ret < 512 else ""  # others: kernel's own
            return f" = -1 {name} ({meaning})" if meaning else f" = -1 {name}"
        if isinstance(call.ret, Fd):
            made = call.notes.made
            shown = str(raw.ret)
            if made is not None:
                label = made.long_label if made.call is call else made.label
                shown += self.paint("object", f"<{printable(label)}>")
            result = f" = {shown}"
        else:
            result = f" = {raw.ret}"
        return result

    def _opened(self, call: NotedCall) -> str:
        """What an openat is for; empty where its path does not say."""
        raw = call.raw
        if call.syscall.name != "openat" or raw.ret is None or raw.failed:
            return ""
        path = inner_value(call.attr("pathname"))
        if not isinstance(path, Text):
            return ""
        note = open_note(path.data.decode("utf-8", "replace"), self.model.facts)
        return self.paint("comment", f"/* {note} */") if note else ""

    def value(self, value: Value) -> str:
        """A value on one line."""
        return self._values[type(value)](value)

    def _int(self, value: Int) -> str:
        if value.base == 16 and value.value:
            text = hex(value.value)
        elif value.base == 8 and value.value:
            text = f"0{value.value:o}"
        else:
            text = str(value.value)
        if value.note is None:
            return text
        if value.note.startswith("KERNEL_VERSION("):
            return value.note
        return f"{text} {self._comment(value.note)}"

    def _comment(self, text: str) -> str:
        return self.paint("comment", f"/* {printable(text).replace('*/', '*|')} */")

    def _name(self, value: Name) -> str:
        if value.name is None:
            enum = f" {self._comment(f'{value.enum} ???')}" if value.enum else ""
            return f"{value.value:#x}{enum}" if value.value >= 0 else f"{value.value}{enum}"
        text = self.paint("name", value.name)
        return f"{text} {self._comment('from this kernel')}" if value.newer else text

    def _flags(self, value: Flags) -> str:
        words = [self.paint("name", name) for name in value.names]
        if value.newer:
            which = "" if len(value.newer) == len(value.names) else ", ".join(value.newer) + " "
            words[-1] += " " + self._comment(f"{which}from this kernel")
        if value.rest or not words:
            words.append(hex(value.rest) if value.rest else "0")
        return "|".join(words)

    def _fd(self, value: Fd) -> str:
        fact = value.fact
        if fact is None:
            return str(value.value)
        return f"{value.value}{self._object(fact)}"

    def _object(self, fact: FdFact) -> str:
        found = self.objects.get((fact.fd, fact.stage)) or self.objects.get((fact.fd, ENTRY))
        label = found.label if found is not None else ""
        return self.paint("object", f"<{printable(label) or '?'}>")

    def _text(self, value: Text) -> str:
        return self.paint("string", quoted(value.data, self._limit(), value.whole))

    def _limit(self) -> int:
        return self.options.string_limit

    def _bytes(self, value: Bytes) -> str:
        if value.typed is not None:
            return self.value(value.typed)
        if value.note is not None:
            return self._comment(f"{len(value.data)} bytes: {value.note}")
        word = octets(value.data, self.options.string_limit, len(value.data) >= value.wanted)
        if self.holes is None:
            return word
        # Octets may be broken apart, a string is not.
        broken = word.startswith("[")
        hole = " ".join(HOLE * len(piece) for piece in (word.split(" ") if broken else [word]))
        self.holes.append((hole, broken))
        return hole

    def _insns(self, value: Insns) -> str:
        return self._comment(f"{value.total} instructions")

    def _struct(self, value: Struct) -> str:
        shown, folded = self._shown(value)
        words = [f"{self._key(name)}{self._named(name, member)}" for name, member in shown]
        # Rendered once: if the line turns out too long, these are laid out again.
        self._words[id(value)] = words
        if folded:
            return f"{{{', '.join(words)}, ...}}"
        return f"{{{', '.join(words)}}}"

    def _limited(self, value: Array) -> list[str]:
        limit = len(value.items) if self.options.verbose else ITEMS_SHOWN
        words = [self.value(item) for item in value.items[:limit]]
        more = value.total - len(words)
        if more > 0:
            words.append(self._comment(f"{more} more"))
        return words

    def _array(self, value: Array) -> str:
        return f"[{', '.join(self._limited(value))}]"

    def _pointer(self, value: Pointer) -> str:
        inner = value.value
        if isinstance(inner, Absent):
            if inner.reason in (EMPTY, NULL):
                return hex(value.addr)
            return f"{value.addr:#x} {self._comment(inner.reason)}"
        if isinstance(inner, Text) and self._shows_address():
            return f"{value.addr:#x} {self.value(inner)}"
        return self.value(inner)

    def _shows_address(self) -> bool:
        """A probe's name stands in a field that holds an address; both are worth seeing."""
        return self.call_ is not None and self.call_.syscall.name == "perf_event_open"

    def _absent(self, value: Absent) -> str:
        return "NULL" if value.reason == NULL else self._comment(value.reason)

    def _changed(self, value: Changed) -> str:
        return f"{self.value(value.before)} => {self.value(value.after)}"
