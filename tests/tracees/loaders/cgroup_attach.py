"""A cgroup: PROG_ATTACH, PROG_QUERY, PROG_DETACH, and a link that is updated and detached."""

from _common import ATTACH, Kit, buffer, call, link_facts, own_cgroup, returning, run, u32s

BPF_F_ALLOW_MULTI, BPF_F_REPLACE = 2, 4


def work(kit: Kit) -> None:
    cgroup, path = own_cgroup(kit, "bpfstrace")
    kit.say(cgroup=str(path), cgroup_id=path.stat().st_ino)

    skb = kit.prog("CGROUP_SKB", returning(1), "egress", "CGROUP_INET_EGRESS")
    where = {"target_fd": cgroup, "attach_type": ATTACH["CGROUP_INET_EGRESS"]}
    call("PROG_ATTACH", attach_bpf_fd=skb, attach_flags=BPF_F_ALLOW_MULTI, **where)
    ids = buffer(32)
    reply = call("PROG_QUERY", prog_ids=ids, count=8, **where)
    kit.say(queried={"ids": list(memoryview(ids.raw[: 4 * reply["count"]]).cast("I"))})
    call("PROG_DETACH", attach_bpf_fd=skb, **where)
    kit.say(left=call("PROG_QUERY", **where)["count"])

    first = kit.prog("CGROUP_SOCK", returning(1), "first", "CGROUP_INET_SOCK_CREATE")
    second = kit.prog("CGROUP_SOCK", returning(1), "second", "CGROUP_INET_SOCK_CREATE")
    link = kit.link("CGROUP_INET_SOCK_CREATE", first, cgroup)
    call("LINK_UPDATE", link_fd=link, new_prog_fd=second, old_prog_fd=first, flags=BPF_F_REPLACE)
    kit.say(updated=link_facts(link)["prog_id"])
    call("LINK_DETACH", link_fd=link)
    kit.say(detached_cgroup_id=link_facts(link)["cgroup_id"])

    revision = call("PROG_QUERY", **where)["revision"]  # 0 before Linux 6.17
    call(
        "PROG_ATTACH", attach_bpf_fd=skb, attach_flags=BPF_F_ALLOW_MULTI,
        expected_revision=revision, **where,
    )  # fmt: skip
    other = kit.prog("CGROUP_SKB", returning(1), "other", "CGROUP_INET_EGRESS")
    with kit.may_be_refused("PROG_ATTACH with an old revision"):
        call(
            "PROG_ATTACH", attach_bpf_fd=other, attach_flags=BPF_F_ALLOW_MULTI,
            expected_revision=max(revision - 1, 1), **where,
        )  # fmt: skip
    kit.say(revision=revision)
    device = kit.prog("CGROUP_DEVICE", returning(1), "device", "CGROUP_DEVICE")
    kit.link("CGROUP_DEVICE", device, cgroup)
    kit.say(effective=call("PROG_QUERY", target_fd=cgroup, attach_type=ATTACH["CGROUP_DEVICE"],
                           query_flags=1, prog_ids=u32s(0, 0), count=2)["count"])  # fmt: skip


run(work)
