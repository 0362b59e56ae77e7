"""Maps in maps: an array and a hash of arrays, filled with fds, read as ids."""

from _common import Kit, buffer, call, map_facts, run, u32s, u64s


def work(kit: Kit) -> None:
    inner = [kit.map("ARRAY", 4, 8, 2, f"inner_{index}") for index in range(2)]
    ids = {}
    for kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        outer = kit.map(kind, 4, 4, 4, kind.lower()[:15], inner_map_fd=inner[0])
        for index, fd in enumerate(inner):
            call("MAP_UPDATE_ELEM", map_fd=outer, key=u32s(index), value=u32s(fd))
        value = buffer(4)
        call("MAP_LOOKUP_ELEM", map_fd=outer, key=u32s(1), value=value)
        ids[kind] = int.from_bytes(value.raw, "little")
    call("MAP_UPDATE_ELEM", map_fd=inner[1], key=u32s(1), value=u64s(49))
    kit.say(looked_up=ids, inner_ids=[map_facts(fd)["id"] for fd in inner])


run(work)
