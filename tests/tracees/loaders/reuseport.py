"""Programs on sockets by setsockopt: SO_ATTACH_BPF, and SO_ATTACH_REUSEPORT_EBPF on a UDP group."""

import socket

from _common import Kit, own_net, returning, run

SO_DETACH_BPF, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_EBPF = 27, 50, 52


def datagram_socket(kit: Kit, port: int) -> socket.socket:
    """One of a group on 127.0.0.1."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    kit.at_end.callback(made.close)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.settimeout(5)
    return made


def work(kit: Kit) -> None:
    own_net()
    accept = kit.prog("SOCKET_FILTER", returning(0xFFFF), "accept_all")
    second = kit.prog("SOCKET_FILTER", returning(1), "take_second")
    first_socket = datagram_socket(kit, 0)
    port = first_socket.getsockname()[1]
    second_socket = datagram_socket(kit, port)
    second_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, accept)
    first_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, second)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"for the second", ("127.0.0.1", port))
    kit.say(
        received=second_socket.recv(64).decode(),
        sockets=[first_socket.fileno(), second_socket.fileno()],
    )
    second_socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_BPF, 0)


run(work)
