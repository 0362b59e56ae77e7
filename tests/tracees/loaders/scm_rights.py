"""A map's fd passed over a unix socket to a child, which uses it under another number."""

import os
import socket
from typing import Any

from _common import Kit, call, count, map_facts, run, start_child, u32s, u64s


def work(kit: Kit) -> None:
    ours, theirs = socket.socketpair()

    def child() -> dict[str, Any]:
        for _ in range(3):
            os.open(os.devnull, os.O_RDONLY)
        _, (fd,), _, _ = socket.recv_fds(theirs, 16, 1)
        call("MAP_UPDATE_ELEM", map_fd=fd, key=u32s(0), value=u64s(4242))
        return map_facts(fd)

    answer = start_child(child)  # before there is a map: the child does not inherit it
    shared = kit.map("ARRAY", 4, 8, 4, "passed_on")
    socket.send_fds(ours, [b"map"], [shared])
    kit.say(received=answer(), value=count(shared))


run(work)
