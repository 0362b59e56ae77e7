"""From a trace to a reproduction: which calls, in terms of what, and what a part of them needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.escape import printable
from bpftrace_sys.export.reproducer_arguments import CLOSED, Arguments, UnknownFdError
from bpftrace_sys.export.reproduction import (
    FD,
    Buffer,
    Close,
    Handle,
    Issue,
    LeftOut,
    Looked,
    Number,
    Reproduction,
    Value,
)
from bpftrace_sys.story.listing import listing_of
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object, text_of
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.targets import defined_probes
from bpftrace_sys.trace.header import Header
from decoders import decode
from decoders.call import inner_value
from decoders.commands import IOCTLS_LOOK, LOOKS
from decoders.declare.structs import layout_of
from decoders.events import Ending, Fork, ProcessEvent
from decoders.raw import AUDIT_ARCH_I386, ENTRY, EXIT, FdFact, RawCall
from decoders.uapi import perf
from decoders.values import Name, Text
from decoders.walk.follow import args_view, follow
from decoders.walk.memory import Snapshot

REGISTERS: Final = {"bpf": 5, "perf_event_open": 5, "ioctl": 3, "setsockopt": 5, "write": 3}
"""The calls that are issued again, and how many arguments they have at most."""
OPENED: Final = frozenset({"openat", "close"})
"""Calls that need no repetition: what is used of the files is opened where it is used."""
CALL_LIMIT: Final = 50_000
"""Issued calls of one reproducer; Python compiles no larger one in reasonable memory."""
LOOSE: Final = {
    **dict.fromkeys(
        (
            "BPF_PROG_GET_NEXT_ID",
            "BPF_MAP_GET_NEXT_ID",
            "BPF_BTF_GET_NEXT_ID",
            "BPF_LINK_GET_NEXT_ID",
        ),
        "it depends on what else is loaded",
    ),
    **dict.fromkeys(
        (
            "BPF_MAP_LOOKUP_ELEM",
            "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
            "BPF_MAP_DELETE_ELEM",
            "BPF_MAP_GET_NEXT_KEY",
            "BPF_MAP_LOOKUP_BATCH",
            "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
            "BPF_PROG_STREAM_READ_BY_FD",
        ),
        "programs may have written there",
    ),
}
"""Commands whose result depends on more than the calls before."""
READS: Final = LOOKS | IOCTLS_LOOK
"""Commands after which all is as before, but for what they make."""
NOBODY: Final = 65534
CHANGED: Final = frozenset({"map_fd", "target_fd", "target_ifindex", "link_fd", "fd"})
"""Fields that name what a call changes."""
KINDS: Final[dict[str, list[tuple[tuple[str, ...], str]]]] = {
    "BPF_PROG_LOAD": [(("attr", "prog_type"), "BPF_PROG_TYPE_")],
    "BPF_MAP_CREATE": [(("attr", "map_type"), "BPF_MAP_TYPE_")],
    "BPF_PROG_ATTACH": [(("attr", "attach_type"), "BPF_")],
    "BPF_PROG_DETACH": [(("attr", "attach_type"), "BPF_")],
    "BPF_PROG_QUERY": [(("attr", "query", "attach_type"), "BPF_")],
    "BPF_LINK_CREATE": [(("attr", "link_create", "attach_type"), "BPF_")],
    "BPF_RAW_TRACEPOINT_OPEN": [(("attr", "raw_tracepoint", "name"), "")],
}
"""What is said of calls whose object has no name."""
_FOREIGN: Final = "it names an object that the trace did not see being made"


class Collector(Renderer):
    """A renderer that makes a reproduction of what it sees."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.made = Reproduction("", "", "")
        self._fds: dict[int, dict[int, Handle]] = {}
        """By process and number."""
        self._things: dict[str, Handle] = {}
        """By object: the newest fd of it."""
        self._missing: dict[str, int] = {}
        """Objects that a call made which is left out."""
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        """The next one by what a name begins with."""
        self._call: NotedCall | None = None
        self._threads: set[int] = set()
        self._narrow = 0
        self._pins: set[str] = set()
        self._probed: dict[str, list[Handle]] = {}
        """The events of each tracepoint."""
        self._loose = ""
        self.whole = False

    # ------------------------------------------------------------ a renderer

    def header(self, header: Header) -> None:
        """Notes whose trace it is."""
        self.made.title = printable(" ".join(header.argv))
        self.made.kernel = printable(header.kernel)
        self.made.machine = printable(header.machine)
        narrowed = header.options.get("narrowed")
        if isinstance(narrowed, list) and narrowed:
            words = printable(" ".join(map(str, narrowed)))
            self.made.remarks.append(f"the trace leaves calls out ({words}), so they are missing")

    def process(self, event: ProcessEvent) -> None:
        """A child has the fds of its parent; what the last one had is closed."""
        if isinstance(event.what, Fork) and event.what.how != "thread":
            child = event.what.child
            if isinstance(child, int):
                self._fds[child] = dict(self._fds.get(event.pid, {}))
        elif event.ends_process:
            for handle in self._fds.pop(event.pid, {}).values():
                self._closed(handle, f"process {event.pid} ended")

    def end(self, ending: Ending) -> None:
        """The trace is whole."""
        self.whole = True

    def call(self, call: NotedCall) -> None:
        """Adds a call."""
        name = call.syscall.name
        if name in OPENED:
            return
        raw = call.raw
        what = _what(call, self.model)
        why = ""
        if name not in REGISTERS:
            why = "such calls are not issued"
        elif raw.ret is None:
            why = "it never returned"
        elif raw.extra.injected:
            why = "its result was injected: the kernel was not asked"
        elif call.problem is not None:
            why = "it could not be decoded"
        elif name == "ioctl" and call.command == "ioctl":
            why = "what its argument is, is not known"
        if not why:
            try:
                self._issue(call, what)
                return
            except UnknownFdError as error:
                why = str(error)
            except Exception as error:  # as in decode(): the others are worth more than this
                why = f"it could not be followed: {type(error).__name__}: {printable(str(error))}"
        self.made.steps.append(LeftOut(raw.seq, what, why))
        self._forget(raw)

    # ------------------------------------------------------------ a call

    def _issue(self, call: NotedCall, what: str) -> None:
        raw, syscall = call.raw, call.syscall
        command = call.command.partition("|")[0]
        self._call = call
        self._loose = ""
        env = decode.Env(raw, self.model.facts)
        view = args_view(layout_of(syscall.args), raw.args, env)
        before = Snapshot(chunk for chunk in raw.chunks if chunk.stage == ENTRY)
        entry = follow(view, before, ENTRY)
        env.stage = EXIT
        after = Snapshot(chunk for chunk in raw.chunks if chunk.stage == EXIT)
        leave = follow(view, after, EXIT, raw.failed, entry)
        env.stage = ENTRY
        arguments = Arguments(raw, command, self)
        values, names = arguments.registers(entry, leave)
        count = REGISTERS[syscall.name]
        if syscall.name == "bpf" and "|" not in call.command:
            count = 3
        if syscall.name == "ioctl" and raw.arch == AUDIT_ARCH_I386:
            values[1] = _wide_request(values[1], command)
        returns_fd = syscall.returns_fd(view)
        returned = not raw.failed and returns_fd
        assert raw.ret is not None
        issue = Issue(
            raw.seq,
            what,
            syscall.name,
            values[:count],
            FD if returned else errno_name(-raw.ret) if raw.failed else raw.ret,
            f"pid {raw.pid} {printable(raw.comm)}",
            names=names[:count],
            returns_fd=returns_fd,
        )
        self._relate(issue, call, arguments, command)
        issue.loose = self._loose or LOOSE.get(command, "")
        if returned:
            issue.made = self._returned(raw, raw.ret, call)
            for thing in issue.uses:
                if thing.startswith("tracepoint "):
                    self._probed.setdefault(thing, []).append(issue.made)
        issue.credentials = credentials(raw)
        self._threads.add(raw.tid)
        self._narrow += raw.arch == AUDIT_ARCH_I386
        self.made.steps.append(issue)

    def _relate(self, issue: Issue, call: NotedCall, arguments: Arguments, command: str) -> None:
        """Notes what the call needs, and what is not the same after it."""
        for name, value in arguments.named:
            thing = ""
            if isinstance(value, Handle):
                issue.handles.add(value)
                thing = value.thing
            elif isinstance(value, Looked):
                for word in value.args:
                    if isinstance(word, Handle):
                        issue.handles.add(word)
                        thing = word.thing
                thing = thing or f"{value.how} {value.args[0] if value.args else ''}"
            elif isinstance(value, Buffer):
                thing = f"pin {_pin_path(call)}"
            if thing:
                issue.uses.add(thing)
                pinned = command == "BPF_OBJ_PIN" and isinstance(value, Buffer)
                if pinned or (name in CHANGED and command not in READS):
                    issue.changes.add(thing)
        if issue.syscall == "write" and not call.raw.failed:
            fact = call.fact("fd")
            path = "" if fact is None else str(fact.info.get("path", ""))
            text = text_of(call.attr("buf"))
            for probe, target in defined_probes(path, text, self.model.facts).items():
                issue.changes.add(f"tracepoint {probe}")
                if not target:
                    self._released(f"tracepoint {probe}", call.raw)
        if command.endswith("_GET_FD_BY_ID") and not issue.handles:
            self._loose = _FOREIGN
        pins = {thing for thing in issue.uses if thing.startswith("pin /")}
        if command == "BPF_OBJ_PIN":
            self._pins |= pins
        elif command == "BPF_OBJ_GET" and pins and not pins & self._pins:
            self._loose = "it was pinned before the trace began"

    def _released(self, probe: str, raw: RawCall) -> None:
        """A probe was taken away: nobody had an event of it open any longer."""
        for handle in self._probed.pop(probe, ()):
            for table in self._fds.values():
                if table.get(handle.number) is handle:
                    del table[handle.number]
            self._closed(handle, f"call {raw.seq} takes its probe away")

    # ------------------------------------------------------------ fds

    def _returned(self, raw: RawCall, number: int, call: NotedCall) -> Handle:
        fact = next((f for f in raw.fds if f.stage == EXIT and f.fd == number), None)
        table = self._fds.setdefault(raw.pid, {})
        old = table.pop(number, None)
        if old is not None:
            self._closed(old, f"its number was given again by call {raw.seq}")
        made = call.notes.made
        kind = fact.kind if fact is not None and fact.kind != "file" else "fd"
        name = made.name if isinstance(made, Object) and kind in ("prog", "map") else ""
        thing = f"{kind} {fact.id}" if fact is not None and fact.id is not None else ""
        handle = Handle(
            self.name(f"{'event' if kind == 'perf_event' else kind}_{name or raw.seq}"),
            raw.seq,
            thing or f"fd of {raw.seq}",
            number,
        )
        table[number] = handle
        self._things[handle.thing] = handle
        self._missing.pop(handle.thing, None)
        return handle

    def _forget(self, raw: RawCall) -> None:
        """What a call made that is left out, is not there."""
        for fact in raw.fds:
            if fact.stage == EXIT and fact.fd == raw.ret and fact.id is not None:
                self._missing[f"{fact.kind} {fact.id}"] = raw.seq
        if raw.ret is not None and raw.ret >= 0:
            self._fds.get(raw.pid, {}).pop(raw.ret, None)

    def _closed(self, handle: Handle, why: str) -> None:
        if not any(handle in table.values() for table in self._fds.values()):
            self.made.steps.append(Close(handle, why))

    def fd(self, raw: RawCall, number: int, cgroup: bool) -> Value:
        """See World."""
        facts = [fact for fact in raw.fds if fact.fd == number]
        fact = next((fact for fact in facts if fact.stage == ENTRY), facts[0] if facts else None)
        held = self._fds.get(raw.pid, {}).get(number)
        if fact is not None and fact.id is not None:
            thing = f"{fact.kind} {fact.id}"
            if held is not None and held.thing == thing:
                return held
            known = self._things.get(thing)
            if known is not None:
                return known
            made = self._missing.get(thing)
            raise UnknownFdError(
                f"{thing} was made by call {made}, which is not issued" if made is not None
                else f"fd {number} is {thing}, which the trace did not see being made"
            )  # fmt: skip
        if fact is not None and fact.kind == "file":
            found = self._file(raw, fact, cgroup)
            if found is not None:
                unset = number == 0 and found.how == "opened"
                return Number(0) if unset else found
        if held is not None:
            return held
        if fact is None and raw.failed:
            return Number(CLOSED)
        path = "" if fact is None else f", {printable(str(fact.info.get('path', fact.kind)))}"
        raise UnknownFdError(f"fd {number}{path}: the trace does not know how it was made")

    def _file(self, raw: RawCall, fact: FdFact, cgroup: bool) -> Looked | None:
        path = str(fact.info.get("path", "")).removesuffix(" (deleted)")
        if path.startswith("net:["):
            return Looked("netns")
        if path.startswith("socket:[") and self._call is not None:
            if self._call.syscall.name != "setsockopt":
                return None
            self._loose = "a UDP socket stands for one that the trace does not know"
            return Looked("udp_socket", (path,))
        if path == "/dev/net/tun":
            return Looked("tun", (str(fact.info.get("iff", "tun0")),))
        if not path.startswith("/"):
            return None
        if cgroup or path == "/sys/fs/cgroup" or path.startswith("/sys/fs/cgroup/"):
            return Looked("cgroup", (path,))
        if self._call is not None and self._call.syscall.name == "write":
            return Looked("appended", (path,))
        return Looked("opened", (path,))

    def by_id(self, kind: str, number: int) -> Handle | None:
        """See World."""
        return self._things.get(f"{kind} {number}")

    # ------------------------------------------------------------ the rest of a World

    def is_tracee(self, pid: int) -> bool:
        """See World."""
        assert self._call is not None
        raw = self._call.raw
        return pid in (raw.pid, raw.tid) or pid in self._fds or pid in self.model.parents

    def name(self, label: str) -> str:
        """See World."""
        stem = re.sub(r"[^A-Za-z0-9_]", "_", label)[:60] or "it"
        if stem[0].isdigit():
            stem = f"_{stem}"
        name, number = stem, self._numbers.get(stem, 2)
        while name in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._numbers[stem] = number
        self._taken.add(name)
        return name

    def listing(self) -> Callable[[int], str]:
        """See World."""
        assert self._call is not None
        found = listing_of(self._call, self.model)
        texts: dict[int, str] = {}
        for line in found.lines if found is not None else ():
            texts[line.pc] = f"{line.pc:4}: {line.text}"
            if line.comment:
                texts[line.pc] += f"   /* {line.comment} */"
            if line.source:
                texts[line.pc] += f"   ; {line.source}"
        return lambda pc: printable(texts.get(pc, f"{pc:4}:"))

    # ------------------------------------------------------------ all of it

    def finish(self) -> Reproduction:
        """The reproduction, with what there is to say of it."""
        made = self.made
        last: dict[Handle, int] = {}
        final = 0
        for at, step in enumerate(made.steps):
            if isinstance(step, Issue):
                final = at
                for handle in step.handles:
                    last[handle] = at
        made.steps = [
            step
            for at, step in enumerate(made.steps)
            # An object that is used again was open elsewhere; the end closes all.
            if not isinstance(step, Close) or (last.get(step.handle, -1) < at < final)
        ]
        if len(self._threads) > 1:
            made.remarks.append(
                f"{len(self._threads)} threads made these calls; here one makes them, one "
                "after the other, in the order in which they began"
            )
        if self._narrow:
            made.remarks.append(
                f"{self._narrow} of these calls were made in 32-bit mode; here all are 64-bit ones"
            )
        return made


