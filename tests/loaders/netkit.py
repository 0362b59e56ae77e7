"""A program on the primary end of a netkit pair."""

from _common import Kit, new_device, own_net, returning, run


def work(kit: Kit) -> None:
    own_net()
    prog = kit.prog("SCHED_CLS", returning(0), "nk_pass", "NETKIT_PRIMARY")
    with kit.may_be_refused("netkit device"):
        kit.link("NETKIT_PRIMARY", prog, new_device("netkit", "nk0"), "relative")


run(work)
