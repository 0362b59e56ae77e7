"""``bpfstrace extract``: the programs of a trace as ELF objects, and its BTF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.output_files import OutputError, create
from bpftrace_sys.export.bpf_object import Source, build
from bpftrace_sys.story.listing import btf_fd
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, Map, NotedCall
from bpftrace_sys.story.program_names import prog_key
from bpftrace_sys.story.renderer import Renderer
from decoders.call import inner_value
from decoders.digests import sha256_of
from decoders.formats import insn as isa
from decoders.formats.tag import tagged
from decoders.records import dataclass
from decoders.values import Bytes, Insns

NAME_LIMIT: Final = 100
"""Characters of a file's name, without what makes it unique."""


class ExtractError(BpfstraceError):
    """Files that cannot be written; says which and why."""


# ------------------------------------------------------------------ collecting


@dataclass(slots=True)
class Blob:
    """A BTF blob, and what to call it."""

    data: bytes
    seq: int
    """The call that loaded it first."""
    name: str = ""


class Extraction(Renderer):
    """A renderer that keeps what the objects are made of."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._loads: dict[tuple[object, ...], NotedCall] = {}
        """By what tells programs apart; the same program is kept once."""
        self.attached: dict[int, list[str]] = {}
        """Targets by the seq of the load."""
        self.contents: dict[int, bytes] = {}
        """What was first put under key 0 of a map of one entry, by its kernel id."""
        self.blobs: dict[bytes, Blob] = {}
        """By digest; not those of feature probes."""
        self._by_id: dict[int, bytes] = {}
        """A BTF's digest by its kernel id."""
        self._btf_calls: list[tuple[NotedCall, bytes]] = []

    def attachment(self, told: Attachment) -> None:
        """Notes where a program was attached."""
        if told.prog is not None and told.prog.call is not None and told.verb != "detached":
            self.attached.setdefault(told.prog.call.raw.seq, []).append(told.target)

    def call(self, call: NotedCall) -> None:
        """Keeps loads, BTF and what data maps are filled with."""
        command = call.command.partition("|")[0]
        if command == "BPF_PROG_LOAD":
            self._load(call)
        elif command == "BPF_BTF_LOAD":
            self._btf(call)
        elif command == "BPF_MAP_UPDATE_ELEM" and not call.raw.failed:
            self._update(call)

    def _btf(self, call: NotedCall) -> None:
        data = inner_value(call.attr("attr", "btf"))
        if not isinstance(data, Bytes) or len(data.data) != data.wanted:
            return
        digest = sha256_of(data.data)
        if digest not in self.blobs:
            self.blobs[digest] = Blob(data.data, call.raw.seq)
            self._btf_calls.append((call, digest))
        made = call.notes.made
        if made is not None and made.id is not None:
            self._by_id[made.id] = digest

    def _update(self, call: NotedCall) -> None:
        used = self.model.by_fd(call, "attr", "map_fd")
        key, value = inner_value(call.attr("attr", "key")), inner_value(call.attr("attr", "value"))
        if not isinstance(used, Map) or used.id is None or used.max_entries != 1:
            return
        if isinstance(key, Bytes) and not any(key.data) and isinstance(value, Bytes):
            self.contents.setdefault(used.id, value.data)

    def blob_of(self, call: NotedCall) -> Blob | None:
        """The BTF that a load was given, if the trace has it whole."""
        fact = btf_fd(call)
        digest = self._by_id.get(fact.id) if fact is not None and fact.id is not None else None
        return None if digest is None else self.blobs[digest]

    def _load(self, call: NotedCall) -> None:
        insns = inner_value(call.attr("attr", "insns"))
        if not isinstance(insns, Insns) or len(insns.data) < isa.SLOT:
            return
        same = (
            prog_key(call, self.model),
            sha256_of(tagged(insns.data)),
            id(self.blob_of(call)),
            call.notes.probe is not None,  # whether it was one may come out later
        )
        before = self._loads.get(same)
        # A refused load is often the same program as the one that then succeeds.
        if before is None or (before.raw.failed and not call.raw.failed):
            self._loads[same] = call

    def programs(self) -> list[NotedCall]:
        """The loads that are worth an object: no probes, nothing twice."""
        kept: dict[tuple[object, ...], NotedCall] = {}
        for (*same, _), call in self._loads.items():
            before = kept.get(tuple(same))
            if not call.notes.is_probe and (before is None or before.raw.failed):
                kept[tuple(same)] = call
        return sorted(kept.values(), key=lambda call: call.raw.seq)

    def btfs(self) -> list[Blob]:
        """The blobs, without those of feature probes."""
        return [self.blobs[digest] for call, digest in self._btf_calls if not call.notes.is_probe]


# ------------------------------------------------------------------ files


@dataclass(slots=True)
class File:
    """A file to write."""

    name: str
    data: bytes
    about: str


class Names:
    """File names from names of the tracee's: no paths, nothing hidden, nothing twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        """The last number that was given to a stem: the next to be tried is the one after it."""

    def make(self, name: str, default: str, ending: str) -> str:
        """A free name; the same whatever the file system thinks of case."""
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:NAME_LIMIT].lstrip(".-") or default
        made = f"{stem}{ending}"
        number = self._numbers.get(made.lower(), 1)
        first = made.lower()
        while made.lower() in self._taken:
            number += 1
            made = f"{stem}.{number}{ending}"
        self._numbers[first] = number
        self._taken.add(made.lower())
        return made


def files(found: Extraction) -> list[File]:
    """Objects, then BTF, each in the order of the trace."""
    made: list[File] = []
    taken = Names()
    for call in found.programs():
        name, _ = prog_key(call, found.model)
        blob = found.blob_of(call)
        if blob is not None and not blob.name:
            blob.name = name
        source = Source(
            call,
            found.model,
            None if blob is None else blob.data,
            found.attached.get(call.raw.seq, []),
            found.contents,
        )
        built = build(source)
        refused = ", refused" if call.raw.failed else ""
        made.append(
            File(
                taken.make(name, "prog", ".o"),
                built.data,
                f"{built.about}  [call #{call.raw.seq}{refused}]",
            )
        )
    for blob in found.btfs():
        made.append(
            File(
                taken.make(blob.name, f"btf-{blob.seq}", ".btf"),
                blob.data,
                f"BTF, {len(blob.data)} bytes  [call #{blob.seq}]",
            )
        )
    return made


def write(made: Iterable[File], folder: str, force: bool) -> None:
    """Writes files into a folder; ExtractError where one is there already, OutputError where
    one cannot be."""
    made = list(made)
    there = [file.name for file in made if os.path.lexists(os.path.join(folder, file.name))]
    if there and not force:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise ExtractError(f"{folder}: {there[0]}{more} there already; --force overwrites")
    try:
        os.makedirs(folder, exist_ok=True)
        for file in made:
            path = os.path.join(folder, file.name)
            if os.path.lexists(path):
                os.unlink(path)
            with open(create(path), "wb") as out:
                out.write(file.data)
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or folder}: {error.strerror}") from None


# ------------------------------------------------------------------ the command


