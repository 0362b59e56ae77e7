# SPDX-License-Identifier: GPL-2.0-only
"""What bpftool shows of the machine at a moment, by its JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, Final

BPFTOOL: Final = os.environ.get("BPFTOOL", "bpftool")
"""Another one than PATH's: a newer one knows more types of links."""
LIMIT: Final = 120
TRIES: Final = 5
Facts = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where bpftool shows a program attached."""

    prog: int
    how: str
    """perf, link, net, cgroup: the subcommand that showed it."""
    entry: Facts

    def __str__(self) -> str:
        shown = {key: value for key, value in self.entry.items() if key not in ("prog_id", "id")}
        return f"{self.how} show {json.dumps(shown)}"


@dataclass
class View:
    """All of it; objects by their ids."""

    begin: int = 0
    """Nanoseconds since the epoch: between these two all was asked."""
    end: int = 0
    progs: dict[int, Facts] = field(default_factory=dict)
    maps: dict[int, Facts] = field(default_factory=dict)
    links: dict[int, Facts] = field(default_factory=dict)
    btfs: dict[int, Facts] = field(default_factory=dict)
    perf: list[Facts] = field(default_factory=list)
    net: Facts = field(default_factory=dict)
    cgroups: list[Facts] = field(default_factory=list)

    def of(self, kind: str) -> dict[int, Facts]:
        """Objects of a kind: prog, map, link or btf."""
        found: dict[int, Facts] = getattr(self, f"{kind}s", {})
        return found

    def places(self) -> list[Place]:
        """Where programs are attached, as far as bpftool can see."""
        found = [Place(entry["prog_id"], "perf", entry) for entry in self.perf]
        found += [
            Place(entry["prog_id"], "link", entry)
            for entry in self.links.values()
            if entry.get("prog_id") and not detached(entry)
        ]
        for what, entries in self.net.items():
            for entry in entries if isinstance(entries, list) else ():
                number = entry.get("id") or entry.get("prog_id")
                if number:
                    found.append(Place(number, "net", {"what": what, **entry}))
        for group in self.cgroups:
            found += [
                Place(entry["id"], "cgroup", {"cgroup": group.get("cgroup"), **entry})
                for entry in group.get("programs", ())
            ]
        return found


def detached(link: Facts) -> bool:
    """Whether a link is on nothing any more: its target is 0."""
    return any(link.get(target) == 0 for target in ("cgroup_id", "ifindex", "netns_ino"))


def bpftool(*words: str, pid: int | None = None) -> Any:
    """``bpftool -j WORDS``, [] if refused; ``pid``: in whose network namespace."""
    enter = [] if pid is None else ["nsenter", "--net", "--target", str(pid)]
    for _ in range(TRIES):
        done = subprocess.run(
            [*enter, BPFTOOL, "-j", *words],
            capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT,
        )  # fmt: skip
        if not done.returncode:
            break  # else an object went while it was asked for, mostly
    # bpftool 7.1 forgets the braces of what is in here.
    text = re.sub(r'\["id":(\d+)\]', r'[{"id":\1}]', done.stdout)
    try:
        found = json.loads(text) if text.strip() else []
    except ValueError:
        return []
    return [] if isinstance(found, dict) and "error" in found else found


def look(pid: int | None = None) -> View:
    """Asks for everything; ``pid``: whose network devices, if it is there still."""
    if pid is not None and not os.path.exists(f"/proc/{pid}/ns"):
        pid = None
    view = View(begin=time.time_ns())
    for kind in ("prog", "map", "link", "btf"):
        pins = ["-f"] if kind != "btf" else []
        shown = bpftool(*pins, kind, "show", pid=pid)  # links tell devices by name
        view.of(kind).update({entry["id"]: entry for entry in shown if "id" in entry})
    view.perf = [entry for entry in bpftool("perf", "show") if "prog_id" in entry]
    net = bpftool("net", "show", pid=pid)
    view.net = net[0] if net else {}
    view.cgroups = list(bpftool("cgroup", "tree"))
    view.end = time.time_ns()
    return view
