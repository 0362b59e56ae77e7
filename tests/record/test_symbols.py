"""Functions of ELF files by offset, against pyelftools, over files that compilers made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bpftrace_sys.record.files.tracee_files import TraceeFiles
from bpftrace_sys.record.machine.symbols import Symbols
from tests.support.needs import needs_tool
from tests.support.running import TRACEES, run_cli


def functions(path: Path) -> dict[int, set[tuple[str, int]]]:
    """Names and sizes of the functions at each offset in a file, as pyelftools has them."""
    found: dict[int, set[tuple[str, int]]] = defaultdict(set)
    with path.open("rb") as file:
        elf = ELFFile(file)
        loads = [
            segment for segment in elf.iter_segments("PT_LOAD") if segment["p_flags"] & 1
        ]
        for name in (".symtab", ".dynsym"):
            section = elf.get_section_by_name(name)
            for symbol in section.iter_symbols() if section is not None else ():
                # STT_GNU_IFUNC is 10, which pyelftools calls by its generic name.
                if symbol["st_info"]["type"] not in ("STT_FUNC", "STT_LOOS"):
                    continue
                for load in loads:
                    at = symbol["st_value"] - load["p_vaddr"]
                    if symbol["st_shndx"] != "SHN_UNDEF" and 0 <= at < load["p_filesz"]:
                        name = symbol.name.partition("@")[0]
                        found[at + load["p_offset"]].add((name, symbol["st_size"]))
    return found


@pytest.mark.parametrize(
    "flags",
    [["-static-pie"], ["-static"], ["-shared", "-fPIC"], ["-m32", "-shared", "-nostdlib"]],
    ids=" ".join,
)
def test_every_function_has_one_of_its_names(flags: list[str], tmp_path: Path) -> None:
    needs_tool("clang")
    out = tmp_path / "built"
    source = "i386.c" if "-m32" in flags else "tracee.c"
    subprocess.run(
        ["clang", "-O2", "-w", *flags, "-Wl,--build-id=none", "-o", str(out),
         str(TRACEES / "stacks" / source)], check=True, capture_output=True,
    )  # fmt: skip
    known = functions(out)
    symbols = Symbols(TraceeFiles())
    assert len(known) > 3
    for offset, names in known.items():
        assert symbols.at(os.getpid(), str(out), offset) in {name for name, _ in names}
        largest = max(size for _, size in names)
        if largest > 2 and offset + 1 not in known:
            inside = symbols.at(os.getpid(), str(out), offset + 1)
            assert inside in {f"{name}+0x1" for name, size in names if size == largest}


def test_a_function_is_called_what_people_call_it() -> None:
    """libc's getpid is a weak name of __getpid, fork one of __libc_fork and of __fork."""
    libc = Path(next(
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()
        if "/libc.so" in line
    ))  # fmt: skip
    plain = {"getpid", "fork", "open", "read", "malloc", "write"}
    at = {
        name: offset for offset, names in functions(libc).items() for name, _ in names
        if name in plain
    }  # fmt: skip
    assert at.keys() == plain
    symbols = Symbols(TraceeFiles())
    for name, offset in at.items():
        assert symbols.at(os.getpid(), str(libc), offset) == name


def test_of_a_process_with_another_root_its_own_file_counts(tmp_path: Path) -> None:
    """A container's file may have our path, and be another."""
    if os.geteuid() != 0:
        pytest.skip("only root may change its root")
    ours = tmp_path / "file"
    shutil.copy(Path("/proc/self/exe").resolve(), ours)
    offset, names = next(iter(functions(ours).items()))
    jail = tmp_path / "jail"
    theirs = jail / str(ours).lstrip("/")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("of another kind")
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.chroot(jail)
        os.write(done, b"x")
        signal.pause()
        os._exit(0)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"x"
        symbols = Symbols(TraceeFiles())
        assert symbols.at(child, str(ours), offset) is None
        assert symbols.executable(child, str(ours), offset) is None
        theirs.unlink()
        assert Symbols(TraceeFiles()).at(child, str(ours), offset) is None
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        # As a zombie it has no root any more; what it saw is not known.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert Symbols(TraceeFiles()).at(child, str(ours), offset) in {name for name, _ in names}
        os.waitpid(child, 0)


def test_what_is_no_elf_file_has_no_functions(tmp_path: Path) -> None:
    symbols = Symbols(TraceeFiles())
    (tmp_path / "text").write_text("\x7fELF, but not really")
    os.mkfifo(tmp_path / "fifo")
    for path in ("text", "fifo", "nothing", ".", "a\0b"):
        assert symbols.at(os.getpid(), f"{tmp_path}/{path}", 0) is None
    assert symbols.at(os.getpid(), "/dev/zero", 0) is None


def test_a_leased_file_is_not_waited_for(tmp_path: Path, needs_bpf: None) -> None:
    """Who has a lease on a file keeps whoever opens it for 45 seconds (fs.lease-break-time)."""
    file = tmp_path / "leased"
    shutil.copy("/bin/true", file)
    tracee = str(TRACEES / "leased.py")
    begun = time.monotonic()
    done = run_cli("-e", "trace=perf_event_open", sys.executable, tracee, str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"  # by us: there was something to wait for
    assert f"{file}:0x1000" in done.stderr
    assert time.monotonic() - begun < 30
