"""A BPF link over a perf event of the uprobe PMU, with a cookie, and TASK_FD_QUERY on the event."""

import os

from _common import (
    Kit,
    buffer,
    call,
    count,
    counting,
    libc,
    libc_function,
    perf_event,
    pmu,
    run,
)


def work(kit: Kit) -> None:
    calls = kit.map("ARRAY", 4, 8, 1, "calls")
    prog = kit.prog("KPROBE", counting(calls), "on_getpgrp")
    path, offset = libc_function("getpgrp")
    event = perf_event(pmu("uprobe"), text=path.encode(), config2=offset)
    kit.link("PERF_EVENT", prog, event, "perf_event", bpf_cookie=0xC00C1E)
    libc.getpgrp()
    name = buffer(256)
    answer = call("TASK_FD_QUERY", pid=os.getpid(), fd=event, buf=name, buf_len=len(name))
    kit.say(path=path, offset=offset, events=[{"fd": event}], hits=count(calls))
    kit.say(
        task_fd_query={
            "prog_id": answer["prog_id"],
            "fd_type": answer["fd_type"],
            "name": name.value.decode(),
            "probe_offset": answer["probe_offset"],
        }
    )


run(work)
