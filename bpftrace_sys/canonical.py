"""Calls by their meaning: what of a trace is the same each time it is recorded.

A pid is a place in the tree of processes, an fd or id is the object that it
stands for, an address is what lies there, a time is left out.  ``replay
--canonical`` prints what comes out of here, and ``diff`` compares it.

Objects get their names when all of a trace has been seen, so in texts an object
is a reference, ``ref(number)``, which :meth:`Objects.resolve` replaces.  Text of
the tracee's cannot hold one: it has no control characters left (see ``escaped``).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from bpftrace_sys.attach import Attachment
from bpftrace_sys.header import Header
from bpftrace_sys.listing import btf_fd, records
from bpftrace_sys.model import MADE, Model, Object
from bpftrace_sys.phrases import printable
from bpftrace_sys.render.json_lines import errno_name
from decoders import insn as isa
from decoders import insn_text
from decoders.call import Call, plain
from decoders.events import ProcessEvent
from decoders.raw import ENTRY, EXIT
from decoders.uapi import names
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

# ------------------------------------------------------------------ what is left out

VARYING: Final = frozenset(
    {
        "load_time",
        "run_time_ns",
        "run_cnt",
        "recursion_misses",
        "missed",
        "duration",
        "verified_insns",
        "log_true_size",
        "btf_log_true_size",
        "netns_dev",
        "netns_ino",
        "cgroup_id",
        "kernel_btf",
        # What the JIT makes, and where it puts it.
        "jited_prog_len",
        "jited_prog_insns",
        "jited_ksyms",
        "nr_jited_ksyms",
        "jited_func_lens",
        "nr_jited_func_lens",
        "jited_line_info",
        "nr_jited_line_info",
        "jited_line_info_rec_size",
        "xlated_prog_insns",
        "xlated_prog_len",
        # Where the kernel put a function: its name stands in another field.
        "probe_addr",
        # Netlink's numbers of messages and of sockets.
        "nlmsg_seq",
        "nlmsg_pid",
    }
)
"""Fields that say when, how long or where; never shown, never a difference."""

LISTED: Final = {
    "BPF_PROG_LOAD": frozenset(
        {
            "insn_cnt",
            "func_info",
            "func_info_cnt",
            "func_info_rec_size",
            "line_info",
            "line_info_cnt",
            "line_info_rec_size",
            "fd_array",
            "fd_array_cnt",
        }
    ),
    # Its strings hold the source lines of programs, among them unused ones.
    "BPF_BTF_LOAD": frozenset({"btf_size"}),
}
"""Fields, by command, that a listing of instructions or types says in its own way."""

IDS: Final = {
    "prog_id": "prog",
    "map_id": "map",
    "btf_id": "btf",
    "link_id": "link",
    "prog_ids": "prog",
    "map_ids": "map",
    "link_ids": "link",
    "ids": "prog",
    "id": "",
    "start_id": "",
    "next_id": "",
    "target_obj_id": "",
    "attach_btf_obj_id": "btf",
    "btf_obj_id": "btf",
    "btf_vmlinux_id": "btf",
}
"""Fields that hold a kernel's id, and of what ('' where that depends)."""

PIDS: Final = frozenset({"pid", "tid"})
KEPT: Final = frozenset({"key", "value", "next_key", "cpu", "retval", "probe_offset"})
"""Fields whose zero says something."""
TYPE_IDS: Final = {
    "btf_key_type_id": "btf_fd",
    "btf_value_type_id": "btf_fd",
}
"""Fields that hold a type's id in a BTF, and the field that says in which."""

