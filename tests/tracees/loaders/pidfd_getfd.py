"""A map's fd taken out of a child with pidfd_getfd(2)."""

import os
from typing import Any

from _common import Kit, asm, call, count, map_facts, run, start_child, syscall, u32s, u64s


def work(kit: Kit) -> None:
    ready, made = os.pipe()
    stay, go = os.pipe()

    def child() -> dict[str, Any]:
        os.close(go)
        fd = asm.map_create("array", 4, 8, 4, name=b"not_given").fd
        os.write(made, fd.to_bytes(4, "little") + os.getpid().to_bytes(4, "little"))
        os.read(stay, 1)
        return {**map_facts(fd), "value": count(fd)}

    answer = start_child(child)
    theirs, pid = (int.from_bytes(os.read(ready, 4), "little") for _ in range(2))
    ours = syscall("pidfd_getfd", syscall("pidfd_open", pid, 0), theirs, 0)
    kit.say(taken=map_facts(ours))
    call("MAP_UPDATE_ELEM", map_fd=ours, key=u32s(0), value=u64s(77))
    os.close(go)
    kit.say(child=answer())


run(work)
