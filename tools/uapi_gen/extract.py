"""Headers and gcc -> facts: names, numbers, offsets.

gcc compiles the headers with debugging information; DWARF names every type,
member and enumerator.  Numbers come from an array that gcc fills in, read from
the object file: nothing is run, so headers of other machines serve as well.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from uapi_gen.spec import UNITS, Unit

Facts: TypeAlias = dict[str, Any]

_DEFINE = re.compile(r"#define ([A-Za-z]\w*) +\S")
_ATTR_STRUCT = re.compile(r"^\tstruct \{[ \t]*(?:/\*(.*?)\*/)?", re.M)


class ExtractError(Exception):
    """Headers that the generator does not understand."""


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise ExtractError(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout


@contextmanager
def _uapi_folder(libbpf: Path) -> Iterator[tuple[Path, str]]:
    """libbpf's include/uapi, and the kernel commit that it was taken from.

    ``libbpf`` is a checkout, or a git directory without a work tree.
    """
    if (libbpf / "include/uapi/linux/bpf.h").exists():
        yield libbpf / "include/uapi", (libbpf / "CHECKPOINT-COMMIT").read_text().strip()
        return
    with tempfile.TemporaryDirectory() as folder:
        tar = _run("git", "-C", str(libbpf), "archive", "HEAD", "include/uapi", "CHECKPOINT-COMMIT")
        subprocess.run(["tar", "-x", "-C", folder], input=tar, check=True)
        yield Path(folder, "include/uapi"), Path(folder, "CHECKPOINT-COMMIT").read_text().strip()


def _package(path: Path) -> str:
    """Name and version of the Debian package that owns a path, or "unknown"."""
    try:
        owner = _run("dpkg-query", "-S", str(path)).decode().split(": ")[0].split(",")[0]
        return _run("dpkg-query", "-W", "-f", "${Package} ${Version}", owner).decode()
    except (ExtractError, OSError):
        return "unknown"


class _Compiler:
    """gcc over one unit's headers, in a scratch folder."""

    def __init__(self, unit: Unit, uapi: Path, headers: Path, kernel: Path, scratch: Path) -> None:
        own = _run("gcc", "-print-file-name=include").decode().strip()
        machine = _run("gcc", "-print-multiarch").decode().strip()
        search = [path.format(kernel=kernel) for path in unit.search]
        folders = [str(uapi), own, *search, str(headers), str(headers / machine)]
        if unit.name == "kernel":  # headers of user space come first, the kernel's fill the gaps
            folders = [str(uapi), own, str(headers), str(headers / machine), *search]
        self._flags = [*unit.gcc, "-nostdinc", *(f"-isystem{path}" for path in folders)]
        self._includes = "".join(f"#include {name.format(kernel=kernel)}\n"
                                 for name in unit.includes)  # fmt: skip
        self._scratch = scratch

    def source(self, body: str = "") -> str:
        path = self._scratch / "unit.c"
        path.write_text(self._includes + body)
        return str(path)

    def macros(self) -> list[str]:
        """Names of the object-like macros that have a value."""
        text = _run("gcc", *self._flags, "-E", "-dM", self.source()).decode()
        return [match[1] for match in _DEFINE.finditer(text)]

    def compile(self, body: str, *flags: str) -> Path:
        out = self._scratch / "unit.o"
        _run("gcc", *self._flags, *flags, "-c", self.source(body), "-o", str(out))
        return out

    def numbers(self, names: list[str]) -> dict[str, int]:
        """What each constant expression is worth, as a signed 64-bit number."""
        rows = ",".join(f"(long long)({name})" for name in names)
        self.compile(f'const long long numbers[] __attribute__((section("n"))) = {{{rows}}};\n')
        raw = self._scratch / "numbers"
        _run("objcopy", "-O", "binary", "--only-section=n", str(self._scratch / "unit.o"), str(raw))
        data = raw.read_bytes()
        return {
            name: int.from_bytes(data[8 * index : 8 * index + 8], "little", signed=True)
            for index, name in enumerate(names)
        }