READS: Final = frozenset(
    {
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
        "BPF_MAP_LOOKUP_BATCH",
        "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
        "BPF_MAP_DELETE_ELEM",
        "BPF_MAP_DELETE_BATCH",
        "BPF_PROG_STREAM_READ",
    }
)
"""Calls that collect what programs wrote: how many there are, and what they find,
depends on what happened on the machine.  Deleting is part of collecting."""
WALKS: Final = frozenset(
    {
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_BTF_GET_NEXT_ID",
        "BPF_LINK_GET_NEXT_ID",
        "BPF_PROG_GET_FD_BY_ID",
        "BPF_MAP_GET_FD_BY_ID",
        "BPF_BTF_GET_FD_BY_ID",
        "BPF_LINK_GET_FD_BY_ID",
        "BPF_OBJ_GET_INFO_BY_FD",
        "BPF_TASK_FD_QUERY",
    }
)
"""Calls that look at objects; of objects from before the trace they find what the
machine has."""
LOADS: Final = {
    "BPF_PROG_LOAD": "prog",
    "BPF_MAP_CREATE": "map",
    "BPF_BTF_LOAD": "btf",
}
"""Commands that make what a trace is about, and the kind of it."""

LINES_LIMIT: Final = 100_000
"""Lines of one block (a log, declarations) that are kept."""
BYTES_SHOWN: Final = 64
"""Longer bytes are shown by size and hash."""
ITEMS_SHOWN: Final = 64
NAME_LIMIT: Final = 200
PARTS: Final = 1 << 17
"""Lines, fields and blocks that are remembered, to be held once."""
LINKS_WAITING: Final = 1024
"""Links whose target may still come to be known."""

# ------------------------------------------------------------------ text

_REF: Final = re.compile("\0([0-9]+)\0")


def ref(number: int) -> str:
    """A reference to an object, in a text."""
    return f"\0{number}\0"


def refs(text: str) -> list[int]:
    """The objects that a text speaks of."""
    return [int(number) for number in _REF.findall(text)]


def escaped(text: str) -> str:
    """The tracee's text on one line, with nothing that a terminal obeys."""
    return printable(text)


_STABLE: Final = (
    (re.compile(r"/proc/\d+"), "/proc/PID"),
    (re.compile(r"\b(socket|pipe|anon_inode|mnt|net|pid|user|cgroup):\[\d+\]"), r"\1:[inode]"),
    (re.compile(r"\b(prog|map|btf|link|BTF) id \d+"), r"\1"),
    (re.compile(r"\bid=\d+"), ""),
    (re.compile(r"\bfd \d+"), "fd"),
    # What Python's tempfile and mktemp(1) call their files.
    (re.compile(r"(?<=/)tmp(?:[a-z0-9_]{8}|\.[A-Za-z0-9]{10})(?![\w.])"), "tmpNAME"),
    # Probes that loaders define through tracefs carry their pid.
    (re.compile(r"\b((?:libbpf|bcc|bpftrace)_)\d+(?!\d)"), r"\1PID"),
)
_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{2,9}(?![0-9A-Za-z])")
"""A number that stands by itself.  Of three digits at least: x86_64 is no pid."""


def stable(text: str, pids: Container[int] = ()) -> str:
    """A path or target without the ids, fds and inodes in it, nor those ``pids``."""
    for pattern, to in _STABLE:
        text = pattern.sub(to, text)
    if pids:
        # Programs name what they make after themselves: /sys/fs/bpf/tool.1234
        text = _NUMBER.sub(
            lambda found: "PID" if int(found[0]) in pids else found[0], text
        )
    return text.rstrip()


_LOG_TIME: Final = re.compile(rb"verification time \d+ usec")


def log_lines(data: bytes) -> list[str]:
    """A verifier's log, without its times."""
    text = _LOG_TIME.sub(b"verification time", data).decode("utf-8", "backslashreplace")
    return [escaped(line.replace("\t", "    ")) for line in text.splitlines()[:LINES_LIMIT]]


# ------------------------------------------------------------------ objects


@dataclass(slots=True)
class Known:
    """An object of a trace, in the order in which they were first spoken of."""

    number: int
    kind: str
    base: str
    """Its name without what tells it from others of that name."""
    found: bool
    """It was there before the trace."""


