"""What newer tables have and the code has no row for: which file to edit.

Nothing here breaks the product: what has no row is shown by its name, and as a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bpftrace_sys.export import section_names
from bpftrace_sys.render.strace import rows as strace
from bpftrace_sys.story import context
from bpftrace_sys.story.attach import link_targets
from bpftrace_sys.story.explain import attach, last_fields, maps
from decoders import commands
from decoders.declare import bpf_attr, bpf_info, bpf_link, perf_ioctl
from decoders.uapi import const, names
from decoders.uapi.layouts import LAYOUTS
from uapi_gen.declared import NOT_DECLARED, STRUCTS, one_of, places
from uapi_gen.render import unplaced

COVERAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"


class Lack(NamedTuple):
    """Something that has no row."""

    kind: str
    name: str
    file: str
    """Where the row belongs, below the repository."""
    table: str


class Table(NamedTuple):
    """A table that has a row, or a reason, for each of a kind."""

    file: str
    name: str
    rows: Callable[[], Iterable[str]]
    """The kernel's names that are there."""


class Kind(NamedTuple):
    """A kind of thing that kernels get more of."""

    name: str
    all: Callable[[], Iterable[str]]
    """The kernel's names, of the generated tables."""
    tables: tuple[Table, ...]


def _prefixed(prefix: str, *tables: Iterable[str]) -> Iterator[str]:
    return (prefix + name for table in tables for name in table)


def _commands() -> list[str]:
    return [name for number, name in names.bpf_cmd.items() if number != const.BPF_COMMON_ATTRS]


def _cgroups() -> Iterator[str]:
    return (name for name in names.bpf_attach_type.values() if "CGROUP" in name)


def _sections() -> Iterator[str]:
    found = [attach for rows in section_names.SECTIONS.values() for attach in rows]
    every = (*found, *section_names.USUAL, *section_names.NO_SECTION)
    return (f"BPF_{name.upper()}" for name in every)


def _link_rows() -> Iterator[str]:
    """Attach types whose part of the union strace style has a row for."""
    for name, part in bpf_link.VARIANTS.items():
        if part.subcons[0].name in strace.LINK_ROWS:
            yield name
    yield from (*_cgroups(), *bpf_link.NO_VARIANT)


def _covered(every: Callable[[], Iterable[str]]) -> Table:
    return Table(
        "docs/coverage.md", "its rows",
        lambda: (name for name in every() if f"`{name}`" in COVERAGE.read_text()),
    )  # fmt: skip



KINDS: Final = (
    Kind(
        "bpf command", _commands,
        (
            Table("decoders/declare/bpf_attr.py", "COMMANDS",
                  lambda: (names.bpf_cmd[number] for number in bpf_attr.COMMANDS)),
            Table("decoders/commands.py", "TRAITS", lambda: commands.TRAITS),
            Table("bpftrace_sys/render/strace/rows.py", "ROWS",
                  lambda: _prefixed("BPF_", strace.ROWS)),
            Table("bpftrace_sys/story/explain/last_fields.py", "LAST_FIELDS",
                  lambda: last_fields.LAST_FIELDS),
            _covered(_commands),
        ),
    ),
    Kind(
        "attach type", names.bpf_attach_type.values,
        (
            Table("decoders/declare/bpf_link.py", "VARIANTS or NO_VARIANT",
                  lambda: (*bpf_link.VARIANTS, *bpf_link.NO_VARIANT, *_cgroups())),
            Table("bpftrace_sys/story/attach/link_targets.py", "TARGETS or NO_LINK",
                  lambda: (*link_targets.TARGETS, *link_targets.NO_LINK)),
            Table("bpftrace_sys/story/explain/attach.py", "ATTACH_PROGS or NO_PROGS",
                  lambda: (*attach.ATTACH_PROGS, *attach.NO_PROGS)),
            Table("bpftrace_sys/export/section_names.py", "SECTIONS, USUAL or NO_SECTION",
                  _sections),
            Table("bpftrace_sys/render/strace/rows.py", "LINK_ROWS", _link_rows),
        ),
    ),
    Kind(
        "type of map", names.bpf_map_type.values,
        (
            Table("bpftrace_sys/story/explain/maps.py", "MAP_RULES or NO_RULE",
                  lambda: _prefixed("BPF_MAP_TYPE_", maps.MAP_RULES, maps.NO_RULE)),
        ),
    ),
    Kind(
        "type of program", names.bpf_prog_type.values,
        (
            Table("bpftrace_sys/story/context.py", "LOADED or NOT_LOADED",
                  lambda: _prefixed("BPF_PROG_TYPE_", context.LOADED, context.NOT_LOADED)),
            Table("bpftrace_sys/export/section_names.py", "SECTIONS",
                  lambda: ("BPF_PROG_TYPE_UNSPEC",
                           *_prefixed("BPF_PROG_TYPE_",
                                      (name.upper() for name in section_names.SECTIONS)))),
        ),
    ),
    Kind(
        "type of link", names.bpf_link_type.values,
        (
            Table("decoders/declare/bpf_info.py", "LINK_DETAILS",
                  lambda: _prefixed("BPF_LINK_TYPE_", bpf_info.LINK_DETAILS, ("UNSPEC",))),
        ),
    ),
    Kind(
        "ioctl", lambda: dict.fromkeys(perf_ioctl.NAMES.values()),
        (
            Table("decoders/declare/perf_ioctl.py", "REQUESTS", lambda: perf_ioctl.REQUESTS),
            Table("decoders/commands.py", "IOCTLS", lambda: commands.IOCTLS),
            Table("bpftrace_sys/render/strace/rows.py", "IOCTLS", lambda: strace.IOCTLS),
            _covered(lambda: perf_ioctl.NAMES.values()),
        ),
    ),
)  # fmt: skip
"""Helpers are no kind: their names are all that is needed. Of what the name of an attach type
does not tell, whether its target is a device, decoders/walk/measures.py has the list."""

