"""The files that tracees have mapped: opened while they are there, read when needed.

A file is known by device and inode.  It is opened in the stop in which it is first
seen mapped, for a program that ends soon, or unmounts, would take it along.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from typing import Final

from bpftrace_sys.record.files.in_file import InFile
from bpftrace_sys.record.files.mounts import Mounts
from bpftrace_sys.record.files.tracee_files import Base, TraceeFiles, opened
from bpftrace_sys.record.files.walk import Place, place_of
from bpftrace_sys.record.stacks.cfi import CallFrames, Row
from bpftrace_sys.record.stacks.elf_image import ElfError, Image, Source
from bpftrace_sys.record.stacks.reading import CfiError
from bpftrace_sys.record.stacks.regions import MemoryMap, Region
from bpftrace_sys.record.stacks.symbol_table import SymbolTable
from decoders.records import NamedTuple

OPEN: Final = 128
"""Files that are open at once; the least recently used is closed, and opened again if need be."""
NEW_AT_ONCE: Final = 64
"""Files that are opened in one stop."""
ROWS: Final = 1 << 14
"""Places in a file for which the unwinding is remembered."""
DEBUG_FILES: Final = "/usr/lib/debug/.build-id"
DELETED: Final = b" (deleted)"

Key = tuple[bytes, int]


class MappedFile:
    """An ELF file, or the vdso.  What was asked once is remembered."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stamp = source.stamp()
        self._image: Image | None = None
        self._debug: Image | None = None
        self._frames: CallFrames | None = None
        self._symbols: SymbolTable | None = None
        self._rows: dict[int, Row | None] = {}
        self._named: dict[int, tuple[str, int] | None] = {}
        self._known = False

    @property
    def changed(self) -> bool:
        """Whether the file has been written to since: a compiler may reuse it."""
        return self._stamp != self._source.stamp()

    def _open(self) -> Image | None:
        if not self._known:
            self._known = True
            with contextlib.suppress(ElfError):
                self._image = Image(self._source)
                self._debug = _debug_file(self._image)
        return self._image

    def machine(self) -> int | None:
        """e_machine; None where it is no ELF file."""
        image = self._open()
        return None if image is None else image.machine

    def code(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        return self._source.read(offset, size)

    def row(self, offset: int, before: bool) -> Row | None:
        """How to unwind at an offset; ``before``: at the instruction that ends there.

        None where the file does not say.  Raises CfiError where what it says is damaged.
        """
        at = offset - before
        if at in self._rows:
            return self._rows[at]
        image = self._open()
        vaddr = None if image is None else image.vaddr(at)
        found: Row | None = None
        if image is not None and vaddr is not None:
            if self._frames is None:
                self._frames = CallFrames(image, self._debug)
            try:
                found = self._frames.row(vaddr)
            except ElfError as error:
                raise CfiError(str(error)) from None
        if len(self._rows) >= ROWS:
            self._rows.clear()
        self._rows[at] = found
        return found

    def symbol(self, offset: int, before: bool) -> tuple[str, int] | None:
        """The function at an offset, and how far into it; None: unknown."""
        at = offset - before
        if at not in self._named:
            if len(self._named) >= ROWS:
                self._named.clear()
            self._named[at] = self._find_symbol(at)
        found = self._named[at]
        return None if found is None else (found[0], found[1] + before)

    def names(self, offset: int) -> list[str]:
        """All names of the function that begins at an offset, the usual one first."""
        found = self._find_symbol(offset)
        vaddr = None if self._image is None else self._image.vaddr(offset)
        if found is None or found[1] or vaddr is None or self._symbols is None:
            return []
        return self._symbols.names(vaddr)

    def executable(self, offset: int) -> bool | None:
        """Whether an offset is within a segment of code; None where it is no ELF file."""
        image = self._open()
        return None if image is None else image.vaddr(offset) is not None

    def _find_symbol(self, at: int) -> tuple[str, int] | None:
        image = self._open()
        vaddr = None if image is None else image.vaddr(at)
        if image is None or vaddr is None:
            return None
        if self._symbols is None:
            self._symbols = SymbolTable(image, self._debug)
        return self._symbols.at(vaddr)


class Later(NamedTuple):
    """A file that is held, whose file system is to be asked; for which no stop may wait."""

    place: Place
    base: Base
    inode: int | None
    """That it must have, where the place was found by its path."""


class Files:
    """All of them. ``looking``: who reaches those on file systems that may not answer."""

    def __init__(self, looking: TraceeFiles) -> None:
        self._looking = looking
        self._files: OrderedDict[Key, MappedFile | None] = OrderedDict()
        """None: it was asked for, and did not come."""
        self._later: OrderedDict[Key, Later] = OrderedDict()

    def hold(self, tid: int, memory: MemoryMap) -> None:
        """In a stop: opens what is mapped and not open yet."""
        handles: list[tuple[Region, int]] = []
        new = 0
        regions = {(each.device, each.inode): each for each in memory.regions if each.is_file}
        for key, region in regions.items():
            if key in self._later or (key in self._files and not self._changed(key)):
                continue
            handle = _mapped(tid, region)
            if handle is not None:
                handles.append((region, handle))
            new += handle is not None or self._find(tid, region) is not None
            if new == NEW_AT_ONCE:
                break
        if handles:
            mounts = Mounts(tid)
            for region, handle in handles:
                self._hold(tid, region, handle, mounts)

    def _changed(self, key: Key) -> bool:
        known = self._files[key]
        return known is not None and known.changed

    def get(self, tid: int, region: Region) -> MappedFile | None:
        """The file of a region; None where it cannot be read."""
        key = region.device, region.inode
        if key not in self._files and key not in self._later:
            handle = _mapped(tid, region)
            if handle is None:
                self._find(tid, region)
            else:
                self._hold(tid, region, handle)
        if key in self._later:
            self._ask(region)
        if key in self._files:
            self._files.move_to_end(key)
        return self._files.get(key)

    def unlooked(self, region: Region) -> str | None:
        """Why a file was not looked at; None where it was, or was not to be had."""
        return self._looking.unlooked(_path(region))

    def _hold(self, tid: int, region: Region, handle: int, mounts: Mounts | None = None) -> None:
        """Takes the handle on the mapped file itself."""
        with contextlib.suppress(OSError):
            self._take(region, Later(place_of(tid, handle, mounts), Base.of(tid), None))

    def _find(self, tid: int, region: Region) -> MappedFile | None:
        """The file that has its path and its inode."""
        for base in (Base.of(tid), Base.of(os.getpid())):
            with contextlib.suppress(OSError, ValueError):
                place = self._looking.place(base, _path(region))
                return self._take(region, Later(place, base, region.inode))
        return None

    def _take(self, region: Region, found: Later) -> MappedFile | None:
        key = region.device, region.inode
        if not found.place.answers:
            self._later[key] = found
            if len(self._later) > OPEN:
                self._later.popitem(last=False)
            return None
        with found.place:
            file = opened(found.place, found.inode)
        return self._keep(key, MappedFile(InFile(file)))

    def _keep(self, key: Key, made: MappedFile | None) -> MappedFile | None:
        self._files[key] = made
        if len(self._files) > OPEN:
            self._files.popitem(last=False)
        return made

    def _ask(self, region: Region) -> None:
        """Opens what was left for later."""
        key = region.device, region.inode
        found = self._later.pop(key)
        made = None
        with found.place, contextlib.suppress(OSError):
            source = self._looking.opened(found.place, found.base, _path(region), found.inode)
            made = MappedFile(source)
        self._keep(key, made)


def _mapped(tid: int, region: Region) -> int | None:
    """A handle on the mapped file itself; None where we may not have it.

    /proc/PID/map_files needs CAP_CHECKPOINT_RESTORE, and finds deleted files too.
    """
    try:
        there = f"/proc/{tid}/map_files/{region.start:x}-{region.end:x}"
        return os.open(there, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None


def _path(region: Region) -> str:
    return os.fsdecode(region.path.removesuffix(DELETED).replace(b"\\012", b"\n"))


def _debug_file(image: Image) -> Image | None:
    """The separate debug file that this machine has for a file, by its build id."""
    name = image.build_id.hex()
    if len(name) < 4:
        return None
    with contextlib.suppress(OSError, ElfError):
        fd = os.open(f"{DEBUG_FILES}/{name[:2]}/{name[2:]}.debug", os.O_RDONLY | os.O_CLOEXEC)
        return Image(InFile(fd))
    return None
