"""A link on a network namespace: sk_lookup."""

import os

from _common import Kit, own_net, returning, run

SK_PASS = 1


def work(kit: Kit) -> None:
    own_net()
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    prog = kit.prog("SK_LOOKUP", returning(SK_PASS), "choose_socket", "SK_LOOKUP")
    kit.link("SK_LOOKUP", prog, namespace)
    kit.say(netns=namespace, netns_ino=os.fstat(namespace).st_ino)


run(work)
