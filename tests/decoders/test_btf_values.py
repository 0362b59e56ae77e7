"""Values that BTF gives types to, against what bpftool dumps of maps."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from decoders.formats import btf_values
from decoders.formats.btf import Btf, parse
from decoders.formats.btf_types import Kind
from decoders.values import BEYOND_SIZE, Absent, Array, Bytes, Int, Name, Struct, Text, Value
from tests.support import bpf_asm
from tests.support.btf import (
    CONST,
    DATASEC,
    FLOAT,
    TYPEDEF,
    VAR,
    Blob,
    compiled,
    needs,
    run,
    section,
)


@pytest.fixture
def types(tmp_path: Path) -> Btf:
    """BTF of SOURCE."""
    return parse(section(compiled(tmp_path), ".BTF"))


def assert_agrees(value: Value | None, dumped: Any) -> None:
    """Whether `bpftool map dump -j` shows the value as we do.

    It says "(nil)", "0x1f" or (of pointers to functions) a number where we have an Int,
    and shows a bit-field in hex, without its sign or name.
    """
    match value:
        case Struct(fields):
            inner = {name: each for name, each in dumped.items() if name not in ("", "(anon)")}
            for name in ("", "(anon)"):
                inner |= dumped.get(name, {})
            assert sorted(name for name, _ in fields) == sorted(inner)
            for name, each in fields:
                assert_agrees(each, inner[name])
        case Array(items, total):
            assert total == len(items) == len(dumped)
            for each, theirs in zip(items, dumped, strict=True):
                assert_agrees(each, theirs)
        case Text(data):
            assert dumped == data.decode()
        case Bytes(data):
            assert dumped == list(data)
        case Name(number) | Int(number) if str(dumped).startswith(("0x", "(nil)")):
            theirs = int(dumped.replace("(nil)", "0"), 0)
            # The same bits, as signed and as unsigned number.
            assert number == theirs or (number < 0 and (theirs - number).bit_count() == 1)
        case Name(number, name, "bool"):
            assert dumped is {"true": True, "false": False}[name or ""]
        case Name(number, None):
            assert dumped % (1 << 32) == number % (1 << 32)  # it takes all enums as signed
        case Name(_, name):
            assert dumped == name
        case Int(number):
            assert dumped == number
        case _:
            pytest.fail(f"{value} is not {dumped}")


def create_with_btf(btf_fd: int, key: int, value: int, sizes: tuple[int, int]) -> int:
    attr = struct.pack(
        "<IIIIIII16sIIIIII",
        1, *sizes, 4, 0, 0, 0, b"values", 0, btf_fd, key, value, 0, 0,
    )  # fmt: skip
    return bpf_asm.bpf(bpf_asm.MAP_CREATE, attr)


def update(map_fd: int, key: bytes, value: bytes) -> None:
    import ctypes

    key_buf = ctypes.create_string_buffer(key, len(key))
    value_buf = ctypes.create_string_buffer(value, len(value))
    addresses = (ctypes.addressof(key_buf), ctypes.addressof(value_buf))
    bpf_asm.bpf(2, struct.pack("<IIQQQ", map_fd, 0, *addresses, 0))


def map_id(map_fd: int) -> str:
    text = Path(f"/proc/self/fdinfo/{map_fd}").read_text()
    return str(re.findall(r"^map_id:\s*(\d+)$", text, re.M)[0])


@pytest.mark.skipif(bpf_asm.why_not() is not None, reason=str(bpf_asm.why_not()))
@needs("bpftool", "clang")
@pytest.mark.live
def test_values_are_those_of_bpftool_map_dump(tmp_path: Path) -> None:
    blob = section(compiled(tmp_path), ".BTF")
    btf = parse(blob)
    key, value = btf.find("point", Kind.STRUCT), btf.find("everything", Kind.STRUCT)
    assert key is not None
    assert value is not None
    contents = {
        struct.pack("<ii", 7, -7): bytes(range(1, 128)) * 4,
        struct.pack("<ii", 0, 1): bytes(value.size),
        struct.pack("<ii", -1, 2): b"\xff" * value.size,
    }
    # Printable text with its NUL is what both sides show as a string.
    at = {member.name: member.bit_offset // 8 for member in value.members}
    texts = {at["name"]: b"name\0".ljust(16, b"\0"), at["full"]: b"abc\0"}
    bools = {at["flag"]: b"\1", at["flags"]: b"\0\1"}
    with bpf_asm.btf_load(blob) as loaded:
        map_fd = create_with_btf(loaded.fd, key.id, value.id, (key.size, value.size))
    try:
        for each, data in contents.items():
            changed = bytearray(data[: value.size])
            for offset, text in (texts | bools).items():
                changed[offset : offset + len(text)] = text
            changed[at["colour"] : at["colour"] + 4] = struct.pack("<I", 5)
            changed[at["level"] : at["level"] + 4] = struct.pack("<i", -2)
            contents[each] = bytes(changed)
            update(map_fd, each, contents[each])
        dumped = run("bpftool", "-j", "map", "dump", "id", map_id(map_fd)).stdout
    finally:
        os.close(map_fd)
    rows = json.loads(dumped)
    assert len(rows) == len(contents)
    for row in rows:
        raw_key = bytes(int(each, 16) for each in row["key"])
        raw_value = bytes(int(each, 16) for each in row["value"])
        assert raw_value == contents[raw_key]
        assert_agrees(btf_values.value(btf, key.id, raw_key), row["formatted"]["key"])
        assert_agrees(btf_values.value(btf, value.id, raw_value), row["formatted"]["value"])


@pytest.fixture
def kit() -> tuple[Blob, dict[str, int]]:
    blob = Blob()
    ids = {
        "int": blob.number("int", 4, 1),
        "char": blob.number("char", 1, 1),
        "u8": blob.number("u8", 1),
    }
    ids["u32"] = blob.number("u32", 4)
    ids["bool"] = blob.number("_Bool", 1, 4)
    return blob, ids


def test_values(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    text = blob.array(ids["char"], 8)
    level = blob.enum("level", flag=True, LOW=-2, HIGH=3)
    old_level = blob.enum("old_level", OLD=0xFFFFFFFE)
    big = blob.enum64("big", B=1 << 40)
    double = blob.add(FLOAT, "double", 8)
    alias = blob.add(TYPEDEF, "alias", blob.add(CONST, "", ids["int"]))
    btf = blob.parse()
    expected: list[tuple[int, bytes, Value]] = [
        (ids["int"], b"\xfe\xff\xff\xff", Int(-2)),
        (ids["u32"], b"\xfe\xff\xff\xff", Int(0xFFFFFFFE)),
        (alias, b"\1\0\0\0", Int(1)),
        (ids["bool"], b"\1", Name(1, "true", "bool")),
        (ids["bool"], b"\2", Name(2, None, "bool")),
        (text, b"hi\0\0\0\0\0\0", Text(b"hi")),
        (text, b"hi\0there", Text(b"hi\0there")),
        (text, b"hi", Text(b"hi", False)),
        (text, b"", Absent(BEYOND_SIZE)),
        (level, b"\xfe\xff\xff\xff", Name(-2, "LOW", "level")),
        (level, b"\4\0\0\0", Name(4, None, "level")),
        (old_level, b"\xfe\xff\xff\xff", Name(0xFFFFFFFE, "OLD", "old_level")),
        (big, bytes(5) + b"\1\0\0", Name(1 << 40, "B", "big")),
        (double, bytes(8), Bytes(bytes(8), 8)),
        (ids["int"], b"\1\2", Bytes(b"\1\2", 4)),
        (ids["int"], b"\1\0\0\0\0\0\0\0", Int(1)),
        (
            ids["int"],
            b"\1\0\0\0\0\0\0\7",
            Struct((("value", Int(1)), (btf_values.REST, Bytes(b"\0\0\0\7", 4)))),
        ),
        (0, b"ab", Bytes(b"ab", 2)),
        (4711, b"ab", Bytes(b"ab", 2)),
    ]
    for type_id, data, value in expected:
        made = btf_values.value(btf, type_id, data)
        assert (type(made), made) == (type(value), value)


def test_bit_fields_old_and_new_in_both_byte_orders() -> None:
    for order in "<>":
        blob = Blob(order)
        number = blob.number("int", 4, 1)
        three = blob.number("int", 4, 1, 0, 3)
        five = blob.number("u32", 4, 0, 3, 5)
        old = blob.struct("old", 4, ("a", three, 0), ("b", five, 0), ("c", three, 11))
        new = blob.struct(
            "new", 4, ("a", number, 3 << 24), ("b", number, 5 << 24 | 3),
            ("c", number, 3 << 24 | 11), flag=True,
        )  # fmt: skip
        btf = blob.parse()
        # GCC and clang fill the lowest bits first on little-endian machines, the highest
        # first on big-endian ones.
        data = bytes([0b10110_101, 0b00_011_000, 0, 0])
        if order == ">":
            data = bytes([0b101_10110, 0b000_011_00, 0, 0])
        got_old = btf_values.value(btf, old, data)
        got_new = btf_values.value(btf, new, data)
        assert isinstance(got_old, Struct)
        assert isinstance(got_new, Struct)
        assert got_old.fields == (("a", Int(-3)), ("b", Int(0b10110)), ("c", Int(3)))
        assert got_new.fields == (("a", Int(-3)), ("b", Int(0b10110 - 32)), ("c", Int(3)))


def test_short_structs_keep_what_is_there(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    pair = blob.struct("pair", 8, ("a", ids["int"], 0), ("b", ids["int"], 32))
    pairs = blob.array(pair, 100)
    btf = blob.parse()
    got = btf_values.value(btf, pairs, struct.pack("<iii", 1, 2, 3))
    assert got == Array(
        (
            Struct((("a", Int(1)), ("b", Int(2))), "struct pair"),
            Struct((("a", Int(3)), ("b", Absent(BEYOND_SIZE))), "struct pair"),
        ),
        100,
    )


def test_values_in_a_row(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    btf = blob.parse()
    data = struct.pack("<iiii", 1, 0, -2, 0)
    assert btf_values.values(btf, ids["int"], data, 8) == Array((Int(1), Int(-2)), 2)
    assert btf_values.values(btf, ids["int"], data, 0) == Array((), 0)
    assert btf_values.values(btf, ids["int"], data, 100) == Array((), 0)
    many = btf_values.values(btf, ids["u8"], bytes(1 << 20), 1)
    assert many.total == 1 << 20
    assert len(many.items) <= btf_values.MAX_VALUES + 1


def test_sections_of_variables(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    first = blob.add(VAR, "first", ids["int"], 1)
    second = blob.add(VAR, "second", ids["bool"], 0)
    area = blob.add(DATASEC, ".data", 24, second, 16, 1, first, 0, 4, vlen=2)
    btf = blob.parse()
    data = struct.pack("<i", 3) + bytes(4) + b"literal\0" + b"\1" + bytes(6) + b"\7"
    assert btf_values.value(btf, area, data) == Struct(
        (
            ("first", Int(3)),
            ("(at 4)", Bytes(bytes(4) + b"literal\0", 12)),
            ("second", Name(1, "true", "bool")),
            ("(at 17)", Bytes(bytes(6) + b"\7", 7)),
        ),
        ".data",
    )


@needs("clang")
def test_typedefs_name_anonymous_structs(types: Btf) -> None:
    everything = types.find("everything")
    assert everything is not None
    value = btf_values.value(types, everything.id, bytes(everything.size))
    assert isinstance(value, Struct)
    assert value.ctype == "struct everything"
    anon = value.get("anon")
    assert isinstance(anon, Struct)
    assert anon.ctype == "anon_t"
    assert value.get("v4") == Int(0)
    assert value.get("flexible") is not None
