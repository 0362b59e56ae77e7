"""Mounted file systems, as /proc/PID/mountinfo shows them, and which answer by themselves."""

from __future__ import annotations

import re
from typing import Final

from decoders.records import NamedTuple

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
STORES: Final = frozenset(
    {
        "bcachefs", "btrfs", "cramfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs",
        "hfsplus", "hugetlbfs", "iso9660", "jfs", "minix", "msdos", "nilfs2", "ntfs3", "ramfs",
        "reiserfs", "romfs", "rootfs", "squashfs", "tmpfs", "udf", "ufs", "vfat", "xfs", "zfs",
    }
)  # fmt: skip
"""Kinds (file_system_type.name) that keep files in memory or on devices of this machine."""
MAKES: Final = frozenset(
    {
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
        "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "resctrl", "securityfs",
        "selinuxfs", "sysfs", "tracefs",
    }
)  # fmt: skip
"""Kinds whose files the kernel makes. What a read of one does, or waits for, is that file's own
matter: memory of a process, a trace that is still empty."""
STACKED: Final = "overlay"
"""The kind that hands on to others which its mount does not tell for sure."""
DAEMONS: Final = "autofs"
"""The kind that mounts others when it is asked, which is not ours to cause."""


class Mount(NamedTuple):
    """A mount: its id, the device's number, what part of the file system, where, and what kind."""

    id: int
    device: str
    root: str
    path: str
    kind: str


def mounts(pid: int | None = None) -> list[Mount]:
    """The mounts that a process sees (None: we); raises OSError."""
    found = []
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
        for line in file:
            # proc(5): id parent major:minor root path options ... - kind source options
            head, _, tail = line.partition(b" - ")
            words, kind = head.split(), tail.split()
            if len(words) >= 5 and kind and words[0].isdigit():
                texts = map(_unescaped, (words[2], words[3], words[4], kind[0]))
                found.append(Mount(int(words[0]), *texts))
    return found


class Mounts:
    """The mounts of one moment: a process's, as long as it is there, and ours."""

    def __init__(self, pid: int) -> None:
        """Raises OSError where there is no /proc."""
        self._ours: dict[int, Mount] | None = None
        self._theirs: dict[int, Mount] = {}
        try:
            self._theirs = {mount.id: mount for mount in mounts(pid)}
        except OSError:
            self._own()

    def _own(self) -> dict[int, Mount]:
        if self._ours is None:
            self._ours = {mount.id: mount for mount in mounts()}
        return self._ours

    def of(self, number: int) -> Mount | None:
        """The mount of an id; None: of a third mount namespace, or of none any more."""
        return self._theirs.get(number) or self._own().get(number)

    def answers(self, mount: Mount) -> bool:
        """Whether the kernel answers by itself what is asked of files of a mount.

        An overlay does where our own processes have it, too: another mount namespace's may lie
        over anything, and may be anybody's (a user namespace is enough to make one).
        """
        if mount.kind == STACKED:
            return any(ours.device == mount.device for ours in self._own().values())
        return mount.kind in STORES or mount.kind in MAKES


def _unescaped(word: bytes) -> str:
    text = _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 255]), word)
    return text.decode("utf-8", "surrogateescape")