class Objects:
    """The objects of a trace, numbered as they come and named at the end."""

    def __init__(self, model: Model, pids: Container[int]) -> None:
        self.model = model
        self.pids = pids
        self.all: list[Known] = []
        self._by_key: dict[tuple[str, int | None, int], Known] = {}
        self._links: OrderedDict[int, tuple[Object, Known]] = OrderedDict()
        """Links that may not be tied to their target yet."""

    def known(self, found: Object) -> Known:
        """The number and name of an object."""
        # An id may come again, for another object, in a long trace.
        key = (found.kind, found.id, found.call.raw.seq if found.call is not None else 0)
        held = self._by_key.get(key)
        if held is not None:
            return held
        made = self._by_key[key] = Known(
            len(self.all), found.kind, "", found.origin != MADE
        )
        self.all.append(made)
        if found.kind == "link":
            self._links[made.number] = (found, made)
            if len(self._links) > LINKS_WAITING:
                self._name(*self._links.popitem(last=False)[1])
        else:
            self._name(found, made)
        return made

    def _name(self, found: Object, known: Known) -> None:
        known.base = base_name(found, self.model, self.pids)

    def ref(self, found: Object) -> str:
        """How texts speak of it."""
        if found.kind == "file":
            return f'"{escaped(stable(found.name, self.pids))}"'
        if found.kind == "perf_event" and found.call is None and not found.name:
            return "a perf event"
        if found.id is None and found.call is None:
            return found.kind
        return ref(self.known(found).number)

    def settle(self) -> None:
        """All is known: links have their targets."""
        while self._links:
            self._name(*self._links.popitem(last=False)[1])


def base_name(found: Object, model: Model, pids: Container[int]) -> str:
    """``prog hello_world``, ``map events``, ``link xdp on lo``, ``event kprobe f cpu 0``."""
    words = ["event" if found.kind == "perf_event" else found.kind]
    name = escaped(found.name)[:NAME_LIMIT]
    if found.kind == "btf":
        name = name or _btf_name(found, model)
    elif found.kind == "link":
        name = escaped(str(found.info.get("target") or found.info.get("type") or name))
        name = stable(name, pids)
        prog = found.info.get("prog")
        if isinstance(prog, Object) and prog.name:
            name = f"{escaped(prog.name)} -> {name}"
    elif found.kind == "perf_event":
        name = stable(name, pids)
        cpu = None if found.call is None else found.call.number("cpu")
        if cpu is not None and cpu >= 0:
            name = f"{name} cpu {cpu}"
    elif not name:
        kind = str(found.info.get("type") or "")
        if found.kind == "map" and "map_type" in found.info:
            number = found.info["map_type"]
            kind = names.bpf_map_type.get(number, str(number))
            kind = kind.removeprefix("BPF_MAP_TYPE_").lower()
        name = f"({kind or 'anonymous'})"
    return " ".join(word for word in (*words, name) if word)


def _btf_name(found: Object, model: Model) -> str:
    """BTF has no name; the first function, section or type in it tells it from others."""
    btf = None if found.id is None else model.btf(found.id)
    if btf is None:
        return ""
    from decoders.btf import Kind

    for kind in (Kind.FUNC, Kind.DATASEC, Kind.STRUCT, Kind.TYPEDEF, Kind.ENUM):
        for type_id in btf.ids_of(kind)[:1]:
            name = str(btf.name(type_id))
            if name:
                return f"of {escaped(name)}"
    return ""


# ------------------------------------------------------------------ processes


@dataclass(slots=True, eq=False)
class Process:
    """A process by its place in the tree: (1,) the first, (1, 2) its second child."""

    path: tuple[int, ...]
    comm: str = ""
    children: int = 0
    exit: str = ""
    spoke: bool = False
    """It made a call that the trace shows."""

    @property
    def label(self) -> str:
        """``1.2 bpftool``"""
        return f"{'.'.join(map(str, self.path))} {self.comm}".rstrip()


