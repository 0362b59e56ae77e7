"""``bpfstrace doctor``: what it says is so, and it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from bpftrace_sys.record import abilities
from tests.support.running import run_cli, without_capabilities


def rows(text: str) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in map(json.loads, text.splitlines())}


def test_what_it_says_of_this_machine_is_so() -> None:
    done = run_cli("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = rows(done.stdout)
    assert len(told) == len(abilities.ROWS)
    assert told["ptrace"]["state"] == "yes"
    btf = Path("/sys/kernel/btf/vmlinux").exists()
    assert (told["kernel's BTF"]["state"] == "yes") is btf
    for pmu in ("kprobe", "uprobe"):
        there = Path(f"/sys/bus/event_source/devices/{pmu}/type")
        assert (told[f"{pmu}s"]["state"] == "yes") is there.exists()
        assert there.exists() is False or told[f"{pmu}s"]["found"] == (
            f"perf type {there.read_text().strip()}"
        )
    for module, extra, _ in abilities.EXTRAS:
        there_is = importlib.util.find_spec(module) is not None
        assert (told[module]["state"] == "yes") is there_is
        assert there_is or f"[{extra}]" in str(told[module]["advice"])
    assert all(row["advice"] for row in told.values() if row["state"] == "no")


def test_as_text_what_is_missing_comes_with_what_to_do() -> None:
    done = run_cli("doctor")
    assert done.returncode == 0
    assert done.stdout.startswith("ok  ptrace ")
    assert "Traceback" not in done.stderr
    for at, line in enumerate(done.stdout.splitlines()):
        if line.startswith("NO"):
            assert "-> " in done.stdout.splitlines()[at + 1]


def test_without_capabilities() -> None:
    """Works without root; what is not ours is told, and what could not be seen is not absent."""
    done = without_capabilities("doctor", "--json")
    assert done.returncode == 0, done.stderr
    told = rows(done.stdout)
    assert told["ptrace"]["state"] == "yes"
    assert told["capabilities"]["state"] == "no"
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0":
        assert told["bpf(2)"]["state"] == "no"
        assert "Operation not permitted" in str(told["bpf(2)"]["found"])
    assert "CAP_BPF" in str(told["--engine bpf"]["found"])


def test_nothing_is_left_behind() -> None:
    """No fd, child or object of bpf(2) of ours."""
    before = sorted(os.listdir("/proc/self/fd"))
    found = abilities.abilities()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert found
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_where_ptrace_is_forbidden_the_exit_code_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    from bpftrace_sys.cli import doctor

    denied = abilities.Ability("ptrace", abilities.BAD, "not permitted", "do this", needed=True)
    monkeypatch.setattr(doctor, "abilities", lambda: [denied])
    assert doctor.main([]) == 1


def test_words_that_are_none_of_its_own() -> None:
    assert run_cli("doctor", "x").returncode == 2
