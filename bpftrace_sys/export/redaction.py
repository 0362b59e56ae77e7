"""A trace without what its owner may not want to show: values, strings, paths, command lines, host.

What is replaced has a stand-in of the same length, the same for the same within a trace; it is
made with a key that is thrown away, so that nobody can look for what was there. Memory is taken
for secret until its declaration says that it is structure: what was not understood is replaced.
docs/trust.md lists what stays.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import End, Fact, Flush, Item, Live
from bpftrace_sys.trace.redacted import CLASSES
from bpftrace_sys.trace.running import Running
from decoders.call import Call, inner_value
from decoders.decode import decode
from decoders.events import Exec, Fork, Other, ProcessEvent, Signal, What, Who
from decoders.raw import NOTHING, Chunk, FdFact, RawCall
from decoders.values import Absent, Array, Bytes, Changed, Pointer, Struct, Text, Value

if TYPE_CHECKING:
    pass

PATHS: Final = frozenset({"pathname", "path", "uprobe_path", "filename"})
"""Fields that hold paths; elsewhere a text that begins with / is one."""
KERNEL_WORDS: Final = frozenset(
    b"sys fs bpf kernel debug tracing events proc self bus event_source devices cgroup btf vmlinux "
    b"kallsyms type format kprobe uprobe software tracepoint breakpoint kprobe_events "
    b"uprobe_events enable id trace_pipe available_filter_functions dev etc usr lib bin".split()
)
"""Parts of paths that every machine has."""
KERNEL_TREES: Final = (b"/sys/bus/event_source/", b"/proc/sys/kernel/")
"""Below these only the kernel makes names."""
NO_PATH: Final = re.compile(rb"anon_inode:.*|(?:socket|pipe|net|mnt):\[\d+\]")
"""What the link of an fd says where it has no path; a path begins with /."""
LICENCES: Final = frozenset({
    b"", b"GPL", b"GPL v2", b"GPL and additional rights", b"Dual BSD/GPL", b"Dual MIT/GPL",
    b"Dual MPL/GPL", b"Proprietary",
})  # fmt: skip
"""include/linux/license.h; what a program may do depends on them."""
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
_ENDS: Final = re.compile(rb"([\n\0]+)")


class StandIns:
    """Makes stand-ins; the key is known to this object only."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def octets(self, data: bytes) -> bytes:
        """As many others."""
        return hashlib.shake_256(self._key + data).digest(len(data))

    def word(self, data: bytes) -> bytes:
        """As many letters."""
        return bytes(97 + octet % 26 for octet in self.octets(data))

    def text(self, data: bytes) -> bytes:
        """Line by line, up to the end of a string; licences stay."""
        if data.rstrip(b"\0") in LICENCES:
            return data
        parts = _ENDS.split(data)
        return b"".join(part if at % 2 else self.word(part) for at, part in enumerate(parts))

    def path(self, data: bytes) -> bytes:
        """Part by part."""
        whole = data.rstrip(b"\0")
        if whole.startswith(KERNEL_TREES) and b".." not in whole:
            return data
        if NO_PATH.fullmatch(whole):
            return data
        return b"/".join(
            part if part.rstrip(b"\0") in KERNEL_WORDS else self.text(part)
            for part in data.split(b"/")
        )

    def of_str(self, text: str, path: bool = False) -> str:
        """Of a text that is not the program's bytes."""
        data = text.encode("utf-8", "surrogatepass")
        return (self.path(data) if path else self.word(data)).decode("ascii", "replace")


class Redaction:
    """Takes the items of a trace, and gives what may be shown of them."""

    def __init__(self, facts: Facts, hidden: frozenset[str] = frozenset(CLASSES)) -> None:
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
        return fact if self.tells_nothing(fact.kind) else None

    def tells_nothing(self, kind: str) -> bool:
        """Whether neither this question nor an answer to it holds anything that is hidden."""
        word, _, rest = kind.partition(" ")
        if not self.hidden or word in QUESTIONS or (word in FACTS and not rest):
            return True
        if word in ("usym", "no_code"):
            return not self.hidden & {"strings", "paths"}
        return word == "why" and rest.partition(" ")[0] in WHYS

    # ------------------------------------------------------------ calls

    def call(self, raw: RawCall) -> RawCall:
        """A call whose memory, fds, stack and name of a thread hold stand-ins."""
        places = _Places(decode(raw, self._facts))
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
        for at, chunk in enumerate(chunks):
            if chunk.data is raw.chunks[at].data:
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

    def _memory(self, chunk: Chunk, places: _Places) -> bytes:
        kind = places.secret.get(chunk.addr)
        if kind is None:
            if chunk.addr in places.btf:
                return self._btf(chunk.data)
            if chunk.addr in places.kept:
                tail = min(places.tails.get(chunk.addr, 0), len(chunk.data))
                if not tail or "values" not in self.hidden:
                    return chunk.data
                end = len(chunk.data) - tail
                return chunk.data[:end] + self._made.octets(chunk.data[end:])
            # Nothing says what it is: any of them.
            kind = "values" if "values" in self.hidden else "strings"
        if kind not in self.hidden or not chunk.data:
            return chunk.data
        if kind == "values":
            return self._made.octets(chunk.data)
        return self._made.path(chunk.data) if kind == "paths" else self._made.text(chunk.data)

    def _btf(self, data: bytes) -> bytes:
        """BTF, without paths of source; what none of its sections has are values."""
        order = "<" if data[:1] == MAGIC[:1] else ">"
        known = len(data) >= BTF_HEAD and data[:2] in (MAGIC, MAGIC[::-1])
        spans: list[tuple[int, int]] = []
        strings = (0, 0)
        if known:
            size, type_at, types, text_at, texts = struct.unpack_from(f"{order}5I", data, 4)
            strings = (size + text_at, size + text_at + texts)
            spans = sorted({(0, BTF_HEAD), (size + type_at, size + type_at + types), strings})
        out, done = b"", 0
        for start, end in [*spans, (len(data), len(data))]:
            start, end = min(start, len(data)), min(end, len(data))
            if start > done:
                gap = data[done:start]
                out += self._made.octets(gap) if "values" in self.hidden and any(gap) else gap
                done = start
            if end > done:
                part = data[done:end]
                if start == strings[0] and "paths" in self.hidden:
                    part = b"\0".join(
                        self._made.path(text) if SOURCE.fullmatch(text) else text
                        for text in part.split(b"\0")
                    )
                out += part
                done = end
        return out

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
        self.btf: set[int] = set()
        self.tails: dict[int, int] = {}
        """Bytes at the end of a structure that none of its fields explains."""
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
