"""One link on several kernel functions by name: LINK_CREATE with TRACE_KPROBE_MULTI."""

from _common import Kit, many, returning, run, u64s

FUNCTIONS = {"do_sys_openat2": 11, "vfs_read": 22}


def work(kit: Kit) -> None:
    prog = kit.prog("KPROBE", returning(0), "on_any", "TRACE_KPROBE_MULTI")
    names, keep = many([name.encode() for name in FUNCTIONS])
    kit.say(functions=FUNCTIONS)
    kit.link(
        "TRACE_KPROBE_MULTI", prog, extra="multi", syms=names,
        cookies=u64s(*FUNCTIONS.values()), cnt=len(keep),
    )  # fmt: skip


run(work)
