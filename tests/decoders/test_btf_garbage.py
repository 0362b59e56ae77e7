"""BTF that is spoiled, made up, or made to cost much."""

from __future__ import annotations

import struct
import time

from hypothesis import given
from hypothesis import strategies as st

from decoders import newer
from decoders.formats import btf_c, btf_values
from decoders.formats.btf import Btf, parse
from decoders.formats.btf_types import BtfError
from decoders.uapi.layouts import LAYOUTS
from decoders.values import Array, Bytes, Struct, Text, Value
from tests.support.btf import (
    ARRAY,
    CONST,
    DATASEC,
    DECL_TAG,
    ENUM,
    ENUM64,
    FUNC,
    INT,
    PROTO,
    PTR,
    STRUCT,
    TYPEDEF,
    UNION,
    VAR,
    VOLATILE,
    Blob,
    c_decl,
)
from tests.support.examples import examples


def use_everything(btf: Btf) -> None:
    """Calls all there is, and demands bounded results."""
    data_size = btf.data_size
    assert btf.problem is None or btf.problem
    made = list(btf)
    assert len(made) == len(btf.ids) <= data_size // 12
    sizes = [len(each.members) + len(each.enumerators) + len(each.params) for each in made]
    assert sum(sizes) <= data_size // 4
    for type_id in [-1, 0, *btf.ids, btf.end_id, 1 << 32]:
        btf.resolve(type_id)
        btf.size_of(type_id)
        btf.tags(type_id)
        for text in (
            btf_c.c_type(btf, type_id, "name"),
            c_decl(btf, type_id) if btf.type(type_id) else "",
            btf_c.func_prototype(btf, type_id) or "",
        ):
            assert len(text) < btf_c.TYPE_LIMIT + 64 * (data_size + 1024)
        for data in (b"", b"\xff" * 7, bytes(range(256)) * 2):
            value = btf_values.value(btf, type_id, data)
            assert count(value) <= 2 * btf_values.MAX_VALUES
        assert all(found in (*btf.ids, 0) for found in btf.find_all(btf.name(type_id)))
    assert len(btf_c.summary(btf)) < 10_000 + 8 * 512
    for _text in btf_c.declarations(btf):
        pass
    newer.newer_names(btf, {"bpf_cmd": {0: "a"}, "": {}, "flags": {1: "b"}})
    newer.newer_fields(btf, {"bpf_attr": LAYOUTS["bpf_attr"], "a": (), "": ()})


def count(value: Value) -> int:
    match value:
        case Struct(fields):
            return 1 + sum(count(each) for _, each in fields)
        case Array(items):
            return 1 + sum(map(count, items))
    return 1


def tried(data: bytes) -> None:
    start = time.process_time()
    try:
        btf = parse(data)
    except BtfError:
        return
    use_everything(btf)
    assert time.process_time() - start < 20


small_ids = st.integers(0, 12)
words = st.one_of(small_ids, st.sampled_from([31, 32, 64, 1 << 24, 1 << 31, 0xFFFFFFFF]))


@st.composite
def type_sections(draw: st.DrawFn) -> bytes:
    """Types that refer to each other at will, with names out of a few strings."""
    blob = Blob(draw(st.sampled_from("<>")))
    blob.strings = b"\0a\0bpf_attr\0char\0\x1b\xff\0bpf_cmd\0"
    # In a layout of a kind: what stands behind the btf_type, fixed and for each element.
    tails = {INT: (1, 0), ARRAY: (3, 0), VAR: (1, 0), DECL_TAG: (1, 0), STRUCT: (0, 3)}
    tails |= {UNION: (0, 3), ENUM: (0, 2), ENUM64: (0, 3), PROTO: (0, 2), DATASEC: (0, 3)}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(1, 19))
        fixed, element = tails.get(kind, (0, 0))
        vlen = draw(st.integers(0, 5)) if element else 0
        tail = draw(
            st.lists(words, min_size=fixed + element * vlen, max_size=fixed + element * vlen)
        )
        claimed = draw(st.sampled_from([vlen] * 8 + [0xFFFFFF]))
        name = draw(st.sampled_from([0, 0, 1, 3, 12, 17, 20, 1 << 20]))
        blob.add(kind, name, draw(words), *tail, vlen=claimed, flag=draw(st.booleans()))
    return blob.data()


@examples(300)
@given(type_sections())
def test_types_that_refer_to_each_other_at_will(data: bytes) -> None:
    tried(data)


