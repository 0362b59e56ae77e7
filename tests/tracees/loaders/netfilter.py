"""A netfilter link: IPv4, local input, at priority -128."""

from _common import Kit, own_net, returning, run

NF_ACCEPT, NFPROTO_IPV4, NF_INET_LOCAL_IN = 1, 2, 1


def work(kit: Kit) -> None:
    own_net()
    prog = kit.prog("NETFILTER", returning(NF_ACCEPT), "nf_accept", "NETFILTER")
    kit.link(
        "NETFILTER", prog, extra="netfilter", pf=NFPROTO_IPV4, hooknum=NF_INET_LOCAL_IN,
        priority=-128,
    )  # fmt: skip


run(work)
