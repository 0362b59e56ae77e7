"""A program on the primary end of a netkit pair."""

from _common import Kit, new_device, own_net, returning, run


def work(kit: Kit) -> None:
    own_net()
    prog = kit.prog("SCHED_CLS", returning(0), "nk_pass", "NETKIT_PRIMARY")
    with kit.may_be_refused("netkit device"):
        device = new_device("netkit", "primary")  # the kernel names the peer nk0
        kit.link("NETKIT_PRIMARY", prog, device, "relative")


run(work)
