"""A trace without what its owner may not want to show: values, strings, paths, command lines, host,
and if asked for, names.

What is replaced has a stand-in of the same length, the same for the same within a trace; it is
made with a key that is thrown away, so that nobody can look for what was there. Memory is taken
for secret until its declaration says that it is structure: what was not understood is replaced.
docs/trust.md lists what stays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from bpftrace_sys.export.stand_ins import StandIns
from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import End, Fact, Flush, Item, Live
from bpftrace_sys.trace.redacted import NAMES, USUAL
from bpftrace_sys.trace.running import Running
from decoders.call import Call, inner_value
from decoders.decode import decode
from decoders.events import Exec, Fork, Other, ProcessEvent, Signal, What, Who
from decoders.name_fields import name_fields
from decoders.raw import EXIT, NOTHING, Chunk, FdFact, RawCall
from decoders.values import Absent, Array, Bytes, Changed, Pointer, Struct, Text, Value

PATHS: Final = frozenset({"pathname", "path", "uprobe_path", "filename"})
"""Fields that hold paths; elsewhere a text that begins with / is one."""
FD_WORDS: Final = frozenset({
    "prog_tag", "link_type", "event_type", "attach_type", "fd_type", "map_type", "prog_type",
})  # fmt: skip
"""Of an fd's fdinfo: words of the kernel's."""
FD_PATHS: Final = frozenset({"path", "socket_path"})
FACTS: Final = frozenset({
    "tracepoint", "btf_vmlinux", "ksym", "bpf_call", "prototype", "enum", "fields", "before",
    "alive_prog", "alive_map", "alive_link", "runs", "prog", "map", "link", "btf", "ops_members",
    "iter_target", "member_prototype",
})  # fmt: skip
"""Kinds of facts that hold numbers, and names of the kernel's or of programs and maps."""
WHYS: Final = frozenset({"sysctl", "size", "members", "enumerator"})
"""Of the kind ``why``, the same."""
QUESTIONS: Final = frozenset({"enum", "fields", "before", "member_prototype"})
"""Of FACTS, those whose question goes on after the kind."""
NAMED: Final = frozenset({"prog", "map", "link", "btf"})
"""Of FACTS, those that hold names of the program's; and of a ``ksym``, what kallsyms has of BPF's:
bpf_prog_TAG_NAME."""
OF_BPF: Final = re.compile(r"bpf_prog_[0-9a-f]{16}_")
LOGS: Final = frozenset({"log_buf", "btf_log_buf"})
"""Fields that lead to logs."""
UNNAMED: Final = frozenset({"values", "strings", "paths", NAMES})
"""Classes of what may stand in memory that nothing has a name for."""
HOWS: Final = ("fork", "vfork", "thread", "clone")
XDP_MODES: Final = ("", "drv", "skb", "hw", "multi")
ADDRESS: Final = re.compile(r"0x[0-9a-f]{1,16}")
HEX: Final = re.compile(r"[0-9a-f]{0,32}")
HIDDEN: Final = "redacted"
"""In the place of a reason."""
SWEPT: Final = 8
"""Bytes from which what was replaced is looked for in structures beside it, too."""
MAGIC: Final = b"\x9f\xeb"
BTF_HEAD: Final = 24
"""struct btf_header: include/uapi/linux/btf.h"""
SOURCE: Final = re.compile(rb"/[^/*].*|\S*/\S*", re.DOTALL)
"""What BTF has for the path of a file of source, and not for one of its lines."""


