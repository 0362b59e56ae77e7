"""The loaders of tests/tracees/loaders, untraced: what they tell is true; bpftool sees it, too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import bpf_asm, loaders
from tests.support.loaders import EXPECTED, NAMES, Facts, skip_if_it_lacks_more
from tests.support.running import LOADERS

pytestmark = pytest.mark.skipif(bpf_asm.why_not() is not None, reason=str(bpf_asm.why_not()))

@contextmanager
def running(name: str, release: Path) -> Iterator[Facts]:
    """The loader's facts, while it lives; then it ends, with 0 and silently."""
    with subprocess.Popen(
        [sys.executable, str(LOADERS / f"{name}.py"), "--wait", str(release)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as loader:
        try:
            assert loader.stdout is not None
            line = loader.stdout.readline()
            assert line, loader.communicate()[1]
            yield json.loads(line)
        except BaseException:
            loader.kill()  # nobody releases it now
            raise
        release.touch()
        rest, errors = loader.communicate(timeout=30)
    assert (loader.returncode, rest, errors) == (0, "", "")


def bpftool(kind: str) -> dict[int, Facts]:
    """All objects of a kind, by id, as bpftool sees them."""
    shown = subprocess.check_output(["bpftool", "-j", kind, "show"], text=True)
    return {entry["id"]: entry for entry in json.loads(shown)}


def test_every_loader_is_expected_and_told_of() -> None:
    assert sorted(EXPECTED) == NAMES
    told = str(loaders.__doc__).splitlines()
    assert sorted(line.split()[0] for line in told if line.startswith(tuple(NAMES))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_loader_does_what_it_says(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    with running(name, tmp_path / "release") as facts:
        pass
    skip_if_it_lacks_more(facts, expected)
    refused = facts["refused"]
    assert refused.items() >= expected.always.items()
    assert all(why == expected.here[step] for step, why in refused.items() if step in expected.here)
    assert expected.check(facts), facts


@pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool is not installed")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("errors", "common_attrs")])
def test_bpftool_sees_the_same_objects(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path / "release") as facts:
        seen = {kind: bpftool(kind) for kind in ("prog", "map", "link") if facts.get(f"{kind}s")}
    skip_if_it_lacks_more(facts, EXPECTED[name])
    compared = 0
    for kind, objects in seen.items():
        for mine in facts[f"{kind}s"]:
            if mine.get("name") in EXPECTED[name].gone:
                assert mine["id"] not in objects
                continue
            theirs = objects[mine["id"]]
            compared += 1
            if kind == "link":
                # A link may have been updated since; and bpftool 7.1 knows not all types.
                updated = facts.get("updated", mine["prog_id"])
                assert theirs.get("prog_id", 0) in (mine["prog_id"], updated)
                continue
            assert theirs.get("name", "") == mine["name"]
            if isinstance(theirs["type"], str):  # a number where bpftool is too old for it
                assert theirs["type"] == mine["type"].lower()
            if kind == "prog":
                assert theirs["tag"] == mine["tag"]
            else:
                sizes = ("bytes_key", "bytes_value", "max_entries")
                assert [theirs[size] for size in sizes] == [
                    mine[size] for size in ("key_size", "value_size", "max_entries")
                ]
    assert compared or name in ("bpf_token", "pidfd_getfd")


def test_strict_makes_a_refusal_a_failure() -> None:
    done = subprocess.run(
        [sys.executable, str(LOADERS / "map_ops.py"), "--strict"], capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["refused"]
