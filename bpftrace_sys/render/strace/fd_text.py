"""What an fd is, as -y and -yy have it behind the number."""

from __future__ import annotations

from typing import Final

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


def fd_text(fact: FdFact, said: frozenset[str]) -> str:
    """``<anon_inode:bpf-map>``, ``</etc/passwd>``; nothing where it is not known."""
    path = fact.info.get("path")
    text = path if isinstance(path, str) else _ANONYMOUS.get(fact.kind)
    if text is None:
        return ""
    device = fact.info.get("device") if "dev" in said else None
    return f"<{escaped(text)}{f'<{device}>' if isinstance(device, str) else ''}>"


def escaped(text: str) -> str:
    """A path between <>: what does not print, the quotes and the <> themselves as octal."""
    return "".join(
        chr(code) if 0x20 <= code < 0x7F and chr(code) not in '<>"\\' else _escape(code)
        for code in text.encode("utf-8", "surrogateescape")
    )


def _escape(code: int) -> str:
    return {0x22: '\\"', 0x5C: "\\\\", 9: "\\t", 10: "\\n"}.get(code, f"\\{code:o}")
