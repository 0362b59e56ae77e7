"""Pins on a bpffs of our own: a program, a map, a link; got back, also by a directory's fd."""

import os
import tempfile
from pathlib import Path

from _common import (
    Kit,
    call,
    link_facts,
    map_facts,
    mount,
    own_cgroup,
    prog_facts,
    returning,
    run,
)

BPF_F_PATH_FD, BPF_F_RDONLY = 1 << 14, 1 << 3


def work(kit: Kit) -> None:
    place = Path(tempfile.mkdtemp(prefix="bpfstrace-"))
    kit.at_end.callback(place.rmdir)
    mount(kit, "bpf", place)
    cgroup, _ = own_cgroup(kit, "pin")
    kit.say(bpffs=str(place))
    kept = {
        "prog": kit.prog("CGROUP_SKB", returning(1), "kept_prog"),
        "map": kit.map("ARRAY", 4, 8, 1, "kept_map"),
    }
    kept["link"] = kit.link("CGROUP_INET_INGRESS", kept["prog"], cgroup)
    facts = {"prog": prog_facts, "map": map_facts, "link": link_facts}
    got = {}
    for name, fd in kept.items():
        path = os.fsencode(place / name) + b"\0"
        call("OBJ_PIN", pathname=path, bpf_fd=fd, size=16)
        os.close(fd)
        got[name] = facts[name](call("OBJ_GET", pathname=path, size=16).ret)
    kit.say(got=got)

    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    with kit.may_be_refused("OBJ_GET with a path_fd"):
        fd = call("OBJ_GET", pathname=b"map\0", file_flags=BPF_F_PATH_FD | BPF_F_RDONLY,
                  path_fd=directory).ret  # fmt: skip
        kit.say(relative=map_facts(fd))
    with kit.may_be_refused("OBJ_PIN where something is"):
        call("OBJ_PIN", pathname=os.fsencode(place / "map") + b"\0", bpf_fd=got["map"]["fd"])
    with kit.may_be_refused("OBJ_PIN outside a bpffs"):
        call("OBJ_PIN", pathname=b"/tmp/bpfstrace-no-bpffs\0", bpf_fd=got["map"]["fd"])
    (place / "prog").unlink()  # one pin is taken away, two stay behind
    kit.say(pinned=sorted(set(os.listdir(place)) & kept.keys()))


run(work)