class Processes:
    """The tree of processes, from forks and exits."""

    def __init__(self) -> None:
        self.by_pid: dict[int, Process] = {}
        self.numbers: set[int] = set()
        """pids and tids that a text may hold."""
        self.roots = 0

    def get(self, pid: int) -> Process:
        """The process of a pid."""
        known = self.by_pid.get(pid)
        if known is None:
            self.roots += 1
            known = self.by_pid[pid] = Process((self.roots,))
            self.numbers.add(pid)
        return known

    def event(self, event: ProcessEvent) -> None:
        """A fork, exec or exit."""
        if event.what == "fork":
            for name in ("child", "child_tid"):
                number = event.details.get(name)
                if isinstance(number, int):
                    self.numbers.add(number)
            if event.details.get("how") == "thread":
                return
            parent = self.get(event.pid)
            parent.children += 1
            child = event.details.get("child")
            if isinstance(child, int):
                self.by_pid[child] = Process((*parent.path, parent.children), parent.comm)
        elif event.what == "exit" and event.tid == event.pid:
            known = self.get(event.pid)
            if "code" in event.details:
                known.exit = f"exited with {event.details['code']}"
            elif "signal" in event.details:
                known.exit = f"killed by signal {event.details['signal']}"

    def name(self, pid: int) -> str:
        """How texts speak of a pid."""
        known = self.by_pid.get(pid)
        return "some process" if known is None else f"process {'.'.join(map(str, known.path))}"


# ------------------------------------------------------------------ entries


class Line(NamedTuple):
    """An instruction: its text without fds and ids; where it jumps to, by index."""

    pc: int
    text: str
    jump: int | None
    """The pc that a jump or call of a subprogram leads to; its text has none then."""
    source: str | None
    function: str | None


class Block(NamedTuple):
    """A field of several lines: a log, a BTF's declarations."""

    name: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Entry:
    """A call by its meaning."""

    process: Process
    syscall: str
    command: str
    result: str
    failed: bool
    fields: list[tuple[str, str]] = field(default_factory=list)
    """Paths below the arguments, without ``attr.``; values on one line."""
    blocks: list[Block] = field(default_factory=list)
    insns: tuple[Line, ...] | None = None
    missing: int = 0
    """Instructions that could not be read."""
    tag: str = ""
    subject: int | None = None
    """The object that the call is about."""
    made: int | None = None
    seq: int = 0
    probe: str = ""
    """The feature that it probes for, if it is a probe."""
    notes: dict[str, Any] | None = None
    """Of a call that may turn out to be a probe."""

    @property
    def head(self) -> str:
        """``bpf PROG_LOAD``, ``ioctl PERF_EVENT_IOC_SET_BPF``"""
        command = self.command.removeprefix("BPF_")
        return self.syscall if command == self.syscall else f"{self.syscall} {command}"

    @property
    def collects(self) -> bool:
        """Whether it collects what programs wrote."""
        return self.command in READS


def walks(entry: Entry, objects: Sequence[Known]) -> str:
    """What a call looks at, if that is what the machine has and not what was made here."""
    if entry.command not in WALKS:
        return ""
    if "NEXT_ID" in entry.command:
        return f"ids of {entry.command.split('_')[1].lower()}s"
    number = entry.made if entry.subject is None else entry.subject
    if number is None or objects[number].found:
        return "objects that it did not make"
    return ""


class Tied(NamedTuple):
    """An attachment by its meaning."""

    process: Process
    verb: str
    prog: str
    target: str
    via: str
    roles: tuple[str, ...]
    prog_number: int | None


Take = Callable[[Entry | Tied], None]
Part = TypeVar("Part", bound=Hashable)


