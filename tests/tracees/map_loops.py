"""Loops over maps, and all that may change between two rounds: maps, memory, names, results."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
CREATE, LOOKUP, UPDATE, DELETE, NEXT, FREEZE = 0, 1, 2, 3, 4, 22
HASH, ARRAY, LPM_TRIE = 1, 2, 11
PAGE = mmap.PAGESIZE
PROT_NONE, READ, WRITE = 0, 1, 2

# Private: what is shared, two processes would write to at the same time.
pages = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
START = ctypes.addressof(ctypes.c_char.from_buffer(pages))
FAR = START + 3 * PAGE
"""The begin of a page that other places do not share, and its neighbour's end."""
ATTR, KEY, VALUE = FAR - 512, FAR - 256, FAR - 128


def bpf(command: int, attr: bytes, at: int = ATTR) -> int:
    """The call, with its attr at that place."""
    ctypes.memmove(at, attr, len(attr))
    return libc.syscall(BPF, command, ctypes.c_void_p(at), len(attr))


def a_map(name: bytes, kind: int = HASH, key: int = 4, entries: int = 64, flags: int = 0) -> int:
    made = bpf(CREATE, struct.pack("<5I8x16s20x", kind, key, 8, entries, flags, name))
    if made < 0:
        sys.exit(f"no map {name.decode()}: {os.strerror(ctypes.get_errno())}")
    return made


def element(
    command: int, fd: int, key: int = 0, value: int = 0, *, at_key: int = KEY, at_value: int = VALUE
) -> int:
    """One call on an element; ``key`` and ``value``: what stands there before."""
    if at_key != FAR:
        ctypes.memmove(at_key, struct.pack("<I", key), 4)
    if at_value != FAR:
        ctypes.memmove(at_value, struct.pack("<Q", value), 8)
    at_value = 0 if command == DELETE else at_value
    return bpf(command, struct.pack("<I4xQQQ", fd, at_key, at_value, 0))


def protect(at: int, rights: int) -> None:
    assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(PAGE), rights) == 0


def all_commands(fd: int) -> None:
    """A hash map, filled, read, walked and emptied; keys that are not there."""
    for number in range(12):
        element(UPDATE, fd, number, number * number)
    for number in range(20):
        element(LOOKUP, fd, number)
    for number in range(20):
        element(NEXT, fd, number)
    for number in range(20):
        element(DELETE, fd, number)


def another_map_of_that_number() -> None:
    """The fd is another map's, then this one's again."""
    fd = a_map(b"first")
    for command in (UPDATE, LOOKUP, UPDATE, LOOKUP):
        for number in range(4):
            element(command, fd, number, 7)
    kept = os.dup(fd)
    other = a_map(b"second")
    for now in (other, kept, other):
        os.dup2(now, fd)
        for number in range(2):
            for command in (LOOKUP, UPDATE):
                element(command, fd, number, 8)
    os.close(other)
    os.dup2(a_map(b"third", ARRAY), fd)
    for number in range(4):
        element(UPDATE, fd, number, 9)
    os.close(fd)
    element(UPDATE, fd)
    os.close(kept)


def two_maps_in_turn() -> None:
    """From the same place, with the same registers."""
    one, other = a_map(b"one"), a_map(b"other")
    for number in range(8):
        element(UPDATE, one, number, 1)
        element(UPDATE, other, number, 2)


def memory_that_comes_and_goes(fd: int) -> None:
    """The kernel may not read a key; neither may we say what stands there. Nor write a value."""
    ctypes.memmove(FAR, struct.pack("<Q", 5), 8)
    for command in (UPDATE, LOOKUP, DELETE, LOOKUP):
        for rights in (READ | WRITE, READ, PROT_NONE, READ | WRITE, PROT_NONE):
            protect(FAR, rights)
            for _ in range(4):
                element(command, fd, at_key=FAR)
    protect(FAR, READ | WRITE)
    element(UPDATE, fd, 1, 1)
    for rights in (READ | WRITE, READ, READ | WRITE, PROT_NONE, READ):
        protect(FAR, rights)
        for _ in range(4):
            element(LOOKUP, fd, 1, at_value=FAR)
            element(UPDATE, fd, 1, at_value=FAR)
    libc.munmap(ctypes.c_void_p(FAR), ctypes.c_size_t(PAGE))
    for _ in range(3):
        element(LOOKUP, fd, 1, at_value=FAR)
        element(UPDATE, fd, 1, at_key=FAR)


def far_apart(fd: int) -> None:
    """Attr, key and value on pages of their own."""
    for number in range(6):
        element(UPDATE, fd, number, 3, at_key=START + PAGE + 8, at_value=START + 2 * PAGE + 16)
        element(LOOKUP, fd, number, at_key=START + PAGE + 8, at_value=START + 2 * PAGE + 16)
        # And one upon the other.
        element(UPDATE, fd, number, 4, at_key=KEY, at_value=KEY + 2)
        element(UPDATE, fd, number, 4, at_key=ATTR + 8, at_value=VALUE)


def maps_that_change() -> None:
    """fdinfo says more memory with each element, and in the end that it is frozen."""
    fd = a_map(b"grows", LPM_TRIE, 8, 4096, 1)
    for number in range(100):
        ctypes.memmove(KEY, struct.pack("<II", 32, number << 8), 8)
        ctypes.memmove(VALUE, bytes(8), 8)
        bpf(UPDATE, struct.pack("<I4xQQQ", fd, KEY, VALUE, 0))
    fd = a_map(b"grows", LPM_TRIE, 8, 4096, 1)
    for number in range(8):
        for command, there in (*[(LOOKUP, 1)] * 4, (UPDATE, 0), (LOOKUP, 0), (LOOKUP, 1)):
            ctypes.memmove(KEY, struct.pack("<II", 32, 2 * number + there), 8)
            bpf(command, struct.pack("<I4xQQQ", fd, KEY, VALUE, 0))
    fd = a_map(b"frozen")
    for number in range(4):
        element(UPDATE, fd, number)
    bpf(FREEZE, struct.pack("<I", fd))
    for number in range(4):
        element(UPDATE, fd, number)


def names(fd: int) -> None:
    """The thread's."""
    for name in (b"one", b"two", b"one"):
        libc.prctl(15, ctypes.c_char_p(name))  # PR_SET_NAME
        for number in range(4):
            element(UPDATE, fd, number, 1)


def full() -> None:
    """Results that change in a loop."""
    fd = a_map(b"small", entries=4)
    for number in range(12):
        element(UPDATE, fd, number % 7, number)
    for number in range(8):
        bpf(UPDATE, struct.pack("<I4xQQQ", fd, KEY, VALUE, number % 3))


def children(fd: int) -> None:
    """Another process with the same addresses, and its own memory there."""
    for number in range(3):
        element(UPDATE, fd, number, 1)
    child = os.fork()
    for number in range(4):
        element(UPDATE, fd, number, 2 if child else 3)
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    fd = a_map(b"plain")
    all_commands(fd)
    another_map_of_that_number()
    two_maps_in_turn()
    far_apart(fd)
    maps_that_change()
    names(fd)
    full()
    children(fd)
    memory_that_comes_and_goes(fd)


main()
