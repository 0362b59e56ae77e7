"""The files that tracees have mapped: opened while they are there, read when needed.

A file is known by device and inode.  It is opened in the stop in which it is first
seen mapped, for a program that ends soon, or unmounts, would take it along.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from typing import Final

from bpftrace_sys.record.stacks.cfi import CallFrames, Row
from bpftrace_sys.record.stacks.elf_image import ElfError, Image, InFile, InMemory
from bpftrace_sys.record.stacks.reading import CfiError
from bpftrace_sys.record.stacks.regions import MemoryMap, Region
from bpftrace_sys.record.stacks.symbol_table import SymbolTable

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

    def __init__(self, source: InFile | InMemory) -> None:
        self._source = source
        self._stamp = self._now()
        self._image: Image | None = None
        self._debug: Image | None = None
        self._frames: CallFrames | None = None
        self._symbols: SymbolTable | None = None
        self._rows: dict[int, Row | None] = {}
        self._named: dict[int, tuple[str, int] | None] = {}
        self._known = False

    def _now(self) -> tuple[int, int]:
        return self._source.stamp() if isinstance(self._source, InFile) else (0, 0)

    @property
    def changed(self) -> bool:
        """Whether the file has been written to since: a compiler may reuse it."""
        return self._stamp != self._now()

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


class Files:
    """All of them."""

    def __init__(self) -> None:
        self._files: OrderedDict[Key, MappedFile] = OrderedDict()

    def hold(self, tid: int, memory: MemoryMap) -> None:
        """In a stop: opens what is mapped and not open yet."""
        new = 0
        regions = {(each.device, each.inode): each for each in memory.regions if each.is_file}
        for key, region in regions.items():
            known = self._files.get(key)
            if known is None or known.changed:
                new += self._add(tid, region) is not None
                if new == NEW_AT_ONCE:
                    return

    def get(self, tid: int, region: Region) -> MappedFile | None:
        """The file of a region; None where it cannot be read."""
        key = region.device, region.inode
        found = self._files.get(key)
        if found is None:
            return self._add(tid, region)
        self._files.move_to_end(key)
        return found

    def _add(self, tid: int, region: Region) -> MappedFile | None:
        fd = _open(tid, region)
        if fd < 0:
            return None
        made = self._files[region.device, region.inode] = MappedFile(InFile(fd))
        if len(self._files) > OPEN:
            self._files.popitem(last=False)
        return made


def _open(tid: int, region: Region) -> int:
    """The mapped file itself, or who has its path and its inode; -1: none can be opened.

    /proc/PID/map_files needs CAP_CHECKPOINT_RESTORE, and finds deleted files too.
    """
    path = os.fsdecode(region.path.removesuffix(DELETED).replace(b"\\012", b"\n"))
    for way, sure in (
        (f"/proc/{tid}/map_files/{region.start:x}-{region.end:x}", True),
        (f"/proc/{tid}/root{path}", False),
        (path, False),
    ):
        with contextlib.suppress(OSError):
            return open_regular(way, None if sure else region.inode)
    return -1


def open_regular(path: str, inode: int | None = None) -> int:
    """An fd for reading a regular file, of a certain inode if given.  OSError as open()."""
    # Opening a device does things, and a fifo waits; looking first does not. Where the file's owner
    # holds a lease on it, open() waits for fs.lease-break-time, 45 s: we do without instead.
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        # The device's number is another one on overlayfs and btrfs.
        if inode is not None and found.st_ino != inode:
            raise OSError(errno.ESTALE, "another file", path)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _debug_file(image: Image) -> Image | None:
    """The separate debug file that this machine has for a file, by its build id."""
    name = image.build_id.hex()
    if len(name) < 4:
        return None
    with contextlib.suppress(OSError, ElfError):
        fd = os.open(f"{DEBUG_FILES}/{name[:2]}/{name[2:]}.debug", os.O_RDONLY | os.O_CLOEXEC)
        return Image(InFile(fd))
    return None
