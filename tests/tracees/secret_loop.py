"""A loop of map updates, each with a value of its own: ``secret_loop.py COUNT SECRET``."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

MAP_CREATE, MAP_UPDATE_ELEM = 0, 2
ARRAY = 2

_syscall = ctypes.CDLL(None, use_errno=True).syscall
NUMBER = {"x86_64": 321, "aarch64": 280}


def bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    number = NUMBER[os.uname().machine]
    result = int(_syscall(number, command, buffer, len(attr)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


if __name__ == "__main__":
    secret = sys.argv[2].encode()
    fd = bpf(MAP_CREATE, struct.pack("<IIII", ARRAY, 4, len(secret) + 4, 1) + bytes(56))
    key = ctypes.create_string_buffer(4)
    value = ctypes.create_string_buffer(len(secret) + 4)
    places = (ctypes.addressof(key), ctypes.addressof(value))
    for number in range(int(sys.argv[1])):
        value.raw = secret + struct.pack("<I", number)
        bpf(MAP_UPDATE_ELEM, struct.pack("<IIQQQ", fd, 0, *places, 0))
