"""XDP through links: on lo in generic mode, on a veth pair in driver mode; updated once."""

from _common import LO, Kit, call, link_facts, own_net, returning, run, veth

XDP_DROP, XDP_PASS = 1, 2
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE = 2, 4
BPF_F_REPLACE = 4


def work(kit: Kit) -> None:
    own_net()
    first = kit.prog("XDP", returning(XDP_PASS), "xdp_pass")
    second = kit.prog("XDP", returning(XDP_DROP), "xdp_drop")
    generic = kit.link("XDP", first, LO, flags=XDP_FLAGS_SKB_MODE)
    call("LINK_UPDATE", link_fd=generic, new_prog_fd=second, old_prog_fd=first, flags=BPF_F_REPLACE)
    kit.say(updated=link_facts(generic)["prog_id"])
    device = veth("veth_a", "veth_b")
    kit.say(devices={"lo": LO, "veth_a": device})
    kit.link("XDP", first, device, flags=XDP_FLAGS_DRV_MODE)


run(work)
