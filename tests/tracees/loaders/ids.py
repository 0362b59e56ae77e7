"""Objects by their ids: *_GET_NEXT_ID over all of them, *_GET_FD_BY_ID of our own."""

from _common import (
    Btf,
    Kit,
    btf_facts,
    call,
    link_facts,
    map_facts,
    own_cgroup,
    prog_facts,
    returning,
    run,
)

FACTS = {"PROG": prog_facts, "MAP": map_facts, "BTF": btf_facts, "LINK": link_facts}


def work(kit: Kit) -> None:
    prog = kit.prog("CGROUP_SKB", returning(1), "by_id")
    cgroup, _ = own_cgroup(kit, "ids")
    fds = {
        "PROG": prog,
        "MAP": kit.map("ARRAY", 4, 8, 1, "by_id"),
        "BTF": kit.btf(Btf().blob()),
        "LINK": kit.link("CGROUP_INET_INGRESS", prog, cgroup),
    }
    got, seen = {}, {}
    for kind, fd in fds.items():
        number = FACTS[kind](fd)["id"]
        got[kind] = FACTS[kind](call(f"{kind}_GET_FD_BY_ID", start_id=number, size=12).ret)
        # From a little below our own, so that it does not take long, to the end.
        at, seen[kind] = max(number - 3, 0), False
        with kit.may_be_refused(f"{kind}_GET_NEXT_ID behind the last"):
            while True:
                at = call(f"{kind}_GET_NEXT_ID", start_id=at)["next_id"]
                seen[kind] |= at == number
    kit.say(got=got, seen=seen)
    with kit.may_be_refused("PROG_GET_FD_BY_ID of none"):
        call("PROG_GET_FD_BY_ID", start_id=0x7FFFFFFF)


run(work)
