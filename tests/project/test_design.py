"""docs/design.md and docs/extending.md: places that they name are there, and rules that they state
are kept."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.running import ROOT

DOCUMENTS = [ROOT / "docs" / "design.md", ROOT / "docs" / "extending.md", ROOT / "CONTRIBUTING.md"]
ROOMS = ("", "bpftrace_sys", "decoders/declare", "bpftrace_sys/story", "bpftrace_sys/compare",
         "decoders/walk", "bpftrace_sys/render", "bpftrace_sys/render/html", "decoders/formats",
         "bpftrace_sys/record/capture", "bpftrace_sys/story/probes", "bpftrace_sys/export",
         "bpftrace_sys/cli", "tests/cli", "tests/story", "tests/record", "tests/project",
         "tests/decoders", "tests/tracees", "tests/tracees/loaders")  # fmt: skip
"""Where a path may begin that a document names."""
PLACE = re.compile(r"`((?:[\w*]+/)*[\w*]+\.(?:pyi?|c|h|toml|json)|(?:\w+/)+)`")
NAMED = re.compile(r"`(\w+)`(?:(?:,| or| and) `(\w+)`)*(?: in| of) `((?:\w+/)*\w+\.py)`")
ELSEWHERE = {"kernel/bpf/syscall.c"}
"""Files of the kernel."""


def found(place: str) -> list[Path]:
    """The files or folders that a document may mean."""
    return [path for room in ROOMS for path in (ROOT / room).glob(place.rstrip("/"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_places_are_there(path: Path) -> None:
    places = set(PLACE.findall(path.read_text())) - ELSEWHERE
    assert len(places) > 5
    assert [place for place in sorted(places) if not found(place)] == []


def names_in(path: Path) -> set[str]:
    """What a module defines at its top, and in its classes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("path", DOCUMENTS[:2], ids=lambda path: path.name)
def test_names_are_where_they_are_said_to_be(path: Path) -> None:
    said = [
        (name, place)
        for *names, place in NAMED.findall(path.read_text())
        for name in names
        if name and name != "_ask_KIND"
    ]
    assert len(said) > 10
    wrong = [
        (name, place)
        for name, place in said
        if not any(name in names_in(path) for path in found(place))
    ]
    assert wrong == []


def test_types_live_in_the_rooms_of_the_drawing() -> None:
    """Names with a capital letter, right of the room's name or below it."""
    drawing = DOCUMENTS[0].read_text().split("## The house")[1].split("`record/` and")[0]
    rooms: dict[int, str] = {}
    seen = 0
    for line in drawing.splitlines():
        if not line.startswith("    ") or not line.strip(" |"):
            continue
        for match in re.finditer(r"(?<![\w/(])([a-z]\w+)/ ", line):
            if match[1] not in LAYERS:
                continue
            rooms = {at: room for at, room in rooms.items() if at < match.start()}
            rooms[match.start()] = match[1]
        for match in re.finditer(r"\b([A-Z][a-z]\w*)\b", line):
            room = rooms[max(at for at in rooms if at < match.start())]
            folder = ROOT / ("decoders" if room in DECODERS else f"bpftrace_sys/{room}")
            if match[1] in WORDS:
                continue
            seen += 1
            pattern = rf"^(class {match[1]}\b|    class {match[1]}\b|{match[1]}\b.* =)"
            texts = (path.read_text() for path in folder.rglob("*.py"))
            there = any(re.search(pattern, text, re.MULTILINE) for text in texts)
            assert there, (room, match[1])
    assert seen > 25


DECODERS = {"decoders", "declare", "walk", "formats", "uapi"}
LAYERS = {"testing", "cli", "api", "tui", "render", "export", "compare", "story", "record", "trace",
          "common", *DECODERS}  # fmt: skip
WORDS = {"JSON"}


