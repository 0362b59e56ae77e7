"""A load whose log buffer holds old words: refused before the verifier, then by the verifier."""

import ctypes
import struct

libc = ctypes.CDLL(None, use_errno=True)
NR_BPF, PROG_LOAD = {"x86_64": 321, "aarch64": 280}[__import__("platform").machine()], 5
insns = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xBF, 0x30, 0, 0, 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b"GPL")
log = ctypes.create_string_buffer(4096)
for flags in (1 << 30, 0):
    log.value = b"R9 is stale words of another load\nprocessed 3 insns\n"
    attr = bytearray(144)
    code, words, logged = (ctypes.addressof(buffer) for buffer in (insns, license, log))
    struct.pack_into("<IIQQIIQII", attr, 0, 1, 2, code, words, 1, len(log), logged, 0, flags)
    libc.syscall(NR_BPF, PROG_LOAD, ctypes.create_string_buffer(bytes(attr)), len(attr))
