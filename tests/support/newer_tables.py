"""bpfstrace with the tables of a kernel that there is not: one more of each kind.

A copy of the product, its tables generated anew from facts that have a made-up command, map type,
program type, attach type, link type, helper, ioctl and fields, and nothing else changed: as it is
for whoever regenerates them for a new kernel, before the first row is written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.running import ROOT, environment

ENUMS: Final = {
    "bpf_cmd": "BPF_MAP_INVERT",
    "bpf_map_type": "BPF_MAP_TYPE_MOEBIUS",
    "bpf_prog_type": "BPF_PROG_TYPE_ORACLE",
    "bpf_attach_type": "BPF_ORACLE_SPEAKS",
    "bpf_link_type": "BPF_LINK_TYPE_ORACLE",
    "bpf_func_id": "BPF_FUNC_ask_oracle",
}
"""Enums, and the member that each of them gets."""
IOCTL: Final = "PERF_EVENT_IOC_PROPHESY"
IOCTL_NUMBER: Final = 0x4008_240C
"""_IOW('$', 12, __u64): the next one."""
FLAG: Final = "BPF_F_GIBBERISH"
ENUM: Final = "bpf_riddle"
"""A flag and an enum of which nobody has said where they belong."""
FIELDS: Final[dict[str, list[tuple[str, int, str]]]] = {
    "bpf_attr.map_invert": [("map_fd", 4, "__u32"), ("flags", 4, "__u32"), ("mirror", 8, "__u64")],
    "bpf_attr.PROG_LOAD": [("omen", 4, "__u32")],
    "bpf_attr.link_create.oracle": [("riddle", 8, "__u64")],
    "bpf_link_info.oracle": [("riddle", 8, "__u64")],
    "bpf_prog_info": [("omens", 8, "__u64")],
    "bpf_map_info": [("sides", 8, "__u64")],
}
"""Structs that are new, or longer, and their new members: path, size, type."""
NUMBERS: Final[dict[str, int]] = {}
"""The numbers of ENUMS' members, once newer_facts has been called."""


def _around(struct: str) -> Iterator[tuple[str, str]]:
    """The structs around one, and its path there: the outer ones have its members, too."""
    parts = struct.split(".")
    for end in range(1, len(parts)):
        inner = [part for part in parts[end:] if part.islower()]
        yield ".".join(parts[:end]), "".join(f"{part}." for part in inner)


def newer_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """What tools/gen_uapi.py would extract from that kernel's headers."""
    native = facts["native"]
    for enum, name in ENUMS.items():
        members = native["enums"][enum]
        constants = native["constants"]
        end = next(at for at, member in enumerate(members) if member.startswith("__"))
        number = constants[members[end]]
        members.insert(end, name)
        constants[name] = NUMBERS[name] = number
        constants[members[end + 1]] = number + 1
    native["constants"] |= {FLAG: 1 << 30, "BPF_RIDDLE_EASY": 0, "BPF_RIDDLE_HARD": 1}
    native["enums"][ENUM] = ["BPF_RIDDLE_EASY", "BPF_RIDDLE_HARD"]
    for unit in ("native", "compat32"):
        facts[unit]["constants"][IOCTL] = IOCTL_NUMBER
    structs = native["structs"]
    for struct, fields in FIELDS.items():
        base = 16 if struct.endswith(".oracle") else 0
        known = structs.setdefault(struct, {"size": 0, "base": base, "members": []})
        for path, size, ctype in fields:
            at = known["size"] + -known["size"] % size
            known["members"].append([path, at, size, None, None, ctype])
            known["size"] = at + size
            for around, prefix in _around(struct):
                start = structs[around]["base"]
                structs[around]["members"].append(
                    [prefix + path, base + at - start, size, None, None, ctype]
                )
    return facts


def copied(place: Path) -> Path:
    """The product and its tools in a folder, with the newer tables; nothing is made yet of them
    but decoders/uapi."""
    for name in ("decoders", "bpftrace_sys", "tools"):
        shutil.copytree(
            ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "benchmarks")
        )
    (place / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "coverage.md", place / "docs")
    path = place / "tools" / "uapi_facts.json"
    path.write_text(json.dumps(newer_facts(json.loads(path.read_text()))))
    return place


def run(place: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """``python WORDS`` with the copy's packages."""
    env = environment(PYTHONPATH=f"{place}:{ROOT}")
    return subprocess.run(
        [sys.executable, *words],
        cwd=place, capture_output=True, text=True, errors="backslashreplace", timeout=120,
        check=False, env=env, **more,
    )  # fmt: skip
