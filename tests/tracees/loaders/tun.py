"""Programs on a tun device by ioctl: TUNSETSTEERINGEBPF and TUNSETFILTEREBPF."""

import os
import struct
from fcntl import ioctl

from _common import Kit, Refused, own_net, returning, run

TUNSETIFF, TUNSETSTEERINGEBPF, TUNSETFILTEREBPF = 0x400454CA, 0x800454E0, 0x800454E1
IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI = 1, 0x100, 0x1000


def work(kit: Kit) -> None:
    own_net()
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as err:
        raise Refused("/dev/net/tun", err.errno or 0) from None
    flags = IFF_TUN | IFF_MULTI_QUEUE | IFF_NO_PI
    ioctl(device, TUNSETIFF, struct.pack("<16sH22x", b"bpfstrace%d", flags))
    steer = kit.prog("SOCKET_FILTER", returning(0), "steer")
    keep = kit.prog("SOCKET_FILTER", returning(0xFFFF), "keep_all")
    for request, prog in ((TUNSETSTEERINGEBPF, steer), (TUNSETFILTEREBPF, keep)):
        ioctl(device, request, struct.pack("<i", prog))
    kit.say(device="bpfstrace0", tun=device)
    ioctl(device, TUNSETSTEERINGEBPF, struct.pack("<i", -1))  # taken away again


run(work)
