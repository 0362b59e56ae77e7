"""A stream parser on a KCM socket: ioctl SIOCKCMATTACH."""

import socket
import struct
from fcntl import ioctl

from _common import Kit, Refused, own_net, returning, run

AF_KCM, KCMPROTO_CONNECTED, SIOCKCMATTACH = 41, 0, 0x89E0


def work(kit: Kit) -> None:
    own_net()
    parser = kit.prog("SOCKET_FILTER", returning(8), "parse_length")
    try:
        kcm = socket.socket(AF_KCM, socket.SOCK_DGRAM, KCMPROTO_CONNECTED)
    except OSError as err:
        raise Refused("socket(AF_KCM)", err.errno or 0) from None
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()  # a connection that is not taken is closed with the server
    ioctl(kcm, SIOCKCMATTACH, struct.pack("<ii", client.fileno(), parser))
    kit.say(kcm=kcm.fileno(), tcp=client.fileno())
    kit.at_end.callback(client.close)
    kit.at_end.callback(peer.close)
    kit.at_end.callback(kcm.close)


run(work)