class _Dwarf:
    """Types of one object file."""

    def __init__(self, path: Path) -> None:
        from elftools.elf.elffile import ELFFile  # type: ignore[import-untyped,unused-ignore]

        self._file = path.open("rb")
        dwarf: Any = ELFFile(self._file).get_dwarf_info()
        (unit,) = dwarf.iter_CUs()
        self.top: list[Any] = list(unit.get_top_DIE().iter_children())
        program = dwarf.line_program_for_CU(unit).header
        first = 0 if program.version >= 5 else 1
        folders = [folder.decode() if isinstance(folder, bytes) else folder
                   for folder in program.include_directory]  # fmt: skip
        self._files = [""] * first + [
            f"{folders[entry.dir_index - first]}/{entry.name.decode()}"
            for entry in program.file_entry
        ]

    def close(self) -> None:
        self._file.close()

    def file(self, die: Any) -> str:
        """The header that declares it, by its last two parts."""
        index = _attribute(die, "decl_file", 0)
        return "/".join(self._files[index].split("/")[-2:])


def _attribute(die: Any, name: str, default: Any = None) -> Any:
    found = die.attributes.get(f"DW_AT_{name}")
    return default if found is None else found.value


def _name(die: Any) -> str | None:
    value = _attribute(die, "name")
    return None if value is None else value.decode()


def _type(die: Any) -> Any:
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


_WRAPPERS = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type")
_AGGREGATES = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}


def _is_whole(die: Any) -> bool:
    """A named struct or union that is defined, not only declared."""
    return die.tag in _AGGREGATES and {"DW_AT_name", "DW_AT_byte_size"} <= set(die.attributes)


def _counts(array: Any) -> list[int]:
    counts = []
    for child in array.iter_children():
        bound = _attribute(child, "upper_bound")
        counts.append(_attribute(child, "count", 0) if bound is None else bound + 1)
    return counts


def _size(die: Any) -> int:
    if die.tag in _WRAPPERS:
        return _size(_type(die))
    if die.tag == "DW_TAG_array_type":
        size = _size(_type(die))
        for count in _counts(die):
            size *= count
        return size
    return int(_attribute(die, "byte_size"))


def _spell(die: Any) -> str:
    """A type as C spells it."""
    if die is None:
        return "void"
    if die.tag == "DW_TAG_pointer_type":
        return f"{_spell(_type(die))} *"
    if die.tag == "DW_TAG_array_type":
        return _spell(_type(die)) + "".join(f"[{count or ''}]" for count in _counts(die))
    if die.tag == "DW_TAG_const_type":
        return f"const {_spell(_type(die))}"
    kind = _AGGREGATES.get(die.tag) or ("enum" if die.tag == "DW_TAG_enumeration_type" else "")
    return f"{kind} {_name(die) or '(anonymous)'}".strip()


def _members(die: Any, base: int = 0, path: str = "") -> Iterator[tuple[str, Any, int]]:
    """Members of a struct: path, DIE, offset of the struct that holds it.

    Members of anonymous structs and unions belong to the enclosing one.
    """
    for member in die.iter_children():
        if member.tag != "DW_TAG_member":
            continue
        kind = _type(member)
        name = _name(member)
        here = base + _attribute(member, "data_member_location", 0)
        if kind.tag in _AGGREGATES and _name(kind) is None:
            yield from _members(kind, here, path if name is None else f"{path}{name}.")
        elif name is not None:
            yield path + name, member, base


def _layout(die: Any) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for path, member, base in _members(die):
        kind = _type(member)
        size = _size(kind)
        width = _attribute(member, "bit_size")
        if width is None:
            offset = base + _attribute(member, "data_member_location", 0)
            rows.append([path, offset, size, None, None, _spell(kind)])
            continue
        bit = _attribute(member, "data_bit_offset")
        if bit is None:
            raise ExtractError(f"{path}: bitfield without DW_AT_data_bit_offset")
        unit = bit // (8 * size)  # of the storage units that start at the struct's start
        rows.append([path, base + unit * size, size, bit - 8 * size * unit, width, _spell(kind)])
    return {"size": _size(die), "base": 0, "members": rows}