FILES: Final = (
    ("bpf_attr.link_create", "decoders/declare/bpf_link.py"),
    ("bpf_attr.MAP_", "decoders/declare/bpf_map_attr.py"),
    ("bpf_attr.batch", "decoders/declare/bpf_map_attr.py"),
    ("bpf_attr", "decoders/declare/bpf_attr.py"),
    ("bpf_common_attr", "decoders/declare/bpf_attr.py"),
    ("perf_event_attr", "decoders/declare/perf_attr.py"),
    ("perf_event_query_bpf", "decoders/declare/perf_ioctl.py"),
    ("kcm_", "decoders/declare/perf_ioctl.py"),
    ("bpf_func_info", "decoders/declare/bpf_fields.py"),
    ("bpf_line_info", "decoders/declare/bpf_fields.py"),
    ("bpf_core_relo", "decoders/declare/bpf_fields.py"),
    ("bpf_", "decoders/declare/bpf_info.py"),
)
"""Where structs are declared, by the beginning of their names in LAYOUTS."""


SPEC: Final = "tools/uapi_gen/spec.py"


def missing(facts: dict[str, Any]) -> list[Lack]:
    """All that has no row, kind by kind; ``facts``: what the tables are made of."""
    flags, enums = unplaced(facts)
    found = [
        Lack(kind.name, name, table.file, table.name)
        for kind in KINDS
        for name in kind.all()
        for table in kind.tables
        if name not in set(table.rows())
    ]
    found += [Lack("flag", name, SPEC, "TABLES or HELPER_FLAGS") for name in flags]
    found += [Lack("enum", name, SPEC, "TABLES or OTHER_ENUMS") for name in enums]
    return [*found, *_fields(), *_ends()]


def _fields() -> Iterator[Lack]:
    declared: dict[str, list[Any]] = {key: [struct] for key, struct in STRUCTS.items()}
    for number in bpf_attr.COMMANDS:
        key, struct = one_of(number)
        declared[key].append(struct)
    for key, structs in declared.items():
        known = {place.path for struct in structs for place in places(struct)}
        file = next(file for prefix, file in FILES if key.startswith(prefix))
        for member in LAYOUTS[key]:
            if member.path not in known and member.path not in NOT_DECLARED:
                yield Lack("field", f"{key}: {member.path}", file, "its struct")


def _ends() -> Iterator[Lack]:
    for part in sorted(last_fields.grown()):
        yield Lack(
            "last field", f"bpf_attr.{part}", "bpftrace_sys/story/explain/last_fields.py",
            "LAST_FIELDS or BEYOND",
        )  # fmt: skip


def report(lacks: list[Lack]) -> str:
    """The lacks by what they are about."""
    if not lacks:
        return "every row is there\n"
    lines = []
    about = ("", "")
    for lack in lacks:
        if (lack.kind, lack.name) != about:
            about = (lack.kind, lack.name)
            lines.append(f"{lack.kind} {lack.name}")
        lines.append(f"    {lack.file}: {lack.table}")
    lines.append("docs/extending.md says what each row holds, and what else belongs to it.")
    return "\n".join(lines) + "\n"
