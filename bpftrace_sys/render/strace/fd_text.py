"""What an fd is, as -y and -yy have it behind the number."""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.render.strace.quoting import octal, quoted
from bpftrace_sys.render.strace.signals import signal_name
from decoders.raw import FdFact

_ANONYMOUS: Final = {
    "prog": "anon_inode:bpf-prog",
    "map": "anon_inode:bpf-map",
    "link": "anon_inode:bpf_link",
    "btf": "anon_inode:btf",
    "token": "anon_inode:bpf-token",
    "perf_event": "anon_inode:[perf_event]",
}
"""The names that the kernel's anon_inode_getfd() gives: kernel/bpf/syscall.c, btf.c, token.c and
kernel/events/core.c."""
_DELETED: Final = " (deleted)"
_MASK: Final = re.compile("[0-9a-f]{1,32}")


def fd_text(fact: FdFact, said: frozenset[str]) -> str:
    """``<anon_inode:bpf-map>``, ``</etc/passwd>``; nothing where it is not known, or of a kind
    that is not among ``said``."""
    info = fact.info
    path = info.get("path")
    text = path if isinstance(path, str) else _ANONYMOUS.get(fact.kind)
    if text is None:
        return ""
    for kind, words in (("socket", _socket), ("eventfd", _eventfd), ("pidfd", _pidfd),
                        ("signalfd", _signalfd)):  # fmt: skip
        if kind in said and (told := words(info)):
            return f"<{told}>"
    device = info.get("device") if "dev" in said else None
    if isinstance(device, str):
        index = info.get("tty-index")
        pts = f" @/dev/pts/{index}" if isinstance(index, int) and index >= 0 else ""
        return f"<{escaped(text)}<{escaped(device)}{pts}>>"
    if "path" not in said and _kind(text) not in said:
        return ""
    gone = text.startswith("/") and text.endswith(_DELETED)
    return f"<{escaped(text.removesuffix(_DELETED))}>(deleted)" if gone else f"<{escaped(text)}>"


def _kind(path: str) -> str:
    """The word of which path strace tells where it finds nothing better."""
    if path.startswith("socket:["):
        return "socket"
    if path.startswith("pidfd:") or path == "anon_inode:[pidfd]":
        return "pidfd"
    return "eventfd" if path == "anon_inode:[eventfd]" else ""


def _socket(info: dict[str, int | str]) -> str:
    words, path = info.get("socket"), info.get("socket_path")
    if not isinstance(words, str):
        return ""
    if isinstance(path, str) and words.endswith("]"):
        name = path.removeprefix("@").encode("utf-8", "surrogateescape").partition(b"\0")[0]
        at = "@" if path.startswith("@") else ""
        return f"{escaped(words[:-1], '')},{at}{quoted(name)}]"
    return escaped(words, "")


def _eventfd(info: dict[str, int | str]) -> str:
    count = info.get("eventfd-count")
    if not isinstance(count, str) or not count:
        return ""
    fields = f"eventfd-count={'' if count.startswith('0') else '0x'}{escaped(count)}"
    for name in ("eventfd-id", "eventfd-semaphore"):
        number = info.get(name)
        if not isinstance(number, int) or number < 0:
            break
        fields += f", {name}={number}"
    return f"{{{fields}}}"


def _pidfd(info: dict[str, int | str]) -> str:
    pid = info.get("Pid")
    return f"pid:{pid}" if isinstance(pid, int) and pid > 0 else ""


def _signalfd(info: dict[str, int | str]) -> str:
    mask = info.get("sigmask")
    if not isinstance(mask, str) or not _MASK.fullmatch(mask):
        return ""
    return f"signalfd:{signal_set(int(mask, 16))}"


def signal_set(mask: int) -> str:
    """A set of signals as strace has it: ``[INT USR1]``, or without which few it is all."""
    found = [number for number in range(1, 65) if mask >> (number - 1) & 1]
    missing = len(found) >= 64 * 2 // 3
    if missing:
        found = [number for number in range(1, 65) if not mask >> (number - 1) & 1]
    names = " ".join(signal_name(number).removeprefix("SIG") for number in found)
    return f"{'~' if missing else ''}[{names}]"


def escaped(text: str, brackets: str = "<>") -> str:
    """A path between <>: what does not print, quotes and ``brackets`` themselves as octal."""
    data = text.encode("utf-8", "surrogateescape")
    return octal(data, brackets)
