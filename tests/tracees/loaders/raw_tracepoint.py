"""Raw tracepoints: RAW_TRACEPOINT_OPEN by name, by BTF id, and LINK_CREATE with TRACE_RAW_TP."""

import os

from _common import Kit, asm, call, count, counting, link_facts, run


def work(kit: Kit) -> None:
    calls = kit.map("ARRAY", 4, 8, 1, "calls")
    by_name = kit.prog("RAW_TRACEPOINT", counting(calls), "by_name")
    link = call("RAW_TRACEPOINT_OPEN", name=b"sys_enter\0", prog_fd=by_name, size=16).ret
    kit.add("links", link_facts(link))
    with kit.may_be_refused("RAW_TRACEPOINT_OPEN with a cookie"):
        link = call("RAW_TRACEPOINT_OPEN", name=b"sys_exit\0", prog_fd=by_name, cookie=0xC00C1E).ret
        kit.add("links", link_facts(link))
    os.getppid()
    kit.say(ran=count(calls) > 0)

    number = asm.vmlinux_ids("typedef")["btf_trace_sched_switch"]
    by_id = kit.prog("TRACING", counting(calls), "by_id", "TRACE_RAW_TP", attach_btf_id=number)
    kit.say(attach_btf_id=number, attach_btf_name="btf_trace_sched_switch")
    with kit.may_be_refused("RAW_TRACEPOINT_OPEN by BTF id"):
        link = call("RAW_TRACEPOINT_OPEN", prog_fd=by_id).ret
        kit.add("links", link_facts(link))
    other = kit.prog("TRACING", counting(calls), "by_link", "TRACE_RAW_TP", attach_btf_id=number)
    with kit.may_be_refused():
        kit.link("TRACE_RAW_TP", other, extra="tracing", cookie=0xB1FFEE)


run(work)
