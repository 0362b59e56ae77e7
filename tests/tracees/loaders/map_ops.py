"""Every operation on elements: of a hash, array, percpu array, queue, LPM trie; batches; freeze."""

import socket
import struct
from pathlib import Path

from _common import Kit, buffer, call, run, u32s, u64s

BPF_NOEXIST = 1


def number(data: bytes) -> int:
    """A little-endian number."""
    return int.from_bytes(data, "little")


def hash_map(kit: Kit) -> None:
    """Update, lookup, next key, delete, lookup and delete; what is there twice or not at all."""
    table = kit.map("HASH", 4, 8, 16, "table")
    for key in range(3):
        call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(key), value=u64s(key * key))
    value, following = buffer(8), buffer(4)
    call("MAP_LOOKUP_ELEM", map_fd=table, key=u32s(2), value=value)
    seen, key = [], None
    with kit.may_be_refused("next key behind the last"):
        while True:
            call("MAP_GET_NEXT_KEY", map_fd=table, key=key or 0, value=following)
            key = following.raw
            seen.append(number(key))
    call("MAP_DELETE_ELEM", map_fd=table, key=u32s(0))
    taken = buffer(8)
    call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=table, key=u32s(1), value=taken)
    kit.say(looked_up=number(value.raw), keys=sorted(seen), taken=number(taken.raw))
    with kit.may_be_refused("lookup of an absent key"):
        call("MAP_LOOKUP_ELEM", map_fd=table, key=u32s(99), value=value)
    with kit.may_be_refused("update of a key that exists, NOEXIST"):
        call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(2), value=value, flags=BPF_NOEXIST)
    with kit.may_be_refused("update without room"):
        small = kit.map("HASH", 4, 8, 1, "small")
        for key in range(2):
            call("MAP_UPDATE_ELEM", map_fd=small, key=u32s(key), value=u64s(0))


def batches(kit: Kit) -> None:
    """Update, lookup, lookup-and-delete and delete, eight elements at a time."""
    table = kit.map("HASH", 4, 8, 16, "batches")
    keys, values = u32s(*range(8)), u64s(*range(100, 108))
    call("MAP_UPDATE_BATCH", map_fd=table, keys=keys, values=values, count=8)
    where = buffer(4)
    some = {"keys": buffer(64), "values": buffer(128), "out_batch": where}
    with kit.may_be_refused("lookup batch to the end"):  # ENOENT: that was all; count is valid
        call("MAP_LOOKUP_BATCH", map_fd=table, count=16, **some)
    found = struct.unpack("<8Q", some["values"].raw[:64])
    call("MAP_DELETE_BATCH", map_fd=table, keys=keys, count=4)
    with kit.may_be_refused("lookup and delete batch to the end"):
        call("MAP_LOOKUP_AND_DELETE_BATCH", map_fd=table, count=16, **some)
    left = struct.unpack("<4I", some["keys"].raw[:16])
    kit.say(batch=sorted(found), left=sorted(left))


def others(kit: Kit) -> None:
    """The other kinds, each in its own way."""
    array = kit.map("ARRAY", 4, 8, 4, "array")
    call("MAP_UPDATE_ELEM", map_fd=array, key=u32s(3), value=u64s(33))
    with kit.may_be_refused("delete from an array"):
        call("MAP_DELETE_ELEM", map_fd=array, key=u32s(3))
    with kit.may_be_refused("update beyond an array"):
        call("MAP_UPDATE_ELEM", map_fd=array, key=u32s(4), value=u64s(0))
    call("MAP_FREEZE", map_fd=array)
    with kit.may_be_refused("update of a frozen map"):
        call("MAP_UPDATE_ELEM", map_fd=array, key=u32s(0), value=u64s(0))

    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split("-")[-1]
    cpus = int(last) + 1
    percpu = kit.map("PERCPU_ARRAY", 4, 4, 1, "percpu")
    values = buffer(8 * cpus)  # each rounded up to 8 bytes
    call("MAP_UPDATE_ELEM", map_fd=percpu, key=u32s(0), value=u64s(*range(1, cpus + 1)))
    call("MAP_LOOKUP_ELEM", map_fd=percpu, key=u32s(0), value=values)
    kit.say(cpus=cpus, percpu=list(struct.unpack(f"<{cpus}Q", values.raw)))

    queue = kit.map("QUEUE", 0, 8, 4, "queue")
    for item in (7, 8):
        call("MAP_UPDATE_ELEM", map_fd=queue, value=u64s(item))
    value = buffer(8)
    call("MAP_LOOKUP_ELEM", map_fd=queue, value=value)
    peeked = number(value.raw)
    call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=queue, value=value)
    call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=queue, value=value)
    kit.say(queue=[peeked, number(value.raw)])

    trie = kit.map("LPM_TRIE", 8, 4, 8, "trie", map_flags=1)  # BPF_F_NO_PREALLOC
    for prefix, bits in (("10.0.0.0", 8), ("10.1.0.0", 16)):
        key = u32s(bits) + socket.inet_aton(prefix)
        call("MAP_UPDATE_ELEM", map_fd=trie, key=key, value=u32s(bits))
    answer = buffer(4)
    call("MAP_LOOKUP_ELEM", map_fd=trie, key=u32s(32) + socket.inet_aton("10.1.2.3"), value=answer)
    kit.say(trie=number(answer.raw))


def work(kit: Kit) -> None:
    hash_map(kit)
    batches(kit)
    others(kit)


run(work)