def _layouts(name: str, die: Any, labels: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """The layout of a struct, and of each struct within it.

    ``labels`` names the anonymous members of the outermost one, in order.
    """
    yield name, _layout(die)
    yield from _nested(name, die, 0, labels)


def _nested(
    name: str, die: Any, base: int, labels: list[str] | None = None
) -> Iterator[tuple[str, Any]]:
    anonymous = iter(labels or ())
    for member in die.iter_children():
        if member.tag != "DW_TAG_member":
            continue
        kind = _type(member)
        if kind.tag not in _AGGREGATES or _name(kind) is not None:
            continue
        here = base + _attribute(member, "data_member_location", 0)
        label = _name(member) or next(anonymous, None)
        if label is not None:
            yield f"{name}.{label}", {**_layout(kind), "base": here}
        yield from _nested(name if label is None else f"{name}.{label}", kind, here)


def attr_labels(text: str) -> list[str]:
    """Labels of the anonymous structs of union bpf_attr, in order.

    The command that the header's comment names, without BPF_ and with its
    stars (``MAP_*_ELEM``); else ``field:`` and the first field.
    """
    start = text.index("\nunion bpf_attr {")
    body = text[start : text.index("\n} __attribute__", start)]
    labels = []
    for match in _ATTR_STRUCT.finditer(body):
        end = body.index("\n\t}", match.end())
        if body[end + 3] != ";":  # it has a name
            continue
        command = re.search(r"BPF_([A-Z_*]+)", match[1] or "")
        first = re.search(r"\n\s*\w+\s+(\w+)", body[match.end() : end])
        if command is None and first is None:
            raise ExtractError("anonymous struct without comment or field in union bpf_attr")
        labels.append(command[1] if command else f"field:{first[1]}")  # type: ignore[index]
    if len(set(labels)) != len(labels):
        raise ExtractError(f"labels of union bpf_attr are not unique: {labels}")
    return labels


def _unit_facts(unit: Unit, compiler: _Compiler, bpf_h: str) -> Facts:
    wanted = re.compile(unit.macros)
    macros = [name for name in compiler.macros() if wanted.fullmatch(name)]
    enums: dict[str, list[str]] = {}
    loose: list[str] = []
    structs: dict[str, Any] = {}
    if unit.enum_files or unit.structs:
        flags = ("-gdwarf-5", "-fno-eliminate-unused-debug-types", "-O0")
        dwarf = _Dwarf(compiler.compile("", *flags))
        for die in dwarf.top:
            name, file = _name(die), dwarf.file(die)
            if die.tag == "DW_TAG_enumeration_type" and file in unit.enum_files:
                members = [_name(child) or "" for child in die.iter_children()]
                if name is None:
                    loose += members
                else:
                    enums[name] = members
            elif _is_whole(die) and (file in unit.struct_files or name in unit.structs):
                labels = attr_labels(bpf_h) if name == "bpf_attr" else None
                structs.update(_layouts(name or "", die, labels))
        dwarf.close()
        missing = set(unit.structs) - set(structs)
        if missing:
            raise ExtractError(f"no such struct: {sorted(missing)}")
    enumerators = [*loose, *(name for members in enums.values() for name in members)]
    names = list(dict.fromkeys([*enumerators, *sorted(macros)]))
    return {"constants": compiler.numbers(names), "enums": enums, "structs": structs}


def _kernel_folder() -> Path:
    found = sorted(Path("/usr/src").glob("linux-headers-*-common"))
    if not found:
        raise ExtractError("no linux-headers-*-common in /usr/src: name one with --kernel-headers")
    return found[-1]


def extract(libbpf: Path, headers: Path, kernel: Path | None = None) -> Facts:
    """All facts, as tools/uapi_facts.json keeps them.

    ``libbpf`` is a checkout of libbpf (or a bare git directory), ``headers``
    the folder of the installed UAPI headers, ``kernel`` a folder of the
    kernel's own headers (by default the newest of Debian's).  Raises
    ExtractError.
    """
    kernel = kernel or _kernel_folder()
    with _uapi_folder(libbpf) as (uapi, commit), tempfile.TemporaryDirectory() as scratch:
        bpf_h = (uapi / "linux/bpf.h").read_text()
        facts: Facts = {
            "made_from": {
                "libbpf": f"include/uapi of libbpf, kernel commit {commit}",
                "headers": _package(headers / "linux/bpf.h"),
                "kernel": _package(kernel / "include/linux/errno.h"),
            }
        }
        for unit in UNITS:
            compiler = _Compiler(unit, uapi, headers, kernel, Path(scratch))
            facts[unit.name] = _unit_facts(unit, compiler, bpf_h)
    return facts
