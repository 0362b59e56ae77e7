"""A lock file: what a program may do with BPF, reviewed by people.

TOML, or JSON where the name ends in .json; read strictly, because a typo must
not allow more, and written sorted, so that a review sees what changed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.output_files import OutputError
from bpftrace_sys.compare.policy.deeds import Deed
from decoders.records import dataclass, field

VERSION: Final = 1
FILE_LIMIT: Final = 16 << 20


class LockError(BpfstraceError):
    """A lock file that cannot be used; says why."""


_STAR: Final = re.compile(r"(\[\*\]|\*)")


@functools.lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = _STAR.split(pattern)
    words = [".*" if part == "*" else re.escape("*" if part == "[*]" else part) for part in parts]
    return re.compile("".join(words), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether a row's text covers another: ``*`` is any text, ``[*]`` a star."""
    return pattern == text if "*" not in pattern else bool(_compiled(pattern).fullmatch(text))


def literal(text: str) -> str:
    """The row's text that covers just this."""
    return text.replace("*", "[*]")


def is_pattern(text: str) -> bool:
    """Whether a row's text covers more than one."""
    return "*" in text.replace("[*]", "")


@dataclass(slots=True)
class Program:
    """A row: a program and what it may do."""

    name: str
    type: str
    tags: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    kfuncs: set[str] = field(default_factory=set)
    attach: set[str] = field(default_factory=set)
    note: str = ""

    def take(self, deed: Deed) -> None:
        """Makes room for a deed."""
        if deed.kind != "program":
            chosen: set[str] = getattr(self, _LISTS[deed.kind])
            chosen.update(map(literal, deed.value))


@dataclass(slots=True)
class Map:
    """A row: a map that may be made."""

    name: str
    type: str
    key_size: int
    value_size: int
    note: str = ""


@dataclass(slots=True)
class Lock:
    """A lock file."""

    programs: list[Program] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    pins: set[str] = field(default_factory=set)
    opens: set[str] = field(default_factory=set)
    pin_tags: bool = True
    """False: any instructions will do, as long as they stay within the rest."""

    def allows(self, deed: Deed) -> bool:
        """Whether a deed is within the rows."""
        if deed.kind == "tag" and not self.pin_tags:
            return True
        if deed.kind == "map":
            return any(
                matches(row.name, deed.prog[0])
                and (row.type, row.key_size, row.value_size) == (deed.prog[1], *deed.value)
                for row in self.maps
            )
        if deed.kind in ("pin", "open"):
            rows = self.pins if deed.kind == "pin" else self.opens
            return any(matches(row, deed.value[0]) for row in rows)
        found = [
            row
            for row in self.programs
            if row.type == deed.prog[1] and matches(row.name, deed.prog[0])
        ]
        return any(_ALLOWED[deed.kind](row, deed) for row in found)

    def add(self, deed: Deed) -> None:
        """Makes room for a deed."""
        if self.allows(deed):
            return
        if deed.kind == "map":
            self.maps.append(Map(literal(deed.prog[0]), deed.prog[1], *deed.value))
        elif deed.kind == "pin":
            self.pins.add(literal(deed.value[0]))
        elif deed.kind == "open":
            self.opens.add(literal(deed.value[0]))
        else:
            self.program(deed.prog).take(deed)

    def program(self, key: tuple[str, str]) -> Program:
        """The row of a program; a new one where there is none."""
        for row in self.programs:
            if row.type == key[1] and matches(row.name, key[0]):
                return row
        self.programs.append(Program(literal(key[0]), key[1]))
        return self.programs[-1]


_LISTS: Final = {"tag": "tags", "helper": "helpers", "kfunc": "kfuncs", "attach": "attach"}
_ALLOWED: Final[dict[str, Callable[[Program, Deed], bool]]] = {
    "program": lambda row, deed: True,
    # One of the two is what the kernel shows, depending on its version.
    "tag": lambda row, deed: not row.tags.isdisjoint(deed.value),
    "helper": lambda row, deed: any(matches(name, deed.value[0]) for name in row.helpers),
    "kfunc": lambda row, deed: any(matches(name, deed.value[0]) for name in row.kfuncs),
    "attach": lambda row, deed: any(matches(target, deed.value[0]) for target in row.attach),
}