def _pin_path(call: NotedCall) -> str:
    """Where a pin is, as far as its path says."""
    path = text_of(call.attr("attr", "pathname"))
    folder = call.fact("attr", "path_fd")
    if folder is None or path.startswith("/"):
        return path
    return f"{folder.info.get('path', '?')}/{path}"


def credentials(raw: RawCall) -> tuple[int, int] | None:
    """(user id, effective capabilities) of who was refused; None where they are not noted."""
    cred = raw.extra.cred
    if cred is None:
        return None
    uid, effective = cred.uid, cred.eff or ""
    if not re.fullmatch(r"[0-9a-f]{1,16}", effective):
        return None
    if uid is None or not 0 <= uid < 1 << 32:
        uid = 0 if int(effective, 16) else NOBODY  # traces did not always note it
    return uid, int(effective, 16)


def _wide_request(value: Value, command: str) -> Value:
    """A 32-bit process's request as a 64-bit one makes it: some hold a pointer's size."""
    numbers = [number for number, name in perf.perf_event_ioc.items() if name == command]
    return Number(numbers[0]) if numbers else value


def _what(call: NotedCall, model: Model) -> str:
    """A call in a few words: ``BPF_PROG_LOAD hello_world``."""
    command = call.command.partition("|")[0]
    name = text_of(call.attr("attr", "prog_name")) or text_of(call.attr("attr", "map_name"))
    for path, prefix in KINDS.get(command, ()) if not name else ():
        kind = inner_value(call.attr(*path))
        if isinstance(kind, Name) and kind.name:
            name = kind.name.removeprefix(prefix).lower()
        elif isinstance(kind, Text):
            name = text_of(kind)
    if not name:
        made = call.notes.made
        used = made if isinstance(made, Object) else model.by_fd(call, "attr", "map_fd")
        name = used.name if used is not None and used.kind != "file" else ""
    if not name and command in ("BPF_OBJ_PIN", "BPF_OBJ_GET"):
        name = text_of(call.attr("attr", "pathname"))
    return printable(f"{command} {name}".strip())
