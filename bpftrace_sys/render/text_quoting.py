"""Bytes and strings of the tracee, quoted for a terminal."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.targets import printable

_QUOTE: Final = {
    **{byte: f"\\x{byte:02x}" for byte in range(256) if byte < 32 or byte > 126},
    ord("\n"): "\\n",
    ord("\t"): "\\t",
    ord("\r"): "\\r",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
_QUOTED: Final = tuple(_QUOTE.get(byte, chr(byte)) for byte in range(256))
_PRINTABLE: Final = frozenset(range(32, 127))


def quoted(data: bytes, limit: int, whole: bool = True) -> str:
    """A C string literal; ``...`` follows where more was there."""
    shown = data[:limit]
    try:
        # Names in other scripts stay readable; control characters do not.
        text = shown.decode("utf-8")
        body = (
            text.translate(_QUOTE)
            if text.isascii()
            else "".join(
                _QUOTED[ord(char)] if ord(char) < 128 else printable(char) for char in text
            )
        )
    except UnicodeDecodeError:
        body = "".join(_QUOTED[byte] for byte in shown)
    return f'"{body}"' + ("" if whole and len(data) <= limit else "...")


def octets(data: bytes, limit: int, whole: bool = True) -> str:
    """Bytes: as a string where they are one, else in hex."""
    # A string has three letters; the third byte of most numbers is none.
    if len(data) > 2 and 31 < data[2] < 127:
        stripped = data.rstrip(b"\0")
        if stripped.isascii() and _PRINTABLE.issuperset(stripped):
            return quoted(data, limit, whole).replace("\\x00", "\\0")
    if whole and len(data) <= limit:
        return f"[{data.hex(' ')}]"
    return f"[{data[:limit].hex(' ')}]..."
