"""Names of C++ in stacks: as c++filt has them, and within bounds whatever they are."""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import time
from pathlib import Path

import pytest

from bpftrace_sys.record.stacks import demangle
from bpftrace_sys.record.stacks.demangle import Demangler
from tests.support.needs import needs_tool
from tests.support.running import run_cli

NAMES = (
    "_Z1fv", "_Z1fv.cold", "_ZNSt6vectorIiSaIiEE9push_backEOi",
    "_ZN4core3fmt5write17h0123456789abcdefE",
    "_ZNKSt3mapISsiSt4lessISsESaISt4pairIKSsiEEE4findERS3_", "_ZZ4mainENKUlvE_clEv",
    "_ZTV3Foo", "_ZGVZ1fvE1x", "_ZN3FooC2ERKS_", "_ZN12_GLOBAL__N_13barEi", "_ZlsRSoRK3Foo",
    "_Z3fooILi3EEvPA10_cz", "_Z", "_Znot", "_Z1fI", "main", "_start", "_R1f", "", "_Z" + "1a" * 600,
    "_Z1f\n_Z1g", "_Z1f\x1b[2J", "_Zé",
)  # fmt: skip


def bomb(depth: int) -> str:
    """A name of which each argument holds the one before twice: 2 ** depth of them."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1f1AIiiE" + "".join(
        f"S_I{ref}{ref}E" for ref in (f"S{digits[at]}_" for at in range(depth))
    )


@pytest.fixture
def demangler() -> object:
    made = Demangler()
    yield made
    made.close()


def test_as_others_have_it(demangler: Demangler) -> None:
    """c++filt of binutils has another copy of such a demangler."""
    needs_tool("c++filt")
    plain = [name for name in NAMES if re.fullmatch(r"[\w.]+", name, re.ASCII) and len(name) < 1024]
    told = subprocess.run(
        ["c++filt", "-i", *plain], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = {name: demangler.name(name) for name in NAMES}
    assert {name: found[name] for name in plain} == dict(zip(plain, told, strict=True))
    assert found["_ZNSt6vectorIiSaIiEE9push_backEOi"] == (
        "std::vector<int, std::allocator<int> >::push_back(int&&)"
    )
    assert {name for name in NAMES if name not in plain and found[name] != name} == set()


def test_hostile_names_are_bounded(demangler: Demangler) -> None:
    """One that unfolds for ever costs a second, and itself; others are known after it."""
    began = time.process_time()
    name = bomb(34)
    assert len(name) < 400
    assert len(demangler.name(name)) <= demangle.LIMIT
    assert time.process_time() - began < 1
    assert demangler.name("_Z1gi") == "g(int)"
    for seed in range(300):
        rand = random.Random(seed)
        name = "_Z" + "".join(rand.choices("1AfIiEPKRNSt0_3abcLjTdp", k=rand.randrange(300)))
        assert len(demangler.name(name)) <= max(len(name), demangle.LIMIT)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert usage < 1 << 20  # KiB: of ours, whatever the other process took


def test_who_dies_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangle, "ASKED", "import os; os._exit(1)")
    demangler = Demangler()
    assert [demangler.name(f"_Z{number}a") for number in range(9)] == [
        f"_Z{number}a" for number in range(9)
    ]
    monkeypatch.setattr(demangle, "start", lambda run: pytest.fail("asked again"))
    assert demangler.name("_Z1fv") == "_Z1fv"


PROGRAM = """
#include <unistd.h>
#include <sys/syscall.h>
#include <vector>
namespace loader {
struct Probe {
    __attribute__((noinline)) long ask(std::vector<int> const &) {
        static char attr[64];
        long ret = syscall(SYS_bpf, 11, attr, 12);
        asm volatile("" ::: "memory");
        return ret;
    }
};
}
int main() { loader::Probe probe; return probe.ask({}) == 42; }
"""


@pytest.mark.live
def test_in_a_stack(tmp_path: Path, needs_bpf: None) -> None:
    """-k names the function as its source does; no process of ours is left, no frame too many."""
    needs_tool("g++")
    source = tmp_path / "loader.cc"
    source.write_text(PROGRAM)
    subprocess.run(["g++", "-O1", "-o", str(tmp_path / "loader"), str(source)], check=True)
    done = run_cli("-q", "-k", "--json", str(tmp_path / "trace"), str(tmp_path / "loader"))
    name = "loader::Probe::ask(std::vector<int, std::allocator<int> > const&)+0x"
    assert name in done.stderr
    again = run_cli("replay", "-q", "-k", str(tmp_path / "trace"))
    assert name in again.stdout
    few = run_cli("replay", "-q", "-k", "--stack-trace-frame-limit=2", str(tmp_path / "trace"))
    assert few.stdout.count("\n > ") == 2 < again.stdout.count("\n > ")
    assert not [
        pid for pid in os.listdir("/proc") if pid.isdigit() and _runs(pid, demangle.ASKED)
    ]


def _runs(pid: str, text: str) -> bool:
    try:
        return text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