class Canon:
    """A renderer that hands on entries instead of printing."""

    def __init__(self, model: Model, take: Take) -> None:
        self.model = model
        self.take = take
        self.processes = Processes()
        self.objects = Objects(model, self.processes.numbers)
        self.kernel: tuple[int, int] | None = None
        self.head: Header | None = None
        self._once: dict[Hashable, Any] = {}

    def once(self, part: Part) -> Part:
        """The same object for equal ones: programs and BTF come again and again."""
        if len(self._once) >= PARTS:
            self._once.clear()
        return self._once.setdefault(part, part)  # type: ignore[no-any-return]

    def header(self, header: Header) -> None:
        """As Renderer's."""
        self.head = header
        found = re.match(r"(\d+)\.(\d+)", header.kernel)
        self.kernel = (int(found[1]), int(found[2])) if found else None

    def fact(self, kind: str, key: int, name: str) -> None:
        """As Renderer's."""

    def process(self, event: ProcessEvent) -> None:
        """As Renderer's."""
        self.processes.event(event)

    def end(self, status: dict[str, Any]) -> None:
        """As Renderer's."""
        self.objects.settle()

    def attachment(self, told: Attachment) -> None:
        """As Renderer's."""
        process = self.processes.get(told.pid)
        known = None if told.prog is None else self.objects.known(told.prog)
        self.take(
            Tied(
                process,
                told.verb,
                "a program" if known is None else ref(known.number),
                stable(escaped(told.target), self.processes.numbers),
                told.via,
                tuple(step.role for step in told.steps),
                None if known is None else known.number,
            )
        )

    def call(self, call: Call) -> None:
        """As Renderer's."""
        raw = call.raw
        process = self.processes.get(raw.pid)
        process.spoke = True
        process.comm = escaped(raw.comm) or process.comm
        made: Object | None = call.notes.get("made")
        entry = Entry(process, call.syscall.name, call.command, "", raw.failed, seq=raw.seq)
        if raw.ret is None:
            entry.result = "?"
        elif raw.failed:
            entry.result = errno_name(-raw.ret)
        elif made is not None:
            entry.result = self.objects.ref(made)
            if made.kind != "file" and refs(entry.result):
                entry.made = refs(entry.result)[0]
        elif isinstance(call.ret, Fd):
            entry.result = "fd"
        elif raw.ret:
            entry.result = str(raw.ret)
        probe = call.notes.get("probe")
        if probe is not None:
            entry.probe = str(probe)
        elif "maybe_probe" in call.notes:
            entry.notes = call.notes
        if call.command == "BPF_PROG_LOAD":
            sums = call.notes.get("listing")
            entry.tag = str((made and made.info.get("tag")) or getattr(sums, "sha1", ""))
        _Fields(self, call, entry).all()
        self.take(entry)