def updated(old: Lock | None, deeds: Iterable[Deed], pin_tags: bool | None) -> Lock:
    """A lock that allows just these deeds; patterns and notes of an old one are kept."""
    made = Lock()
    if old is not None:
        made.pin_tags = old.pin_tags
    if pin_tags is not None:
        made.pin_tags = pin_tags
    wanted = list(deeds)
    if old is not None:
        made.programs = list(_kept_programs(old, wanted))
        made.maps = [
            row
            for row in old.maps
            if (is_pattern(row.name) or row.note)
            and any(deed.kind == "map" and Lock(maps=[row]).allows(deed) for deed in wanted)
        ]
        made.pins = _patterns(old.pins, (d.value[0] for d in wanted if d.kind == "pin"))
        made.opens = _patterns(old.opens, (d.value[0] for d in wanted if d.kind == "open"))
    for deed in wanted:
        # Tags are listed whether they bind or not: a reviewer wants to see them.
        if deed.kind == "tag" and not made.pin_tags:
            made.program(deed.prog).take(deed)
        else:
            made.add(deed)
    return made


def _patterns(old: set[str], values: Iterable[str]) -> set[str]:
    there = list(values)
    patterns = filter(is_pattern, old)
    return {text for text in patterns if any(matches(text, value) for value in there)}


def _kept_programs(old: Lock, deeds: list[Deed]) -> Iterator[Program]:
    for row in old.programs:
        own = [
            deed
            for deed in deeds
            if deed.prog[1] == row.type and deed.kind != "map" and matches(row.name, deed.prog[0])
        ]
        if own:
            kept = Program(row.name, row.type, note=row.note)
            for kind, name in _LISTS.items():
                if kind != "tag":
                    values = [deed.value[0] for deed in own if deed.kind == kind]
                    setattr(kept, name, _patterns(getattr(row, name), values))
            yield kept


# ------------------------------------------------------------------ the file


_PROGRAM_KEYS: Final = {
    "name": str, "type": str, "tags": list, "helpers": list, "kfuncs": list, "attach": list,
    "note": str,
}  # fmt: skip
_MAP_KEYS: Final = {"name": str, "type": str, "key_size": int, "value_size": int, "note": str}
_TOP_KEYS: Final = {
    "version": int, "pin_tags": bool, "pins": list, "opens": list, "program": list, "map": list,
}  # fmt: skip


def _checked(table: Any, keys: Mapping[str, type], where: str) -> dict[str, Any]:
    """A table with only known keys and the right types: a typo must not allow more."""
    if not isinstance(table, dict):
        raise LockError(f"{where} is not a table")
    for key, value in table.items():
        wanted = keys.get(key)
        if wanted is None:
            known = ", ".join(keys)
            raise LockError(f"{where}: unknown key {key[:60]!r}; known are {known}")
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise LockError(f"{where}: {key} is not a {wanted.__name__}")
    return table


def _texts(table: dict[str, Any], key: str, where: str) -> set[str]:
    items = table.get(key, [])
    if not all(isinstance(item, str) for item in items):
        raise LockError(f"{where}: {key} holds something that is not a string")
    return set(items)


