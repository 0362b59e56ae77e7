"""Which of a tracee's fds are route netlink sockets."""

from __future__ import annotations

import os
from typing import Final

NETLINK_ROUTE: Final = "0"


class Sockets:
    """Tells route netlink sockets from others, by /proc/TID/net/netlink."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def is_route(self, tid: int, fd: int) -> bool:
        """Whether an fd of a thread is a route netlink socket."""
        try:
            link = os.readlink(f"/proc/{tid}/fd/{fd}")
        except OSError:
            return False
        if not link.startswith("socket:["):
            return False
        known = self._known.get(link)
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            known = self._known[link] = link[8:-1] in _route_inodes(tid)
        return known


def _route_inodes(tid: int) -> set[str]:
    """Inodes of the route netlink sockets of a thread's network namespace."""
    try:
        with open(f"/proc/{tid}/net/netlink", encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return set()
    # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    return {row[9] for row in rows if len(row) >= 10 and row[1] == NETLINK_ROUTE}
