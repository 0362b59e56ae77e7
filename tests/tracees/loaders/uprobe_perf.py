"""A uprobe and a uretprobe through the uprobe PMU: perf_event_open, SET_BPF, ENABLE."""

from fcntl import ioctl

from _common import (
    PERF_EVENT_IOC_DISABLE,
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    Kit,
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
    prog = kit.prog("KPROBE", counting(calls), "on_getppid")
    kind = pmu("uprobe")
    path, offset = libc_function("getppid")
    events = []
    for retprobe in (0, 1):  # config bit 0, as the PMU's format/retprobe says
        event = perf_event(kind, retprobe, text=path.encode(), config2=offset)
        ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)
        ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
        events.append({"fd": event, "retprobe": bool(retprobe)})
    for _ in range(3):
        libc.getppid()
    ioctl(events[1]["fd"], PERF_EVENT_IOC_DISABLE, 0)
    kit.say(path=path, offset=offset, pmu=kind, events=events, hits=count(calls))


run(work)
