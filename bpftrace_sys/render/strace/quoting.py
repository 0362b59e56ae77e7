"""Numbers, addresses and strings as strace writes them."""

from __future__ import annotations

import re
from typing import Final


def hexa(value: int) -> str:
    """A number as %#x prints it."""
    return f"{value:#x}" if value else "0"


def address(value: int) -> str:
    """A pointer."""
    return f"{value:#x}" if value else "NULL"


_PLAIN: Final = {
    **{code: chr(code) for code in range(0x20, 0x7F)},
    **{0x22: '\\"', 0x5C: "\\\\", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"},
}
_SHORT: Final = [_PLAIN.get(code, f"\\{code:o}") for code in range(256)]
_LONG: Final = [_PLAIN.get(code, f"\\{code:03o}") for code in range(256)]
_SHORT_ONES: Final = [f"\\{code:o}" for code in range(256)]
_LONG_ONES: Final = [f"\\{code:03o}" for code in range(256)]
_SIMPLE: Final = re.compile(rb"[ !#-\[\]-~]*")


def quoted(data: bytes) -> str:
    """A string in quotes; bytes that do not print as the shortest octal escape."""
    if _SIMPLE.fullmatch(data):
        return f'"{data.decode("ascii")}"'
    last = len(data) - 1
    return '"' + "".join(
        (_LONG if at < last and 0x30 <= data[at + 1] <= 0x37 else _SHORT)[code]
        for at, code in enumerate(data)
    ) + '"'


def octal(data: bytes, besides: str = "") -> str:
    """Bytes without quotes; those that do not print, and those of ``besides``, as octal escapes."""
    last = len(data) - 1
    return "".join(
        (_LONG_ONES if at < last and 0x30 <= data[at + 1] <= 0x37 else _SHORT_ONES)[code]
        if chr(code) in besides
        else (_LONG if at < last and 0x30 <= data[at + 1] <= 0x37 else _SHORT)[code]
        for at, code in enumerate(data)
    )


def hex_quoted(data: bytes) -> str:
    """Bytes in quotes, all of them as hex escapes."""
    return '"' + "".join(f"\\x{code:02x}" for code in data) + '"'


def s32(value: int) -> int:
    """An int of a register's low half."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