def _required(table: dict[str, Any], keys: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in table:
            raise LockError(f"{where} lacks {key}")


def load(path: str) -> Lock:
    """Reads a lock file, TOML or JSON by its ending; LockError where it is not right."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise LockError(f"{path}: more than {FILE_LIMIT} bytes: no lock file")
        text = data.decode("utf-8")
        if path.endswith(".json"):
            from bpftrace_sys.common.strict_json import once

            table = json.loads(text, object_pairs_hook=once)
        else:
            table = tomllib.loads(text)
    except OSError as error:
        hint = "; --update writes it" if isinstance(error, FileNotFoundError) else ""
        raise LockError(f"{path}: {error.strerror}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise LockError(f"{path}: {error or 'nested too deeply'}") from None
    try:
        return _lock(table)
    except LockError as error:
        raise LockError(f"{path}: {error}") from None


def _lock(table: Any) -> Lock:
    table = _checked(table, _TOP_KEYS, "the file")
    _required(table, ("version",), "the file")
    if table["version"] != VERSION:
        raise LockError(f"version {table['version']} is not {VERSION}: use a newer bpfstrace")
    made = Lock(pin_tags=table.get("pin_tags", True))
    made.pins = _texts(table, "pins", "the file")
    made.opens = _texts(table, "opens", "the file")
    for index, row in enumerate(table.get("program", ()), 1):
        where = f"program {index}"
        row = _checked(row, _PROGRAM_KEYS, where)
        _required(row, ("name", "type"), where)
        lists = {key: _texts(row, key, where) for key in _LISTS.values()}
        made.programs.append(
            Program(row["name"], row["type"], note=row.get("note", ""), **lists)
        )
    for index, row in enumerate(table.get("map", ()), 1):
        where = f"map {index}"
        row = _checked(row, _MAP_KEYS, where)
        _required(row, ("name", "type", "key_size", "value_size"), where)
        made.maps.append(Map(**row))
    return made


def _tables(lock: Lock) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    top: dict[str, Any] = {"version": VERSION, "pin_tags": lock.pin_tags}
    top["pins"] = sorted(lock.pins)
    top["opens"] = sorted(lock.opens)
    programs = []
    for row in sorted(lock.programs, key=lambda row: (row.name, row.type)):
        table: dict[str, Any] = {"name": row.name, "type": row.type}
        for key in _LISTS.values():
            if getattr(row, key):
                table[key] = sorted(getattr(row, key))
        if row.note:
            table["note"] = row.note
        programs.append(table)
    maps = []
    for each in sorted(lock.maps, key=lambda m: (m.name, m.type, m.key_size, m.value_size)):
        table = {
            "name": each.name,
            "type": each.type,
            "key_size": each.key_size,
            "value_size": each.value_size,
        }
        if each.note:
            table["note"] = each.note
        maps.append(table)
    return top, programs, maps


INTRODUCTION: Final = """\
# What a program may do with BPF: reviewed by people, held by `bpfstrace check`.
# A * in a name, target or path stands for any text ([*] for a star). `note` is for you, and
# is kept by --update.
"""
ABOUT: Final = {
    "pin_tags": "# true: programs must have one of their tags, which are hashes of instructions\n"
    "# (SHA-1 on Linux up to 6.17, SHA-256 from 6.18 on; either is enough).",
    "pins": "# Paths in bpffs that objects are pinned at, and that are opened.",
}


def _toml_text(text: str) -> str:
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _toml_text(value)
    items = [_toml_text(item) for item in value]
    line = f"[{', '.join(items)}]"
    if len(line) <= 80:
        return line
    # An item a line: a review shows what was added.
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def dumps(lock: Lock, path: str) -> str:
    """A lock file's text, sorted, the same each time; JSON if ``path`` ends so."""
    top, programs, maps = _tables(lock)
    if path.endswith(".json"):
        return json.dumps({**top, "program": programs, "map": maps}, indent=2) + "\n"
    lines = [INTRODUCTION]
    for key, value in top.items():
        lines += [ABOUT[key]] if key in ABOUT else []
        lines.append(f"{key} = {_toml_value(value)}")
    for title, tables in (("program", programs), ("map", maps)):
        for table in tables:
            lines.append(f"\n[[{title}]]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def save(lock: Lock, path: str) -> None:
    """Writes a lock file, whole or not at all; OutputError if it cannot be written."""
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(dumps(lock, path))
        os.replace(beside, path)
    except OSError as error:
        if os.path.exists(beside):
            os.unlink(beside)
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
