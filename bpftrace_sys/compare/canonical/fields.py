"""The arguments of a call as paths and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpftrace_sys.compare.canonical.entries import Block, Entry
from bpftrace_sys.compare.canonical.insns import Instructions
from bpftrace_sys.compare.canonical.known_fields import IDS, KEPT, LISTED, PIDS, TYPE_IDS, VARYING
from bpftrace_sys.compare.canonical.text import (
    digest,
    escaped,
    log_lines,
    refs,
    stable,
)
from bpftrace_sys.story.objects import NotedCall
from decoders.call import inner_value
from decoders.raw import ENTRY, EXIT
from decoders.values import (
    BEYOND_SIZE,
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
    from bpftrace_sys.compare.canonical.known import Known
    from decoders.formats.btf import Btf

ITEMS_SHOWN: Final = 64
DECLARED: Final = 20_000
"""Lines of a BTF's declarations that are kept; the BTF of a program has some thousands."""


class Fields:
    """Flattens the arguments of one call."""

    def __init__(self, known: Known, call: NotedCall, entry: Entry) -> None:
        self.known = known
        self.call = call
        self.entry = entry
        self.objects = call.notes.objects

    def all(self) -> None:
        """Fills in fields, blocks and instructions."""
        if self.call.problem is not None:
            # Registers only, and what they hold is addresses for the most part.
            self.add("undecoded", escaped(self.call.problem))
            return
        for name, value in self.call.args.fields:
            if name in ("cmd", "request"):
                continue
            if name.startswith("attr") and isinstance(value, Pointer):
                self.value("", value.value)
            else:
                self.value(name, value, top=True)
        if self.entry.subject is None:
            self.entry.subject = self.entry.made

    def value(self, path: str, value: Value, top: bool = False) -> None:
        """Adds a value; what says nothing is left out."""
        leaf = path.rpartition(".")[2].partition("[")[0]
        if leaf in VARYING or leaf in LISTED.get(self.call.command, ()):
            return
        if isinstance(value, Pointer):
            inner = value.value
            if isinstance(inner, Absent):
                if inner.reason not in (NULL, "empty", "not written"):
                    self.add(path, f"({inner.reason})")
                return
            self.value(path, inner, top)
        elif isinstance(value, Changed):
            self.changed(path, value, top)
        elif isinstance(value, Struct):
            for name, member in value.fields:
                if isinstance(member, Absent) and member.reason in (BEYOND_SIZE, NULL):
                    continue
                self.value(f"{path}.{name}" if path else name, member)
            if path in KEPT and not any(name.startswith(path) for name, _ in self.entry.fields):
                self.add(path, "0")
        elif isinstance(value, Array):
            self.array(path, value)
        elif isinstance(value, Insns):
            self.insns(value)
        elif isinstance(value, Text) and leaf.endswith("log_buf"):
            if value.data:
                self.block(path, log_lines(value.data))
        elif isinstance(value, Bytes):
            self.octets(path, value, leaf)
        else:
            text = self.scalar(value, leaf)
            if text is not None and (top or leaf in KEPT or not self.nothing(value)):
                self.add(path, text)

    def add(self, path: str, text: str) -> None:
        self.entry.fields.append(self.known.once((path, text)))

    def block(self, path: str, lines: list[str]) -> None:
        self.entry.blocks.append(self.known.once(Block(path, tuple(lines))))

    def changed(self, path: str, value: Changed, top: bool) -> None:
        """What the kernel wrote is what counts, where it is one value."""
        before, after = inner_value(value.before), inner_value(value.after)
        scalar = (Int, Name, Flags, Fd)
        if isinstance(before, scalar) and isinstance(after, scalar):
            leaf = path.rpartition(".")[2]
            old, new = self.scalar(before, leaf), self.scalar(after, leaf)
            if old is not None and new is not None:
                self.add(path, new if old == new else f"{old} => {new}")
        else:
            self.value(path, value.after, top)

    @staticmethod
    def nothing(value: Value) -> bool:
        """Zero, as a field is that the caller's struct does not reach to."""
        if isinstance(value, Int | Name):
            return value.value == 0
        if isinstance(value, Flags):
            return value.value == 0
        if isinstance(value, Fd):
            return value.value == 0 and value.fact is None
        if isinstance(value, Text):
            return not value.data
        return False

    def stable(self, text: str) -> str:
        return stable(text, self.known.processes.numbers)

    def scalar(self, value: Value, leaf: str) -> str | None:
        """A value on one line; None: nothing that stays the same."""
        if isinstance(value, Int):
            return self.integer(value, leaf)
        if isinstance(value, Name):
            return value.name or str(value.value)
        if isinstance(value, Flags):
            rest = [hex(value.rest)] if value.rest else []
            return "|".join([*value.names, *rest]) or "0"
        if isinstance(value, Fd):
            return self.fd(value)
        if isinstance(value, Text):
            text = escaped(value.data.decode("utf-8", "backslashreplace"))
            return f'"{self.stable(text)}"' + ("" if value.whole else "...")
        if isinstance(value, Pointer):
            return self.scalar(value.value, leaf)
        if isinstance(value, Changed):
            return self.scalar(value.after, leaf)
        if isinstance(value, Bytes):
            return digest(value.data) if value.typed is None else self.scalar(value.typed, leaf)
        if isinstance(value, Struct):
            words = [
                f"{name}: {shown}"
                for name, member in value.fields
                if not isinstance(member, Absent)
                and (shown := self.scalar(member, name)) is not None
            ]
            return "{" + ", ".join(words) + "}"
        if isinstance(value, Array):
            return self.items(value, leaf)
        if isinstance(value, Absent):
            return f"({value.reason})"
        return None

    def integer(self, value: Int, leaf: str) -> str | None:
        number = value.value
        if leaf in IDS and number:
            return self.by_id(IDS[leaf], number)
        if leaf in PIDS:
            if number in (0, -1, 0xFFFFFFFF):
                return str(number)
            return self.known.processes.name(number)
        if leaf == "kern_version" and self.known.kernel is not None and number:
            same = (number >> 16, number >> 8 & 0xFF) == self.known.kernel
            return "the running kernel" if same else str(value.note)
        if leaf in TYPE_IDS and number:
            return self.type_name(TYPE_IDS[leaf], number)
        if value.note is not None:
            return self.stable(escaped(value.note))
        return hex(number) if value.base == 16 and number else str(number)

    def type_name(self, fd_field: str, number: int) -> str:
        btf = self.known.model.btf_of(self.call.fact("attr", fd_field))
        if btf is None or btf.type(number) is None:
            return str(number)
        from decoders.formats.btf_c import c_type

        return escaped(" ".join(c_type(btf, number).split()))

    def by_id(self, kind: str, number: int) -> str:
        """The object of an id, or that it is one."""
        model = self.known.model
        if not kind:
            kind = next((found.kind for found in self.objects.values() if found.id == number), "")
        if not kind:
            for prefix in ("PROG", "MAP", "BTF", "LINK"):
                if prefix in self.call.command:
                    kind = prefix.lower()
        found = model.objects.get((kind, number))
        return f"some {kind or 'object'}" if found is None else self.known.objects.ref(found)

    def fd(self, value: Fd) -> str:
        if value.fact is None:
            return str(value.value) if value.value <= 0 else "fd"
        found = self.objects.get((value.fact.fd, value.fact.stage)) or self.objects.get(
            (value.fact.fd, ENTRY)
        ) or self.objects.get((value.fact.fd, EXIT))
        if found is None:
            return "fd"
        text = self.known.objects.ref(found)
        if self.entry.subject is None and (mentioned := refs(text)):
            self.entry.subject = mentioned[0]
        return text

    def octets(self, path: str, value: Bytes, leaf: str) -> None:
        if leaf == "btf" and self.call.command in ("BPF_BTF_LOAD", "BPF_OBJ_GET_INFO_BY_FD"):
            self.btf(path, value)
            return
        if value.typed is not None:
            before = len(self.entry.fields)
            self.value(path, value.typed)
            if len(self.entry.fields) == before:
                self.add(path, "0")
            return
        if not value.data.strip(b"\0") and leaf not in KEPT:
            return
        more = "" if len(value.data) >= value.wanted else "..."
        self.add(path, digest(value.data) + more)

    def btf(self, path: str, value: Bytes) -> None:
        from decoders.formats import btf as btf_module

        if self.call.command != "BPF_BTF_LOAD":
            self.add(path, f"{value.wanted} bytes")
            return
        try:
            if len(value.data) < value.wanted:
                raise btf_module.BtfError("only a part of it was seen")
            parsed = btf_module.parse(value.data)
            lines = declared(parsed, value.data)
        except btf_module.BtfError as error:
            self.add(path, f"{digest(value.data)} ({escaped(str(error))})")
            return
        if not lines:
            lines = [f"nothing with a name: {digest(value.data)}"]
        self.block(path, lines)

    def array(self, path: str, value: Array) -> None:
        if value.items and isinstance(inner_value(value.items[0]), Struct):
            for index, item in enumerate(value.items[:ITEMS_SHOWN]):
                self.value(f"{path}[{index}]", item)
            if len(value.items) > ITEMS_SHOWN:
                rest = repr(value.items[ITEMS_SHOWN:]).encode()
                self.add(f"{path}[{ITEMS_SHOWN}...]", digest(rest))
            return
        leaf = path.rpartition(".")[2].partition("[")[0]
        text = self.items(value, leaf)
        if value.items:
            self.add(path, text)

    def items(self, value: Array, leaf: str) -> str:
        words = [self.scalar(item, leaf) or "?" for item in value.items[:ITEMS_SHOWN]]
        if leaf == "map_ids":
            words.sort()
        more = value.total - len(words)
        if more > 0:
            rest = repr([inner_value(item) for item in value.items[ITEMS_SHOWN:]]).encode()
            words.append(f"{more} more, {digest(rest)}" if rest != b"[]" else f"{more} more")
        return f"[{', '.join(words)}]"

    def insns(self, value: Insns) -> None:
        if self.call.command == "BPF_PROG_LOAD":
            insns = Instructions(self.known, self.call)
            self.entry.insns = tuple(insns.lines(value.data))
            self.entry.rest = insns.rest
            self.entry.missing, self.entry.unread = value.missing, value.unread



def declared(btf: Btf, data: bytes) -> list[str]:
    """A BTF's declarations in C, line by line; of what is too much, what it is of."""
    from decoders.formats import btf_c

    lines: list[str] = []
    for text in btf_c.declarations(btf):
        lines += [escaped(line.replace("\t", "    ")) for line in text.split("\n")]
        if len(lines) > DECLARED:
            lines[DECLARED:] = [f"... and more: {digest(data)}"]
            break
    return lines
