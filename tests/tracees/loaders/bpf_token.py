"""A BPF token: a bpffs delegated to a user namespace, and a map made there with the token."""

import ctypes
import os
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

from _common import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MAP,
    Kit,
    call,
    errno_name,
    info,
    map_facts,
    mount,
    run,
    start_child,
    syscall,
    unshare,
)

FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 6
BPF_F_NO_PREALLOC, BPF_F_TOKEN_FD = 1, 1 << 16
DELEGATED = {"delegate_cmds": "any", "delegate_maps": "any", "delegate_progs": "any"}


def text(value: str) -> ctypes.c_char_p:
    """For syscall()."""
    return ctypes.c_char_p(value.encode())


def refused_here(kit: Kit) -> None:
    """In the first user namespace nobody needs tokens, and nobody gets one."""
    place = Path(tempfile.mkdtemp(prefix="bpfstrace-"))
    kit.at_end.callback(place.rmdir)
    mount(kit, "bpf", place)
    with kit.may_be_refused("TOKEN_CREATE in the first user namespace"):
        call("TOKEN_CREATE", bpffs_fd=os.open(place, os.O_RDONLY | os.O_DIRECTORY))


def work(kit: Kit) -> None:
    refused_here(kit)
    ours, theirs = socket.socketpair()

    def child() -> dict[str, Any]:
        """In a user namespace of its own: what it may not do without the token, it may with it."""
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        bpffs = syscall("fsopen", text("bpf"), 0)
        socket.send_fds(theirs, [b"bpffs"], [bpffs])
        theirs.recv(1)  # the parent has configured it
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=syscall("fsmount", bpffs, 0, 0))
        token = call("TOKEN_CREATE", bpffs_fd=root).ret
        allowed = struct.unpack("<4Q", info(token, 32))
        # An LPM trie needs CAP_BPF, here or in the first user namespace.
        what = {"map_type": MAP["LPM_TRIE"], "key_size": 8, "value_size": 8, "max_entries": 1}
        without = 0
        try:
            call("MAP_CREATE", map_name=b"without", map_flags=BPF_F_NO_PREALLOC, **what)
        except OSError as err:
            without = err.errno or 0
        made = call(
            "MAP_CREATE", map_name=b"with_token", map_token_fd=token,
            map_flags=BPF_F_NO_PREALLOC | BPF_F_TOKEN_FD, **what,
        ).ret  # fmt: skip
        return {
            "token": token,
            "allowed_progs": hex(allowed[2]),
            "without": errno_name(without),
            "map": map_facts(made),
        }

    answer = start_child(child)
    _, (bpffs,), _, _ = socket.recv_fds(ours, 16, 1)
    for name, value in DELEGATED.items():
        syscall("fsconfig", bpffs, FSCONFIG_SET_STRING, text(name), text(value), 0)
    syscall("fsconfig", bpffs, FSCONFIG_CMD_CREATE, None, None, 0)
    ours.send(b".")
    kit.say(child=answer())


run(work)
