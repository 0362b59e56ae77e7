"""tcx on lo: two links in an order, and PROG_ATTACH, PROG_QUERY, PROG_DETACH."""

from _common import ATTACH, LO, Kit, buffer, call, own_net, returning, run

BPF_F_BEFORE = 1 << 3
TCX_NEXT = -1


def query(attach: str) -> tuple[int, int, bytes]:
    """How many programs, which revision, and the programs' ids."""
    ids = buffer(32)
    reply = call("PROG_QUERY", target_fd=LO, attach_type=ATTACH[attach], prog_ids=ids, count=8)
    return reply["count"], reply["revision"], ids.raw[: 4 * reply["count"]]


def work(kit: Kit) -> None:
    own_net()
    first = kit.prog("SCHED_CLS", returning(TCX_NEXT), "first", "TCX_INGRESS")
    second = kit.prog("SCHED_CLS", returning(0), "second", "TCX_INGRESS")
    kit.link("TCX_INGRESS", second, LO, "relative")
    kit.link("TCX_INGRESS", first, LO, "relative", flags=BPF_F_BEFORE, relative_fd=second)
    count, revision, ids = query("TCX_INGRESS")
    kit.say(ingress={"count": count, "revision": revision, "ids": list(memoryview(ids).cast("I"))})

    egress = ATTACH["TCX_EGRESS"]
    call("PROG_ATTACH", target_fd=LO, attach_bpf_fd=first, attach_type=egress)
    attached = query("TCX_EGRESS")
    call("PROG_DETACH", target_fd=LO, attach_bpf_fd=first, attach_type=egress)
    kit.say(egress={"attached": attached[0], "detached": query("TCX_EGRESS")[0]})


run(work)
