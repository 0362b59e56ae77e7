"""One link on several functions: LINK_CREATE with TRACE_UPROBE_MULTI, offsets and cookies."""

import os

from _common import Kit, count, counting, libc, libc_function, run, u64s

FUNCTIONS = {"getppid": 11, "getpgrp": 22, "getegid": 33}


def work(kit: Kit) -> None:
    calls = kit.map("ARRAY", 4, 8, 1, "calls")
    prog = kit.prog("KPROBE", counting(calls), "on_any", "TRACE_UPROBE_MULTI")
    found = {name: libc_function(name) for name in FUNCTIONS}
    path = found["getppid"][0]
    offsets = {name: offset for name, (_, offset) in found.items()}
    kit.say(path=path, offsets=offsets, cookies=FUNCTIONS)
    kit.link(
        "TRACE_UPROBE_MULTI", prog, extra="uprobe_multi",
        path=path.encode() + b"\0", offsets=u64s(*offsets.values()),
        cookies=u64s(*FUNCTIONS.values()), cnt=len(offsets), pid=os.getpid(),
    )  # fmt: skip
    libc.getppid()
    libc.getegid()
    kit.say(hits=count(calls))


run(work)