class _Fields:
    """Flattens the arguments of one call."""

    def __init__(self, canon: Canon, call: Call, entry: Entry) -> None:
        self.canon = canon
        self.call = call
        self.entry = entry
        self.objects: dict[tuple[int, int], Object] = call.notes.get("objects", {})

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
            self.insns(path, value)
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
        self.entry.fields.append(self.canon.once((path, text)))

    def block(self, path: str, lines: list[str]) -> None:
        self.entry.blocks.append(self.canon.once(Block(path, tuple(lines))))

    def changed(self, path: str, value: Changed, top: bool) -> None:
        """What the kernel wrote is what counts, where it is one value."""
        before, after = plain(value.before), plain(value.after)
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
        return stable(text, self.canon.processes.numbers)

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
            return _digest(value.data) if value.typed is None else self.scalar(value.typed, leaf)
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
            return self.canon.processes.name(number)
        if leaf == "kern_version" and self.canon.kernel is not None and number:
            same = (number >> 16, number >> 8 & 0xFF) == self.canon.kernel
            return "the running kernel" if same else str(value.note)
        if leaf in TYPE_IDS and number:
            return self.type_name(TYPE_IDS[leaf], number)
        if value.note is not None:
            return self.stable(escaped(value.note))
        return hex(number) if value.base == 16 and number else str(number)

    def type_name(self, fd_field: str, number: int) -> str:
        btf = self.canon.model.btf_of(self.call.fact("attr", fd_field))
        if btf is None or btf.type(number) is None:
            return str(number)
        from decoders.btf_c import c_type

        return escaped(" ".join(c_type(btf, number).split()))

    def by_id(self, kind: str, number: int) -> str:
        """The object of an id, or that it is one."""
        model = self.canon.model
        if not kind:
            kind = next((found.kind for found in self.objects.values() if found.id == number), "")
        if not kind:
            for prefix in ("PROG", "MAP", "BTF", "LINK"):
                if prefix in self.call.command:
                    kind = prefix.lower()
        found = model.objects.get((kind, number))
        return f"some {kind or 'object'}" if found is None else self.canon.objects.ref(found)

    def fd(self, value: Fd) -> str:
        if value.fact is None:
            return str(value.value) if value.value <= 0 else "fd"
        found = self.objects.get((value.fact.fd, value.fact.stage)) or self.objects.get(
            (value.fact.fd, ENTRY)
        ) or self.objects.get((value.fact.fd, EXIT))
        if found is None:
            return "fd"
        text = self.canon.objects.ref(found)
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
        self.add(path, _digest(value.data) + more)

    def btf(self, path: str, value: Bytes) -> None:
        from decoders import btf as btf_module

        if self.call.command != "BPF_BTF_LOAD":
            self.add(path, f"{value.wanted} bytes")
            return
        try:
            if len(value.data) < value.wanted:
                raise btf_module.BtfError("only a part of it was seen")
            parsed = btf_module.parse(value.data)
            lines = declared(parsed)
        except btf_module.BtfError as error:
            self.add(path, f"{_digest(value.data)} ({escaped(str(error))})")
            return
        if not lines:
            lines = [f"nothing with a name: {_digest(value.data)}"]
        self.block(path, lines)

    def array(self, path: str, value: Array) -> None:
        if value.items and isinstance(plain(value.items[0]), Struct):
            for index, item in enumerate(value.items[:ITEMS_SHOWN]):
                self.value(f"{path}[{index}]", item)
            if len(value.items) > ITEMS_SHOWN:
                rest = repr(value.items[ITEMS_SHOWN:]).encode()
                self.add(f"{path}[{ITEMS_SHOWN}...]", _digest(rest))
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
            rest = repr([plain(item) for item in value.items[ITEMS_SHOWN:]]).encode()
            words.append(f"{more} more, {_digest(rest)}" if rest != b"[]" else f"{more} more")
        return f"[{', '.join(words)}]"

    # -------------------------------------------------------------- instructions

    def insns(self, path: str, value: Insns) -> None:
        if self.call.command != "BPF_PROG_LOAD":
            return
        call, model = self.call, self.canon.model
        btf = model.btf_of(btf_fd(call))
        sources: dict[int, str] = {}
        functions: dict[int, str] = {}
        subprogs: dict[int, str] = {}
        if btf is not None:
            from decoders import btf_c

            for off, type_id in records(call.attr("attr", "func_info"), "insn_off", "type_id"):
                subprogs[off] = escaped(btf.name(type_id))
                functions[off] = escaped(btf_c.func_prototype(btf, type_id) or subprogs[off])
            for off, line_off in records(
                call.attr("attr", "line_info"), "insn_off", "line_off"
            ):
                sources[off] = escaped(btf.string(line_off).strip())
        self.entry.insns = tuple(
            self.lines(isa.insns(value.data), sources, functions, subprogs)
        )
        self.entry.missing = value.total - len(value.data) // 8

    def lines(
        self,
        program: Iterable[isa.Insn],
        sources: dict[int, str],
        functions: dict[int, str],
        subprogs: dict[int, str],
    ) -> Iterator[Line]:
        for insn in program:
            text, jump = self.insn(insn, subprogs)
            yield self.canon.once(
                Line(insn.pc, text, jump, sources.get(insn.pc), functions.get(insn.pc))
            )

    def insn(self, insn: isa.Insn, subprogs: dict[int, str]) -> tuple[str, int | None]:
        """The text, with objects and names for fds and ids; where it leads to."""
        if insn.code == isa.LD_IMM64 and insn.src:
            return self.wide(insn, subprogs)
        if insn.code == isa.CALL_K and insn.src:
            target = isa.call_target(insn)
            if target is not None:
                name = subprogs.get(target)
                if name:
                    return f"({insn.code:02x}) call {name}", None
                return f"({insn.code:02x}) call a subprogram", target
            if insn.src == isa.PSEUDO_KFUNC_CALL and insn.off == 0:
                name = self.canon.model.facts.fact("btf_vmlinux", insn.imm)
                if name:
                    return f"({insn.code:02x}) call {escaped(name)}", None
        text = insn_text.text(insn)
        distance = isa.jump_distance(insn)
        if distance is not None:
            cut = text.rfind(" pc")
            if cut >= 0:
                return text[:cut], insn.pc + 1 + distance
        return text, None

    def wide(self, insn: isa.Insn, subprogs: dict[int, str]) -> tuple[str, int | None]:
        head = f"({insn.code:02x}) r{insn.dst} = "
        second = insn.next_imm or 0
        jump = None
        if insn.src in (isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE):
            text = self.map_of(insn.imm)
        elif insn.src in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE):
            array = plain(self.call.attr("attr", "fd_array"))
            items = array.items if isinstance(array, Array) else ()
            item = items[insn.imm] if 0 <= insn.imm < len(items) else None
            text = self.map_of(item.value) if isinstance(item, Fd) else f"map fd_array[{insn.imm}]"
        elif insn.src == isa.PSEUDO_BTF_ID:
            name = self.canon.model.facts.fact("btf_vmlinux", insn.imm) if not second else None
            text = f"&{escaped(name)}" if name else f"variable of BTF id {insn.imm}"
        elif insn.src == isa.PSEUDO_FUNC:
            jump = insn.pc + 1 + insn.imm
            name = subprogs.get(jump)
            text = f"callback {name}" if name else "a callback"
            jump = None if name else jump
        else:
            text = f"{insn.imm64:#x} /* src_reg {insn.src} */"
        if insn.src in (isa.PSEUDO_MAP_VALUE, isa.PSEUDO_MAP_IDX_VALUE):
            text += f"[{second}]"
        return head + text, jump

    def map_of(self, fd: int) -> str:
        found = self.objects.get((fd, ENTRY)) or self.objects.get((fd, EXIT))
        return "map" if found is None else self.canon.objects.ref(found)


def declared(btf: Any) -> list[str]:
    """A BTF's declarations in C, line by line."""
    from decoders import btf_c

    lines: list[str] = []
    for text in btf_c.declarations(btf):
        lines += [escaped(line.replace("\t", "    ")) for line in text.split("\n")]
        if len(lines) > LINES_LIMIT:
            lines[LINES_LIMIT:] = ["..."]
            break
    return lines


def _digest(data: bytes) -> str:
    if len(data) <= BYTES_SHOWN:
        return data.hex(" ") or "(empty)"
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:32]}"


def jump_text(line: Line, index_of: dict[int, int], at: int) -> str:
    """An instruction's text with its target as so many instructions on (+) or back (-)."""
    if line.jump is None:
        return line.text
    to = index_of.get(line.jump)
    if to is None:
        return f"{line.text} nowhere"
    return f"{line.text} {to - at:+d}"


def indexes(lines: Sequence[Line]) -> dict[int, int]:
    """Index of each instruction by its pc."""
    return {line.pc: index for index, line in enumerate(lines)}