@examples(300)
@given(st.binary(max_size=400), st.sampled_from(["<", ">"]), st.integers(0, 500))
def test_random_sections(body: bytes, order: str, split: int) -> None:
    head = struct.pack(f"{order}HBB5I", 0xEB9F, 1, 0, 24, 0, split, split, 500)
    tried(head + body)


@examples(300)
@given(st.binary(max_size=64))
def test_random_headers(data: bytes) -> None:
    tried(data)
    tried(b"\x9f\xeb" + data)
    tried(b"\xeb\x9f" + data)


@examples(150)
@given(st.data())
def test_spoiled_real_btf(data: st.DataObject) -> None:
    blob = Blob()
    number = blob.number("int", 4, 1)
    inner = blob.struct("", 8, ("a", number, 0), ("b", number, 32))
    pointer = blob.add(PTR, "", 7)
    proto = blob.proto(number, ("ctx", pointer))
    blob.add(FUNC, "main", proto, vlen=1)
    blob.array(inner, 3)
    blob.struct("outer", 32, ("x", inner, 0), ("p", pointer, 64), ("y", 6, 128))
    blob.add(TYPEDEF, "outer_t", 7)
    whole = bytearray(blob.data())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    tried(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_bombs() -> None:
    """Small blobs that stand for huge things."""
    blob = Blob()
    byte = blob.number("char", 1, 1)
    for level in range(30):  # 64 ** 30 members
        blob.struct("", 1, *[(f"m{level}", byte + level, 0)] * 64)
    deepest = blob.next_id - 1
    for level in range(30):  # and as many parameters
        blob.proto(byte, *[(f"p{level}", blob.next_id - 1 if level else byte)] * 64)
    btf = blob.parse()
    start = time.process_time()
    assert len(c_decl(btf, deepest)) < 4 * btf_c.budget(btf)
    assert len(btf_c.c_type(btf, blob.next_id - 1, "f")) < 4 * btf_c.TYPE_LIMIT
    assert count(btf_values.value(btf, deepest, b"\1")) <= 2 * btf_values.MAX_VALUES
    assert sum(1 for _ in btf_c.declarations(btf)) == 0
    assert time.process_time() - start < 20

    blob = Blob()
    element = blob.number("int", 4, 1)
    for _ in range(60):
        element = blob.array(element, 0xFFFFFFFF)
    empty = blob.array(blob.struct("empty", 0), 0xFFFFFFFF)
    texts = blob.array(blob.number("char", 1), 0xFFFFFFFF)
    overlapping = blob.struct("texts", 4, *[("t", texts, 0)] * 5000)
    btf = blob.parse()
    data = bytes(range(1, 201)) * 5000
    for type_id in (*btf.ids, empty):
        assert count(btf_values.value(btf, type_id, data)) <= 2 * btf_values.MAX_VALUES
    value = btf_values.value(btf, overlapping, data)
    assert isinstance(value, Struct)
    copied = sum(len(each.data) for _, each in value.fields if isinstance(each, Text | Bytes))
    assert copied <= 6 * len(data)


def test_repetition_is_bounded() -> None:
    """A few bytes each that make a large text again and again."""
    blob = Blob()
    number = blob.number("int", 4, 1)
    large = blob.struct("", 1, *[("member", number, 0)] * 3_000)
    for _ in range(3_000):
        blob.add(TYPEDEF, "again", large)
    tagged = blob.struct("tagged", 1, *[("m", number, 0)] * 3_000)
    for _ in range(3_000):
        blob.add(DECL_TAG, "tag", tagged, 5)
    btf = blob.parse()
    start = time.process_time()
    texts = list(btf_c.declarations(btf))
    assert sum(map(len, texts)) < 2 * btf_c.budget(btf)
    assert texts[-1] == "/* ... */"
    assert len(c_decl(btf, tagged)) < btf_c.budget(btf)
    assert time.process_time() - start < 30


def test_cycles_end() -> None:
    blob = Blob()
    blob.number("int", 4, 1)
    blob.add(TYPEDEF, "t", 2)  # itself
    blob.add(CONST, "", 4)
    blob.add(VOLATILE, "", 3)  # each other
    blob.add(PTR, "", 5)
    blob.array(6, 2)
    blob.struct("s", 8, ("s", 7, 0))  # itself by value
    blob.proto(8, ("f", 8))
    blob.add(FUNC, "f", 9, vlen=1)
    btf = blob.parse()
    use_everything(btf)
    assert btf.resolve(2) is None
    assert btf.size_of(6) is None
    assert c_decl(btf, 7) == "struct s {\n\tstruct s s;\n};"
    assert btf_c.c_type(btf, 5, "p").startswith("... *")
