"""bpf(cmd | BPF_COMMON_ATTRS) with its two more arguments: a log for a map that cannot be."""

import ctypes
import struct

from _common import CMD, MAP, Kit, buffer, run, syscall

BPF_COMMON_ATTRS = 1 << 16


def work(kit: Kit) -> None:
    log = buffer(4096)
    common = struct.pack("<QIIII", ctypes.addressof(log), len(log), 1, 0, 0)
    good = struct.pack("<4I", MAP["ARRAY"], 4, 8, 1)
    bad = struct.pack("<4I", MAP["ARRAY"], 8, 8, 1)  # an array's key has 4 bytes
    for name, attr in (("good", good), ("bad", bad)):
        with kit.may_be_refused(name):
            command = CMD["MAP_CREATE"] | BPF_COMMON_ATTRS
            kit.say(fd=syscall("bpf", command, attr, len(attr), common, len(common)))
    kit.say(log=log.value.decode())


run(work)
