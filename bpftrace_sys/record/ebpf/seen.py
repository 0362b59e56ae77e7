"""What the programs in the kernel saw of a refused call's world, as evidence of that moment."""

from __future__ import annotations

from decoders.records import NamedTuple


class SeenFile(NamedTuple):
    """What an fd of the call was."""

    fd: int
    magic: int
    """statfs's f_type (include/uapi/linux/magic.h)."""
    inode: int
    top: bool
    """It is the root of its file system."""
    path: str
    """As file_path() has it."""


class SeenDevice(NamedTuple):
    """A network device that the call named."""

    ifindex: int
    netns: int
    """The inode of the caller's network namespace, in which the number counts."""
    there: bool
    """Whether the namespace has one of that number."""
    xdp: dict[str, int]
    """Ids of the XDP programs that ran on it, by mode."""


class SeenRoot(NamedTuple):
    """Where the caller's absolute paths begin."""

    ours: bool
    """Where our own do."""
