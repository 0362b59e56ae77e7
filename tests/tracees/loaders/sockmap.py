"""Programs on a sockmap: PROG_ATTACH and PROG_DETACH, sockets put into it, and a sockmap link."""

import socket

from _common import ATTACH, Kit, call, own_net, returning, run, u32s, u64s

SK_PASS = 1


def work(kit: Kit) -> None:
    own_net()
    socks = kit.map("SOCKMAP", 4, 8, 4, "socks")
    message = kit.prog("SK_MSG", returning(SK_PASS), "on_message", "SK_MSG_VERDICT")
    stream = kit.prog("SK_SKB", returning(SK_PASS), "on_stream", "SK_SKB_STREAM_VERDICT")
    for prog, attach in ((message, "SK_MSG_VERDICT"), (stream, "SK_SKB_STREAM_VERDICT")):
        call("PROG_ATTACH", target_fd=socks, attach_bpf_fd=prog, attach_type=ATTACH[attach])

    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    call("MAP_UPDATE_ELEM", map_fd=socks, key=u32s(0), value=u64s(client.fileno()))
    client.sendall(b"through on_message")
    kit.say(received=peer.recv(64).decode(), socket=client.fileno())
    kit.at_end.callback(client.close)
    kit.at_end.callback(peer.close)

    where = {"target_fd": socks, "attach_type": ATTACH["SK_SKB_STREAM_VERDICT"]}
    call("PROG_DETACH", attach_bpf_fd=stream, **where)
    kit.say(left=call("PROG_QUERY", **where)["count"])
    with kit.may_be_refused():
        kit.link("SK_SKB_STREAM_VERDICT", stream, socks)


run(work)
