"""Bytes and strings of the tracee, quoted for a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.targets import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

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
_STRING: Final = re.compile(rb"[ -~]{3}")
"""Stands somewhere in what is shown as a string."""


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


def _is_string(data: bytes) -> bool:
    # A string has three letters; the third byte of most numbers is none.
    if len(data) > 2 and 31 < data[2] < 127:
        stripped = data.rstrip(b"\0")
        return stripped.isascii() and _PRINTABLE.issuperset(stripped)
    return False


def any_string(column: Sequence[bytes]) -> bool:
    """Whether :func:`octets` shows one of these as a string."""
    return _STRING.search(b"\0".join(column)) is not None and any(map(_is_string, column))


def many_octets(column: Sequence[bytes], limit: int) -> list[str]:
    """As :func:`octets` of each of these pieces, which are no strings and of one size."""
    if len(column[0]) <= limit:
        return [f"[{data.hex(' ')}]" for data in column]
    return [f"[{data[:limit].hex(' ')}]..." for data in column]


def octets(data: bytes, limit: int, whole: bool = True) -> str:
    """Bytes: as a string where they are one, else in hex."""
    if _is_string(data):
        return quoted(data, limit, whole).replace("\\x00", "\\0")
    if whole and len(data) <= limit:
        return f"[{data.hex(' ')}]"
    return f"[{data[:limit].hex(' ')}]..."
