"""The flow dissector of a network namespace: PROG_ATTACH, PROG_QUERY, PROG_DETACH, then a link."""

import os

from _common import ATTACH, Kit, buffer, call, own_net, returning, run


def work(kit: Kit) -> None:
    own_net()
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    kind = ATTACH["FLOW_DISSECTOR"]
    prog = kit.prog("FLOW_DISSECTOR", returning(0), "dissect", "FLOW_DISSECTOR")
    call("PROG_ATTACH", attach_bpf_fd=prog, attach_type=kind)
    ids = buffer(8)
    reply = call("PROG_QUERY", target_fd=namespace, attach_type=kind, prog_ids=ids, count=2)
    kit.say(queried=list(memoryview(ids.raw[: 4 * reply["count"]]).cast("I")))
    call("PROG_DETACH", attach_bpf_fd=prog, attach_type=kind)
    kit.link("FLOW_DISSECTOR", prog, namespace)
    kit.say(netns_ino=os.fstat(namespace).st_ino)


run(work)