# ------------------------------------------------------------------ rules


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a module."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def sources(folder: str) -> Iterator[tuple[Path, tuple[ast.AST, ...]]]:
    """The modules below a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, nodes_of(path)


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that are imported anywhere."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_decoders_import_the_standard_library_and_construct_only() -> None:
    """And capstone, where native code is shown."""
    standard = sys.stdlib_module_names | {"_sha256", "_sha2"}  # until Python 3.11, and since
    for path, nodes in sources("decoders"):
        roots = {name.partition(".")[0] for name in imports(nodes)} - standard
        native = {"capstone"} if path.name == "native.py" else set()
        assert roots <= {"decoders", "construct", *native}, path


def test_records_are_made_by_the_stand_ins() -> None:
    """Python's own take a millisecond each; only what programs see is of these."""
    stands_alone = {ROOT / "bpftrace_sys" / "hello.py", ROOT / "decoders" / "records.py"}
    for folder in ("decoders", "bpftrace_sys"):
        for path, nodes in sources(folder):
            if path in stands_alone or path.is_relative_to(ROOT / "bpftrace_sys" / "api"):
                continue
            typing = {
                alias.name
                for node in nodes
                if isinstance(node, ast.ImportFrom) and node.module == "typing"
                for alias in node.names
            }
            assert "NamedTuple" not in typing, f"{path}: of decoders.records"
            whole = {"dataclasses", "construct"} & imports(nodes)
            assert not whole or path.name == "constructs.py", path


@pytest.mark.parametrize("room", ["render", "compare", "export", "tui", "story", "trace"])
def test_what_shows_asks_nothing_of_the_machine(room: str) -> None:
    for path, nodes in sources(f"bpftrace_sys/{room}"):
        asking = {name for name in imports(nodes) if name.startswith("bpftrace_sys.record")}
        assert not asking, path


@pytest.mark.parametrize("room", ["bpftrace_sys/story", "bpftrace_sys/compare", "decoders"])
def test_what_means_does_not_print(room: str) -> None:
    for path, nodes in sources(room):
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                stream = node.value.id == "sys" and node.attr in ("stdout", "stderr")
                assert not stream, path


def test_the_recorder_does_not_decode() -> None:
    """But for calls that no walk's table has: their declarations, to copy by."""
    for path, nodes in sources("bpftrace_sys/record"):
        assert not imports(nodes) & {"decoders.decode", "decoders.values", "decoders.call"}, path
        declared = {name for name in imports(nodes) if name.startswith("decoders.declare")}
        assert not declared or path.name == "copying.py", path


def test_stacks_and_the_browser_are_imported_when_they_are_asked_for() -> None:
    """In functions, not when a module is loaded."""
    late = {"bpftrace_sys.record.stacks": {"elf_image", "files"}, "bpftrace_sys.tui": set[str]()}
    for path, nodes in sources("bpftrace_sys"):
        for node in ast.iter_child_nodes(nodes[0]):
            if not isinstance(node, ast.ImportFrom):
                continue
            for room, allowed in late.items():
                module = node.module or ""
                if module.startswith(room) and room.replace(".", "/") not in str(path):
                    assert module.rpartition(".")[2] in allowed, path


def test_files_are_written_to_in_one_place() -> None:
    """common/output_files.py; besides what is made beside its place, and put there whole."""
    beside = {"common/output_files.py", "cli/repro.py", "compare/policy/lock_file.py"}
    runs_apart = {"export/reproducer_places.py"}  # the text of programs that it writes
    for path, nodes in sources("bpftrace_sys"):
        name = str(path.relative_to(ROOT / "bpftrace_sys"))
        if name in beside | runs_apart:
            continue
        for node in nodes:
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            words = [word.value for word in node.args[1:2] if isinstance(word, ast.Constant)]
            if called == "open" and words and re.search("[wax+]", str(words[0])):
                target = ast.unparse(node.args[0])
                assert re.match(r"\d|fd$|create\(", target), (name, ast.unparse(node))
            assert called not in ("os.creat", "os.mkfifo"), name
            if called == "os.open" and len(node.args) > 1:
                assert "O_CREAT" not in ast.unparse(node.args[1]), (name, ast.unparse(node))


def test_exit_codes_stand_in_one_place() -> None:
    """cli/messages.py: no command returns one as a number, but 0."""
    for path, nodes in sources("bpftrace_sys/cli"):
        for function in nodes:
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("main"):
                continue
            for node in ast.walk(function):
                value = node.value if isinstance(node, ast.Return) else None
                ends = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                numbers = {end.value for end in ends if isinstance(end, ast.Constant)}
                assert not numbers & {1, 2, 125}, (path.name, ast.unparse(node))