class Redaction:
    """Takes the items of a trace, and gives what may be shown of them."""

    def __init__(self, facts: Facts, hidden: frozenset[str] = frozenset(USUAL)) -> None:
        """``facts``: as the trace has them, for decoding; ``hidden``: of CLASSES."""
        self.hidden = hidden
        self._made = StandIns()
        self._facts = facts

    # ------------------------------------------------------------ the file

    def header(self, header: Header) -> Header:
        """The header; says what was replaced."""
        options: dict[str, object] = {
            name: header.options[name] for name in ("traced", "explicit") if name in header.options
        }
        narrowed = header.options.get("narrowed")
        if isinstance(narrowed, list):
            options["narrowed"] = [self._option(str(word)) for word in narrowed]
        options["redacted"] = sorted(self.hidden)
        return Header(
            argv=[self._word(word, "argv") for word in header.argv],
            kernel=header.kernel,
            machine=header.machine,
            cpus=header.cpus,
            pmu_types=header.pmu_types,
            start=header.start,
            options=options,
            host=self._word(header.host, "host"),
            version=header.version,
        )

    def _option(self, text: str) -> str:
        """An option that leaves something out, without what it names."""
        flag, space, rest = text.partition(" ")
        return f"{flag}{space}{self._word(rest, 'argv')}"

    def items(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items of a trace, in order."""
        for item in items:
            left = self.item(item)
            if left is not None:
                yield left

    def item(self, item: Item) -> Item | None:
        """What is left of an item of a trace; None: nothing. Each but facts comes once, in the
        order of the trace, and what was learned before it is in ``facts``."""
        if isinstance(item, Fact):
            return self.fact(item)
        if isinstance(item, End):
            return End(item.ending._replace(error=""))
        return item if isinstance(item, Flush) else self.live(item)

    def live(self, item: Live) -> Live | None:
        """The same of what a recorder hands on while it traces."""
        if isinstance(item, RawCall):
            return self.call(item)
        if isinstance(item, Running):
            return Running.of(self.call(item.as_begun()))
        if isinstance(item, ProcessEvent):
            return item._replace(what=_numbers_of(item.what))
        # A kernel's view holds what map values became; an object held, who holds it.
        return None if self.hidden else item

    def _word(self, text: str, kind: str, path: bool = False) -> str:
        return self._made.of_str(text, path) if kind in self.hidden else text

    def fact(self, fact: Fact) -> Fact | None:
        """What is left of a fact."""
        if not self.tells_nothing(fact.kind):
            return None
        return Fact(fact.kind, fact.key, self.answer(fact.kind, fact.name))

    def answer(self, kind: str, name: str) -> str:
        """What is shown of the answer to a question that tells nothing else."""
        if NAMES not in self.hidden:
            return name
        if kind in NAMED:
            return self._made.renamed_str(name)
        found = OF_BPF.match(name) if kind in ("ksym", "bpf_call") else None
        return name if found is None else found[0] + self._made.renamed_str(name[found.end() :])

    def tells_nothing(self, kind: str) -> bool:
        """Whether neither this question nor an answer to it holds anything that is hidden."""
        word, _, rest = kind.partition(" ")
        if not self.hidden or word in QUESTIONS or (word in FACTS and not rest):
            return True
        if word in ("usym", "no_code"):
            return not self.hidden & {"strings", "paths", NAMES}
        return word == "why" and rest.partition(" ")[0] in WHYS

    # ------------------------------------------------------------ calls

    def call(self, raw: RawCall) -> RawCall:
        """A call whose memory, fds, stack and name of a thread hold stand-ins."""
        places = _Places(decode(raw, self._facts))
        for chunk in raw.chunks:
            # Of a struct that the kernel wrote so much of, nothing else was read.
            if chunk.stage == EXIT and chunk.addr in places.kept:
                places.ends[chunk.addr] = len(chunk.data)
        chunks: list[Chunk] = []
        swept: dict[bytes, bytes] = {}
        earlier: dict[int, tuple[bytes, bytes]] = {}
        for chunk in raw.chunks:
            # What was not written stays what it was, also where less of it was copied before.
            was, instead = earlier.get(chunk.addr, (b"", b""))
            if chunk.addr in places.kept or not chunk.data.startswith(was):
                was = instead = b""
            data = instead + self._memory(chunk._replace(data=chunk.data[len(was) :]), places)
            if data == chunk.data:
                data = chunk.data
            earlier[chunk.addr] = chunk.data, data
            bare = chunk.data.strip(b"\0")
            if data is not chunk.data and len(bare) >= SWEPT:
                swept[chunk.data] = data
                swept[bare] = data[chunk.data.index(bare) :][: len(bare)]
            chunks.append(chunk._replace(data=data))
        if NAMES in self.hidden:
            self._rename(raw, chunks, places)
        for at, chunk in enumerate(chunks):
            if raw.chunks[at].addr in places.kept:
                for secret, instead in swept.items():
                    if secret in chunk.data:
                        chunk = chunk._replace(data=chunk.data.replace(secret, instead))
                chunks[at] = chunk
        extra = raw.extra
        if extra is not NOTHING and self.hidden:
            devices = {at: self._word(name, "strings") for at, name in extra.devices.items()}
            cred = extra.cred
            if cred is not None and not HEX.fullmatch(cred.eff or ""):
                cred = cred._replace(eff=None)
            extra = extra._replace(
                cred=cred,
                devices=devices,
                xdp_modes={at: mode for at, mode in extra.xdp_modes.items() if mode in XDP_MODES},
                problem=None,
                late=tuple(addr for addr in extra.late if ADDRESS.fullmatch(addr)),
                other={},
            )
        stack = raw.stack
        if stack is not None:
            frames = tuple(
                frame._replace(
                    file=self._word(frame.file, "paths", path=True),
                    symbol=self._word(frame.symbol, "strings"),
                )
                for frame in stack.frames
            )
            # Why it ends may name a file.
            ended = HIDDEN if stack.ended and "paths" in self.hidden else stack.ended
            stack = stack._replace(frames=frames, ended=ended)
        return raw.replace(
            chunks=chunks,
            fds=[self._fd(fact) for fact in raw.fds],
            comm=self._word(raw.comm, "argv"),
            extra=extra,
            stack=stack,
        )

    def _rename(self, raw: RawCall, chunks: list[Chunk], places: _Places) -> None:
        """Other names in the fields of structs that hold some, and in what a struct has besides:
        who uses memory again leaves names in it."""
        fields = sorted(name_fields(raw, self._facts))
        for at, chunk in enumerate(chunks):
            if chunk.addr not in places.structs:
                continue
            data, done = b"", 0
            for addr, size in fields:
                start = addr - chunk.addr
                if done <= start < len(chunk.data):
                    data += self._made.left_renamed(chunk.data[done:start])
                    done = start + size
                    data += self._made.renamed(chunk.data[start:done])
            data += self._made.left_renamed(chunk.data[done:])
            chunks[at] = chunk._replace(data=data)

    def _memory(self, chunk: Chunk, places: _Places) -> bytes:
        kind = places.secret.get(chunk.addr)
        if chunk.addr in places.logs and kind not in self.hidden and NAMES in self.hidden:
            return self._made.log_renamed(chunk.data)
        if kind is None:
            if chunk.addr in places.btf:
                return self._btf(chunk.data)
            if chunk.addr in places.kept:
                size = len(chunk.data)
                beyond = size - places.ends.get(chunk.addr, size)
                tail = min(max(places.tails.get(chunk.addr, 0), beyond), size)
                if not tail or "values" not in self.hidden:
                    return chunk.data
                end = len(chunk.data) - tail
                return chunk.data[:end] + self._made.octets(chunk.data[end:])
            # Nothing says what it is: any of them.
            return self._made.octets(chunk.data) if self.hidden & UNNAMED else chunk.data
        if kind not in self.hidden or not chunk.data:
            return chunk.data
        if kind == "values":
            return self._made.octets(chunk.data)
        return self._made.path(chunk.data) if kind == "paths" else self._made.text(chunk.data)

    def _btf(self, data: bytes) -> bytes:
        """BTF, without paths of source and names; what none of its sections has are values."""
        order = "<" if data[:1] == MAGIC[:1] else ">"
        known: list[tuple[int, int]] = []
        start = end = len(data)
        if len(data) >= BTF_HEAD and data[:2] in (MAGIC, MAGIC[::-1]):
            size, type_at, types, text_at, texts = struct.unpack_from(f"{order}5I", data, 4)
            start, end = (min(size + at, len(data)) for at in (text_at, text_at + texts))
            known = [(0, BTF_HEAD), (size + type_at, size + type_at + types), (start, end)]
        out, done = b"", 0
        for first, last in [*sorted(known), (len(data), len(data))]:
            first, last = min(first, len(data)), min(last, len(data))
            if first > done:
                out += self._unknown(data[done:first])
            out += data[max(first, done) : last]
            done = max(done, last)
        if NAMES in self.hidden:
            out = self._made.left_renamed(out)
        # They may lie over what the types are said to be.
        if start < end:
            text = b"\0".join(map(self._btf_text, data[start:end].split(b"\0")))
            out = out[:start] + text + out[end:]
        return out

    def _unknown(self, gap: bytes) -> bytes:
        """A part of BTF that no section has."""
        if "values" in self.hidden and any(gap):
            return self._made.octets(gap)
        return self._made.renamed(gap) if NAMES in self.hidden else gap

    def _btf_text(self, text: bytes) -> bytes:
        """A string of BTF: a name, a line of source or the path of its file."""
        if "paths" in self.hidden and SOURCE.fullmatch(text):
            return self._made.path(text)
        return self._made.renamed(text) if NAMES in self.hidden else text

    def _fd(self, fact: FdFact) -> FdFact:
        info = {
            name: value
            if not isinstance(value, str) or name in FD_WORDS
            else self._word(value, "paths" if name in FD_PATHS else "strings", name in FD_PATHS)
            for name, value in fact.info.items()
        }
        return fact._replace(info=info)


class _Places:
    """Where the memory of a call is secret, and where it is structure, by address."""

    def __init__(self, call: Call) -> None:
        self.secret: dict[int, str] = {}
        """The class of what stands there."""
        self.kept: set[int] = set()
        self.structs: set[int] = set()
        """Of ``kept``, those that are a struct."""
        self.btf: set[int] = set()
        self.logs: set[int] = set()
        self.tails: dict[int, int] = {}
        """Bytes at the end of a structure that none of its fields explains."""
        self.ends: dict[int, int] = {}
        """Where the kernel stopped writing one."""
        self._btf = call.command.startswith(("BPF_BTF_LOAD", "BPF_OBJ_GET_INFO"))
        if call.problem is None:
            self._walk("", call.args)

    def _walk(self, name: str, value: Value) -> None:
        if isinstance(value, Pointer):
            self._points(name, value)
        elif isinstance(value, Changed):
            self._walk(name, value.before)
            self._walk(name, value.after)
        elif isinstance(value, Struct):
            for field, member in value.fields:
                self._walk(field, member)
        elif isinstance(value, Array):
            for item in value.items:
                self._walk(name, item)

    def _points(self, name: str, pointer: Pointer) -> None:
        for target in _both(pointer.value):
            found = inner_value(target)
            if name in LOGS:
                self.logs.add(pointer.addr)
            if isinstance(found, Text):
                path = name in PATHS or found.data.startswith(b"/")
                self.secret[pointer.addr] = "paths" if path else "strings"
            elif isinstance(found, Struct) and _has_tail(found):
                self.kept.add(pointer.addr)
                last = found.fields[-1][1]
                assert isinstance(last, Bytes)
                self.tails[pointer.addr] = max(
                    last.wanted, len(last.data), self.tails.get(pointer.addr, 0)
                )
            elif self._btf and name == "btf":
                self.btf.add(pointer.addr)
            elif _holds_bytes(found):
                self.secret[pointer.addr] = "values"
            elif not isinstance(found, Absent):
                self.kept.add(pointer.addr)
            if isinstance(found, Struct):
                self.structs.add(pointer.addr)
        self._walk(name, pointer.value)


def _both(value: Value) -> Iterator[Value]:
    if isinstance(value, Changed):
        yield value.before
        yield value.after
    else:
        yield value


def _has_tail(value: Struct) -> bool:
    """Whether all that no field explains stands behind the fields."""
    return (
        bool(value.fields)
        and isinstance(value.fields[-1][1], Bytes)
        and value.fields[-1][0] == "extra_data"
        and not any(_holds_bytes(member) for _, member in value.fields[:-1])
    )


def _holds_bytes(value: Value | None) -> bool:
    """Whether there are bytes that no declaration explains; tags are no secret."""
    if isinstance(value, Changed):
        return _holds_bytes(value.before) or _holds_bytes(value.after)
    if isinstance(value, Struct):
        return any(
            name != "tag" and _holds_bytes(member) for name, member in value.fields
        )
    if isinstance(value, Array):
        return any(isinstance(item, Text) or _holds_bytes(item) for item in value.items)
    return isinstance(value, Bytes)


def _numbers_of(what: What) -> What:
    """What happened to a process, with nothing that may be text but how a child was made."""
    if isinstance(what, Fork):
        return what if what.how in HOWS else what._replace(how="")
    if isinstance(what, Exec):
        return Exec(what.former_tid, uid=what.uid, cgroup_id=what.cgroup_id)
    if isinstance(what, Signal):
        return what._replace(info="")  # it holds addresses
    if isinstance(what, Who):
        return Who(uid=what.uid, parent=what.parent, cgroup_id=what.cgroup_id)
    if isinstance(what, Other):
        return Other("other", {})
    return what
