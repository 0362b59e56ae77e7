"""``--style strace``: one line a call, in the syntax of ``strace -v`` 7.2.

What strace prints of a struct is a row of :data:`ROWS`: the names of the fields
in strace's order, with a mark where it departs from the obvious.  Offsets,
sizes, enums and flags come from the declarations in ``decoders``; so a row says
nothing twice.  Bytes are those of the RawCall, because strace prints fields as
they stand in memory, whatever the kernel makes of them.

The language of a row, in words separated by blanks:

- ``name``: a field.  How it is printed follows from its declaration.
- ``name:format``, ``name:format(length)``: printed as an entry of ``FORMATS``;
  ``length`` is the field that counts what the pointer leads to.
- ``name?test``: only where the test holds: ``field`` (not zero), ``field&FLAG``,
  ``field=number``, ``!`` before any of these, ``#field`` (the caller's struct
  reaches beyond the start of that field), ``by_ifindex``.
- a mark behind the name: ``@`` as of the exit (strace prints it then), ``>``
  with ``=> new`` where the kernel changed it, ``+`` the same where strace shows
  the old value only, ``~`` as of the exit where strace prints the entry's.
- ``|``: nothing more if the caller's struct ends at or before the next field;
  ``|name``: before that one; ``|+name``: if it ends within it.
- ``name{`` ... ``}``: a struct in the struct.
- ``=>name``: the whole again, with just that field, where it changed.
- ``*link``: what the attach type selects of :data:`LINK_ROWS`.

How this differs from strace's own lines, and why: docs/strace-style.md.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import construct as cs

from decoders import bpf_attr, bpf_info, bpf_link, insn, perf_attr
from decoders.bpf_fields import ATTACH_BY_IFINDEX
from decoders.call import Call
from decoders.declare import (
    Bits,
    Chars,
    FactField,
    FdField,
    FlagSet,
    Named,
    NotedField,
    Num,
    Pick,
    Ptr,
    Raw,
    layout_of,
)
from decoders.events import ProcessEvent
from decoders.memory import Snapshot
from decoders.raw import AUDIT_ARCH_I386, ENTRY, EXIT
from decoders.uapi import const, names, perf, system
from decoders.values import Flags, Int, Name

PAGE: Final = 4096
"""strace prints the address of an attr or info struct that is larger."""
PATH_MAX: Final = 4096

# ---------------------------------------------------------------- what is printed

_TARGET: Final = "target_ifindex?by_ifindex target_fd?!by_ifindex"
_CHANGING: Final = " elem_flags:lookup flags:x } =>batch.count"
_ORDERED: Final = (
    "relative_id?flags&BPF_F_ID relative_fd?!flags&BPF_F_ID expected_revision:x}"
)
_BITS: Final = [member[0] for member in perf_attr.FLAGS.members]
_AFTER_STRACE: Final = ("defer_callchain", "defer_output")
"""Bits that strace 7.2 has no names for: printed where they are set."""

ROWS: Final[dict[str, str]] = {
    "MAP_CREATE": "map_type key_size value_size max_entries | map_flags | inner_map_fd"
    " |numa_node numa_node:numa?map_flags&BPF_F_NUMA_NODE | map_name | map_ifindex"
    " | btf_fd btf_key_type_id btf_value_type_id | btf_vmlinux_value_type_id:u | map_extra:u64"
    " | value_type_btf_obj_fd | map_token_fd | excl_prog_hash excl_prog_hash_size",
    "MAP_LOOKUP_ELEM": "map_fd key value | flags:lookup",
    "MAP_UPDATE_ELEM": "map_fd key value flags:elem",
    "MAP_DELETE_ELEM": "map_fd key",
    "MAP_GET_NEXT_KEY": "map_fd key next_key",
    "PROG_LOAD": "prog_type insn_cnt insns:insns(insn_cnt) license:text"
    " | log_level:u log_size log_buf~:text(log_size) | kern_version | prog_flags | prog_name"
    " | prog_ifindex | expected_attach_type | prog_btf_fd func_info_rec_size func_info"
    " func_info_cnt line_info_rec_size line_info line_info_cnt | attach_btf_id:u | attach_prog_fd"
    " |fd_array core_relo_cnt?#core_relos fd_array | core_relos core_relo_rec_size"
    " | log_true_size@ | prog_token_fd | fd_array_cnt"
    " | signature:hex(signature_size) signature_size keyring_id",
    "OBJ_PIN": "pathname:path bpf_fd:fd | file_flags:file | path_fd:dirfd",
    "OBJ_GET": "=OBJ_PIN",
    "PROG_ATTACH": _TARGET + " attach_bpf_fd attach_type attach_flags | replace_bpf_fd"
    " |relative_fd relative_id?attach_flags&BPF_F_ID relative_fd?!attach_flags&BPF_F_ID"
    " expected_revision",
    "PROG_DETACH": "=PROG_ATTACH",
    "PROG_TEST_RUN": "test{ prog_fd retval+ data_size_in data_size_out+ data_in data_out repeat"
    " duration+ | ctx_size_in ctx_size_out+ ctx_in ctx_out | flags cpu | batch_size }",
    "PROG_GET_NEXT_ID": "start_id next_id@",
    "MAP_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID": "prog_id",
    "MAP_GET_FD_BY_ID": "map_id | open_flags",
    "OBJ_GET_INFO_BY_FD": "info{ bpf_fd info_len> info@:info(info_len) }",
    "PROG_QUERY": "query{ " + _TARGET + " attach_type query_flags attach_flags+"
    " prog_ids@:us(prog_cnt) prog_cnt> | prog_attach_flags@:attaches(prog_cnt)"
    " | link_ids@:us(prog_cnt) link_attach_flags@:attaches(prog_cnt) revision@:x }",
    "RAW_TRACEPOINT_OPEN": "raw_tracepoint{ name:name128 prog_fd |+cookie cookie:x }",
    "BTF_LOAD": "btf:bytes(btf_size) btf_log_buf btf_size btf_log_size btf_log_level:u"
    " | btf_log_true_size@ | btf_flags:file btf_token_fd",
    "BTF_GET_FD_BY_ID": "btf_id | open_flags fd_by_id_token_fd",
    "TASK_FD_QUERY": "task_fd_query{ pid:d fd:fd flags:u buf_len> buf@:text(buf_len) prog_id@"
    " fd_type@ probe_offset@:x probe_addr@:x }",
    "MAP_LOOKUP_AND_DELETE_ELEM": "=MAP_LOOKUP_ELEM",
    "MAP_FREEZE": "map_fd",
    "BTF_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH": "batch{ in_batch out_batch keys values count map_fd" + _CHANGING,
    "MAP_LOOKUP_AND_DELETE_BATCH": "=MAP_LOOKUP_BATCH",
    "MAP_UPDATE_BATCH": "batch{ keys values count map_fd" + _CHANGING.replace("lookup", "elem"),
    "MAP_DELETE_BATCH": "batch{ keys count map_fd" + _CHANGING,
    "LINK_CREATE": "link_create{ prog_fd " + _TARGET + " attach_type flags:attach"
    " |target_btf_id *link }",
    "LINK_UPDATE": "link_update{ link_fd new_prog_fd flags:attach"
    " old_prog_fd?flags&BPF_F_REPLACE }",
    "LINK_GET_FD_BY_ID": "link_id",
    "LINK_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "ENABLE_STATS": "enable_stats{ type }",
    "ITER_CREATE": "iter_create{ link_fd flags:x }",
    "LINK_DETACH": "link_detach{ link_fd }",
    "PROG_BIND_MAP": "prog_bind_map{ prog_fd map_fd flags:x }",
    "TOKEN_CREATE": "token_create{ flags:x bpffs_fd }",
    "PROG_STREAM_READ_BY_FD": "prog_stream_read{ stream_buf@:stream(ret) stream_buf_len"
    " stream_id:u prog_fd }",
    "PROG_ASSOC_STRUCT_OPS": "prog_assoc_struct_ops{ map_fd prog_fd flags:x }",
    # Behind pointers, or not of bpf(2) at all.
    "COMMON_ATTR": "log_buf~:text(log_size) log_size log_level:u log_true_size@",
    "MAP_INFO": "type id key_size value_size max_entries map_flags | name"
    " | ifindex btf_vmlinux_value_type_id:u netns_dev:dev netns_ino"
    " | btf_id btf_key_type_id btf_value_type_id |map_extra btf_vmlinux_id map_extra:x"
    " | hash:x hash_size",
    "PROG_INFO": "type id tag jited_prog_len> jited_prog_insns:hex(jited_prog_len)"
    " xlated_prog_len> xlated_prog_insns:insns(xlated_prog_len/8)"
    " | load_time created_by_uid:id nr_map_ids> map_ids:us(nr_map_ids) name"
    " | ifindex gpl_compatible netns_dev:dev netns_ino"
    " | nr_jited_ksyms> nr_jited_func_lens> jited_ksyms> jited_func_lens>"
    " | btf_id func_info_rec_size> func_info nr_func_info> nr_line_info> line_info"
    " jited_line_info> nr_jited_line_info> line_info_rec_size> jited_line_info_rec_size>"
    " nr_prog_tags> prog_tags | run_time_ns run_cnt | recursion_misses:u64 | verified_insns"
    " | attach_btf_obj_id attach_btf_id:u",
    "PERF_ATTR": "type:attr_type size:attr_size config:config sample_freq?freq sample_period?!freq"
    " sample_type read_format "
    + " ".join(
        f"{name}?{name}" if name in _AFTER_STRACE else name
        for name in _BITS
        if name != "__reserved_1"
    ).replace("precise_ip", "precise_ip:precise")
    + " __reserved_1:reserved?__reserved_1 |wakeup_events"
    " wakeup_watermark?watermark wakeup_events?!watermark bp_type:bp_type?type=5"
    " bp_addr?type=5 config1:x?!type=5 |config2 bp_len:u?type=5 config2:x?!type=5"
    " |branch_sample_type branch_sample_type?sample_type&PERF_SAMPLE_BRANCH_STACK"
    " | sample_regs_user:x |sample_stack_user"
    " sample_stack_user:x?sample_type&PERF_SAMPLE_STACK_USER |clockid clockid:clock?use_clockid"
    " | sample_regs_intr:x | aux_watermark:u | sample_max_stack:max_stack | aux_sample_size"
    " | aux_start_paused aux_pause aux_resume __reserved_3:reserved?__reserved_3"
    " | sig_data:x | config3:x | config4:x",
}
"""By the command without BPF_, or the struct's name; ``=NAME``: as that one."""

LINK_ROWS: Final[dict[str, str]] = {
    "iter_info": "iter_info:iter(iter_info_len) iter_info_len",
    "perf_event": "perf_event{ bpf_cookie:x }",
    "tracing": "tracing{ target_btf_id:u cookie:x }",
    "tracing_multi": "tracing_multi{ ids:us(cnt) cookies:xs(cnt) cnt }",
    "netfilter": "netfilter{ pf:u hooknum:u priority flags }",
    "tcx": "tcx{ " + _ORDERED,
    "netkit": "netkit{ " + _ORDERED,
    "cgroup": "cgroup{ " + _ORDERED,
    "cgroup_plain": "target_btf_id?target_btf_id",
    "kprobe_multi": "kprobe_multi{ flags cnt syms:strings(cnt) addrs:xs(cnt) cookies:xs(cnt) }",
    "uprobe_multi": "uprobe_multi{ path:path offsets:xs(cnt) ref_ctr_offsets:xs(cnt)"
    " cookies:xs(cnt) cnt flags pid:d | path_fd:fd }",
}
"""By the first field of LINK_CREATE's variant."""

STRUCTS: Final[dict[str, Any]] = {
    **{
        name.removeprefix("BPF_"): bpf_attr.COMMANDS[number].attr
        for number, name in names.bpf_cmd.items()
        if number in bpf_attr.COMMANDS
    },
    "COMMON_ATTR": bpf_attr.COMMON_ATTR,
    "MAP_INFO": bpf_info.MAP_INFO,
    "PROG_INFO": bpf_info.PROG_INFO,
    "PERF_ATTR": perf_attr.PERF_ATTR,
}

DEFAULTS: Final[dict[str, str]] = {
    "bpf_map_type": "BPF_MAP_TYPE_???",
    "bpf_prog_type": "BPF_PROG_TYPE_???",
    "bpf_attach_type": "BPF_???",
    "bpf_stats_type": "BPF_STATS_???",
    "bpf_task_fd_type": "BPF_FD_TYPE_???",
}
"""What strace says of a number that an enum has no name for."""

IOCTLS: Final[dict[str, str]] = {
    "PERF_EVENT_IOC_ENABLE": "group",
    "PERF_EVENT_IOC_DISABLE": "group",
    "PERF_EVENT_IOC_RESET": "group",
    "PERF_EVENT_IOC_REFRESH": "d",
    "PERF_EVENT_IOC_PERIOD": "number",
    "PERF_EVENT_IOC_SET_OUTPUT": "d",
    "PERF_EVENT_IOC_SET_FILTER": "filter",
    "PERF_EVENT_IOC_ID": "number_out",
    "PERF_EVENT_IOC_SET_BPF": "d",
    "PERF_EVENT_IOC_PAUSE_OUTPUT": "u",
    "PERF_EVENT_IOC_QUERY_BPF": "query",
    "PERF_EVENT_IOC_MODIFY_ATTRIBUTES": "attr",
}
"""How the argument of a request is printed; others as a number in hex."""

_OPEN_ORDER: Final = (
    "O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_DIRECT O_LARGEFILE"
    " O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH O_TMPFILE O_DIRECTORY FASYNC"
)
_PRECISE: Final = (
    "arbitrary skid",
    "constant skid",
    "requested to have 0 skid",
    "must have 0 skid",
)
_RESTARTS: Final = {
    512: "To be restarted if SA_RESTART is set",
    513: "To be restarted",
    514: "To be restarted if no handler",
    516: "Interrupted by signal",
}
_ERRNO: Final = {35: "EDEADLK", 95: "EOPNOTSUPP"}
"""Of two names for a number, strace's."""

# strace knows one set of attach flags, of file flags and of elem flags, from which each of
# these commands takes what it can use.
_FILE_FLAGS: Final = {
    **names.file_flags,
    **{bit: name for bit, name in names.map_flags.items() if bit >= 1 << 15},
}
_ELEM_FLAGS: Final = dict(sorted(names.map_elem_flags.items(), reverse=True))
_LOOKUP_FLAGS: Final = {bit: name for bit, name in _ELEM_FLAGS.items() if not bit & 3}

# ---------------------------------------------------------------- numbers and strings


def hexa(value: int) -> str:
    """A number as %#x prints it."""
    return f"{value:#x}" if value else "0"


def address(value: int) -> str:
    """A pointer."""
    return f"{value:#x}" if value else "NULL"


def xval(value: int, table: Mapping[int, str], default: str | None) -> str:
    """An enum value."""
    name = table.get(value)
    if name is not None:
        return name
    return f"{hexa(value)} /* {default} */" if default else hexa(value)


def flags(value: int, table: Mapping[int, str], default: str) -> str:
    """A set of bits."""
    if not value:
        return table.get(0, "0")
    found = []
    rest = value
    for bits, name in table.items():
        if bits and rest & bits == bits:
            found.append(name)
            rest &= ~bits
    if not found:
        return f"{hexa(value)} /* {default} */"
    if rest:
        found.append(hexa(rest))
    return "|".join(found)


_PLAIN: Final = {
    **{code: chr(code) for code in range(0x20, 0x7F)},
    **{0x22: '\\"', 0x5C: "\\\\", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"},
}
_SHORT: Final = [_PLAIN.get(code, f"\\{code:o}") for code in range(256)]
_LONG: Final = [_PLAIN.get(code, f"\\{code:03o}") for code in range(256)]
_SIMPLE: Final = re.compile(rb"[ !#-\[\]-~]*")


def quoted(data: bytes) -> str:
    """A string in quotes; bytes that do not print as the shortest octal escape."""
    if _SIMPLE.fullmatch(data):
        return f'"{data.decode("ascii")}"'
    last = len(data) - 1
    return '"' + "".join(
        (_LONG if at < last and 0x30 <= data[at + 1] <= 0x37 else _SHORT)[code]
        for at, code in enumerate(data)
    ) + '"'


def hex_quoted(data: bytes) -> str:
    """Bytes in quotes, all of them as hex escapes."""
    return '"' + "".join(f"\\x{code:02x}" for code in data) + '"'


# ---------------------------------------------------------------- instructions


def _codes(text: str) -> dict[int, str]:
    """The constants of ``insn`` that go by these names, by number."""
    return {getattr(insn, name): f"BPF_{name}" for name in text.split()}


_CLASS: Final = _codes("LD LDX ST STX ALU JMP JMP32 ALU64")
_SIZE: Final = {0x00: "BPF_W", 0x08: "BPF_H", 0x10: "BPF_B", 0x18: "BPF_DW"}
_MODE: Final = _codes("IMM ABS IND MEM MEMSX ATOMIC")
_ALU: Final = _codes("ADD SUB MUL DIV OR AND LSH RSH NEG MOD XOR MOV ARSH END")
_JMP: Final = _codes("JA JEQ JGT JGE JSET JNE JSGT JSGE CALL EXIT JLT JLE JSLT JSLE JCOND")


def _code(code: int) -> str:
    kind = code & 7
    if kind < insn.ALU:
        size, mode = _SIZE[code & 0x18], xval(code & 0xE0, _MODE, "BPF_???")
        return f"{_CLASS[kind]}|{size}|{mode}"
    table = _ALU if kind in (insn.ALU, insn.ALU64) else _JMP
    source = "BPF_X" if code & 8 else "BPF_K"
    return f"{_CLASS[kind]}|{source}|{xval(code & 0xF0, table, 'BPF_???')}"


_REGISTERS: Final = [
    f"BPF_REG_{number}" if number <= 10 else f"{number:#x} /* BPF_REG_??? */"
    for number in range(16)
]


@cache
def _heads() -> tuple[list[str], list[str]]:
    """The text of each code, and of each byte of registers (dst low, src high)."""
    registers = [
        f", dst_reg={_REGISTERS[byte & 15]}, src_reg={_REGISTERS[byte >> 4]}"
        for byte in range(256)
    ]
    return [f"{{code={_code(code)}" for code in range(256)], registers


def instructions(data: bytes) -> Iterator[str]:
    """The text of each slot."""
    codes, registers = _heads()
    for code, regs, off, imm in struct.Struct("<BBhI").iter_unpack(data):
        yield f"{codes[code]}{registers[regs]}, off={off}, imm={hexa(imm)}}}"


# ---------------------------------------------------------------- places of fields


class _Place(NamedTuple):
    """Where a field stands in its struct; ``width`` bits from ``shift`` if it is a bit field."""

    offset: int
    size: int
    field: Any
    shift: int = 0
    width: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size

    def number(self, data: bytes) -> int:
        """Its value in the bytes of a struct, unsigned; missing bytes are zero."""
        value = int.from_bytes(data[self.offset : self.offset + min(self.size, 8)], "little")
        return value >> self.shift & ((1 << self.width) - 1) if self.width else value


def _walk(declaration: Any, prefix: str, base: int) -> Iterator[tuple[str, _Place]]:
    for slot in layout_of(declaration).slots:
        at = base + slot.offset
        field = slot.field
        if isinstance(field, cs.Struct):
            yield from _walk(field, f"{prefix}{slot.name}.", at)
        elif isinstance(field, Pick):
            for row in (*field.rows.values(), field.default):
                if row is not None:
                    yield from _walk(row, prefix, at)
        elif isinstance(field, Bits):
            for name, shift, width, _ in field.members:
                yield prefix + name, _Place(at, slot.size, field, shift, width)
        else:
            while hasattr(field, "field"):  # Written and the like, around the field itself
                field = field.field
            yield prefix + slot.name, _Place(at, slot.size, field)


class _Word(NamedTuple):
    """A word of a row, its names resolved.

    ``kind`` is field, open, close, stop, again or link.
    """

    kind: str
    name: str = ""
    """Of a field, with the structs in the struct: ``test.retval``."""
    place: _Place | None = None
    mark: str = ""
    format: Callable[[_Item], str] | None = None
    length: tuple[_Place | None, int] | None = None
    """The field that counts, None for the call's result; and what to divide it by."""
    test: Callable[[bytes, int], bool] | None = None
    bound: int = 0
    """Of a stop: the size that the caller's struct must exceed."""


class _Row(NamedTuple):
    words: tuple[_Word, ...]
    end: int
    """Where strace's idea of the struct ends: what follows is extra_data."""
    places: Mapping[str, _Place]


_WORD: Final = re.compile(
    r"(?P<name>\w+)(?P<mark>[@>+~]?)(?::(?P<format>\w+))?"
    r"(?:\((?P<length>\w+)(?:/(?P<by>\d+))?\))?(?:\?(?P<test>\S+))?"
)


@cache
def _places(struct_name: str) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    for name, place in _walk(STRUCTS[struct_name], "", 0):
        found.setdefault(name, place)
    return found


@cache
def _row(name: str, inner: str = "", prefix: str = "") -> _Row:
    """The row of a struct (or of a link's variant inside it), compiled."""
    text = LINK_ROWS[inner] if inner else ROWS[name]
    if text.startswith("="):
        return _row(text[1:])
    places = _places(name)

    def full(field: str) -> str:
        scope = path
        while scope + field not in places:
            if not scope:
                raise KeyError(field)
            scope = scope[: scope.rfind(".", 0, -1) + 1]
        return scope + field

    def place(field: str) -> _Place:
        return places[full(field)]

    path = prefix
    words: list[_Word] = []
    pieces = text.replace("}", " }").split()
    for index, piece in enumerate(pieces):
        if piece == "}":
            path = path[: path.rfind(".", 0, -1) + 1]
            words.append(_Word("close"))
        elif piece.endswith("{"):
            path += piece[:-1] + "."
            words.append(_Word("open", piece[:-1]))
        elif piece.startswith("|"):
            whole = piece.startswith("|+")
            match = _WORD.match(piece[1:].lstrip("+") or pieces[index + 1])
            assert match is not None
            limit = place(match["name"])
            words.append(_Word("stop", bound=limit.end - 1 if whole else limit.offset))
        elif piece.startswith("=>"):
            words.append(_Word("again", piece[2:], places[piece[2:]]))
        elif piece.startswith("*"):
            words.append(_Word("link", path))
        else:
            match = _WORD.fullmatch(piece)
            assert match is not None, piece
            here = place(match["name"])
            length: tuple[_Place | None, int] | None = None
            if match["length"]:
                counted = None if match["length"] == "ret" else place(match["length"])
                length = counted, int(match["by"] or 1)
            words.append(
                _Word(
                    "field",
                    full(match["name"]),
                    here,
                    match["mark"],
                    FORMATS[match["format"]] if match["format"] else _format_of(here),
                    length,
                    _test(match["test"], place) if match["test"] else None,
                )
            )
    end = max((word.place.end for word in words if word.place is not None), default=0)
    return _Row(tuple(words), end, places)


def _test(text: str, place: Callable[[str], _Place]) -> Callable[[bytes, int], bool]:
    """A condition of a row, over the bytes and the size of a struct."""
    if text.startswith("!"):
        inner = _test(text[1:], place)
        return lambda data, size: not inner(data, size)
    if text.startswith("#"):
        bound = place(text[1:]).offset
        return lambda _, size: size > bound
    if text == "by_ifindex":
        attach_type = place("attach_type")
        return lambda data, _: attach_type.number(data) in ATTACH_BY_IFINDEX
    name, operator, operand = re.fullmatch(r"(\w+)([&=]?)(\w*)", text).groups()  # type: ignore[union-attr]
    field = place(name)
    if operator == "=":
        wanted = int(operand)
        return lambda data, _: field.number(data) == wanted
    mask = getattr(const, operand) if operator else -1
    return lambda data, _: bool(field.number(data) & mask)


def _format_of(place: _Place) -> Callable[[_Item], str]:
    """How a field is printed unless its row says otherwise."""
    field = place.field
    for kind, name in (
        (Ptr, "addr"),
        (Named, "xval"),
        (FlagSet, "flags"),
        (FdField, "fd"),
        (Chars, "chars"),
        (FactField, "ifindex" if getattr(field, "kind", "") == "ifindex" else "u"),
        (NotedField, "kernel_version"),
        (Raw, "raw"),
        (Bits, "u"),
        (Num, "x" if getattr(field, "base", 10) == 16 else "d" if _signed(field) else "u"),
    ):
        if isinstance(field, kind):
            return FORMATS[name]
    raise AssertionError(f"nothing prints {field}")


def _signed(field: Any) -> bool:
    return str(getattr(field.subcon, "fmtstr", ""))[-1:].islower()


# ---------------------------------------------------------------- one line


class _PendingError(Exception):
    """What comes next is printed at the exit, which never came."""


class _Item(NamedTuple):
    """A field that is about to be printed."""

    line: _Line
    frame: _Frame
    name: str
    place: _Place
    value: int
    late: bool
    """Printed at the exit."""
    memory: Snapshot | None
    many: int | None
    """What its length says; None if its row names none."""

    def raw(self) -> bytes:
        """The bytes of the field."""
        frame = self.frame
        data = frame.after if self.late and frame.after is not None else frame.before
        return data[self.place.offset : self.place.end].ljust(self.place.size, b"\0")

    def decoded(self) -> Any:
        """The field's value as the decoder has it: with names that our tables lack."""
        return self.line.call.attr(*self.frame.path, *self.name.split("."))

    def array(self, size: int, show: Callable[[bytes], Iterable[str]]) -> str:
        """``count`` elements of ``size`` bytes behind the pointer."""
        if not self.value:
            return "NULL"
        if not self.many:
            return "[]"
        data = None
        # What a failed call should have written is not worth strace's reading.
        if self.memory is not None and not (self.late and self.line.failed):
            data = self.memory.read(self.value, self.many * size)
        if not data or len(data) < size:
            return address(self.value)
        whole = len(data) // size
        shown = list(show(data[: whole * size]))
        if whole < self.many:
            shown.append(f"... /* {self.value + whole * size:#x} */")
        return f"[{', '.join(shown)}]"


class _Frame(NamedTuple):
    """A struct at entry and at exit."""

    path: tuple[str, ...]
    """Of the struct, in ``Call.args``."""
    size: int
    """What the caller says that it is."""
    before: bytes
    after: bytes | None
    """None: the call has not returned."""
    late: bool = False
    """strace prints all of it at the exit."""


class _Line:
    """The text of a call so far."""

    def __init__(self, call: Call, string_limit: int, verbose: bool) -> None:
        self.call = call
        self.limit = string_limit
        self.verbose = verbose
        raw = call.raw
        self.failed = raw.failed
        self.before = Snapshot(chunk for chunk in raw.chunks if chunk.stage == ENTRY)
        self.after = (
            Snapshot(chunk for chunk in raw.chunks if chunk.stage == EXIT)
            if raw.ret is not None
            else None
        )
        self.args = (*raw.args, 0, 0, 0, 0, 0, 0)[:6]
        self.out: list[str] = []

    def exit(self) -> Snapshot:
        """Memory at exit."""
        if self.after is None:
            raise _PendingError
        return self.after

    def frame(self, path: tuple[str, ...], addr: int, size: int) -> _Frame | None:
        """A struct of the tracee's; None where it cannot be read."""
        before = self.before.read(addr, size) if addr else None
        if before is None or len(before) < size:
            return None
        after: bytes | None = before
        if self.after is None:
            after = None
        else:
            written = self.after.read(addr, size)
            if written is not None and len(written) == size:
                after = written
        return _Frame(path, size, before, after)

    # ------------------------------------------------------------ structs

    def struct(self, name: str, frame: _Frame) -> None:
        """Prints a struct by its row, with what follows the fields that strace knows."""
        row = _row(name)
        self.out.append("{")
        extra = self.fields(row, frame)
        data = frame.after if frame.late and frame.after is not None else frame.before
        if extra is not None and data[extra:].strip(b"\0") and name != "PERF_ATTR":
            rest = data[extra:]
            self.out.append(
                f", extra_data={hex_quoted(rest)} /* bytes {extra}..{len(data) - 1} */"
                if self.verbose
                else ", ..."
            )
        if name == "PERF_ATTR":
            claimed = _places(name)["size"].number(frame.before)
            if claimed > frame.size:
                self.out.append(", ...")
        self.out.append("}")
        for word in row.words:
            if word.kind == "again":
                assert word.place is not None
                if frame.after is None:
                    raise _PendingError
                new = word.place.number(frame.after)
                if new != word.place.number(frame.before):
                    outer, _, field = word.name.partition(".")
                    self.out.append(f" => {{{outer}={{{field}={new}}}}}")

    def fields(self, row: _Row, frame: _Frame) -> int | None:
        """Prints fields; where extra data would begin, None where the struct ended before."""
        end: int | None = row.end
        first = [True]
        stopped = False
        for word in row.words:
            if word.kind == "close":
                self.out.append("}")
                first.pop()
                stopped = False
            elif stopped:
                if word.kind == "open":
                    raise AssertionError("a struct after a stop")
            elif word.kind == "stop":
                stopped = frame.size <= word.bound
                if stopped and len(first) == 1:
                    return None
            elif word.kind == "open":
                self.name(word.name, first)
                self.out.append("{")
                first.append(True)
            elif word.kind == "link":
                inner = _variant(row, frame.before)
                if inner is None:
                    end = row.end
                else:
                    variant = _row("LINK_CREATE", inner, word.name)
                    end = variant.end
                    self.link(variant, frame, first)
            elif word.kind == "field":
                self.field(word, frame, first)
        return end

    def link(self, row: _Row, frame: _Frame, first: list[bool]) -> None:
        """The variant part of a LINK_CREATE."""
        depth = len(first)
        stopped = False
        for word in row.words:
            if word.kind == "close":
                self.out.append("}")
                first.pop()
            elif word.kind == "open":
                self.name(word.name, first)
                self.out.append("{")
                first.append(True)
            elif word.kind == "stop":
                stopped = stopped or frame.size <= word.bound
            elif not stopped:
                self.field(word, frame, first)
        del first[depth:]

    def name(self, name: str, first: list[bool]) -> None:
        """Prints the name of a field, behind a comma if it is not the first."""
        self.out.append(f"{name}=" if first[-1] else f", {name}=")
        first[-1] = False

    def field(self, word: _Word, frame: _Frame, first: list[bool]) -> None:
        """Prints a field."""
        place, show = word.place, word.format
        assert place is not None
        assert show is not None
        data = frame.before
        late = frame.late
        if word.mark == "@" or late:
            if frame.after is None:
                raise _PendingError
            data = frame.after
            late = True
        elif word.mark == "~" and frame.after is not None:
            late = True
        if word.test is not None and not word.test(data, frame.size):
            return
        memory = self.after if late else self.before
        count: int | None = None
        if word.length is not None:
            counter, by = word.length
            if counter is None:
                count = max(0, self.call.raw.ret or 0)
            else:
                count = counter.number(frame.before)
                if late and frame.after is not None:
                    count = min(count, counter.number(frame.after))
                count //= by

        def text(value: int) -> str:
            return show(_Item(self, frame, word.name, place, value, late, memory, count))

        self.name(word.name.rpartition(".")[2], first)
        if word.mark not in (">", "+"):
            self.out.append(text(place.number(data)))
            return
        old = place.number(frame.before)
        self.out.append(text(old))
        if frame.after is not None:
            new = place.number(frame.after)
            if new != old:
                self.out.append(f" => {text(new)}")
        elif word.mark == ">":
            raise _PendingError

    # ------------------------------------------------------------ strings

    def text(self, addr: int, most: int | None, memory: Snapshot | None) -> str:
        """A C string of at most ``most`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if memory is None:
            return address(addr)
        asked = self.limit + 1 if most is None else min(self.limit + 1, most)
        answer = memory.cstr(addr, asked) if asked else (b"", True)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < asked:
            return address(addr)
        return quoted(data[: self.limit]) + ("" if ended else "...")

    def data(
        self, addr: int, size: int, memory: Snapshot | None, quote: Callable[[bytes], str]
    ) -> str:
        """``size`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if not size:
            return '""'
        wanted = min(size, self.limit + 1)
        found = None if memory is None else memory.read(addr, wanted)
        if found is None or len(found) < wanted:
            return address(addr)
        return quote(found[: self.limit]) + ("..." if size > self.limit else "")

    def path(self, addr: int) -> str:
        """A path name, whole."""
        if not addr:
            return "NULL"
        answer = self.before.cstr(addr, PATH_MAX)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < PATH_MAX:
            return address(addr)
        return quoted(data) if ended else quoted(data[: PATH_MAX - 1]) + "..."


def _variant(row: _Row, data: bytes) -> str | None:
    """Which row of LINK_ROWS a LINK_CREATE uses; None: strace prints nothing."""
    number = row.places["link_create.attach_type"].number(data)
    name = names.bpf_attach_type.get(number, "")
    if "CGROUP" in name:
        bits = row.places["link_create.flags"].number(data)
        ordered = bits & (const.BPF_F_BEFORE | const.BPF_F_AFTER)
        return "cgroup" if ordered else "cgroup_plain"
    declaration = bpf_link.VARIANTS.get(name)
    if declaration is None:
        return None
    return layout_of(declaration).slots[0].name


# ---------------------------------------------------------------- formats


def _s32(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _xval(item: _Item) -> str:
    field = item.place.field
    value = item.value
    name = field.table.get(value)
    if name is None and field.enum:
        known = item.decoded()
        if isinstance(known, Name) and known.value == value:
            name = known.name
    return name or xval(value, {}, DEFAULTS.get(field.enum, f"{field.enum}_???"))


def _flags(item: _Item) -> str:
    field = item.place.field
    if item.value and not item.late:
        known = item.decoded()
        if isinstance(known, Flags) and known.newer and known.value == item.value:
            return "|".join((*known.names, *([hexa(known.rest)] if known.rest else [])))
    return flags(item.value, field.table, f"{field.enum}_???")


def _ifindex(item: _Item) -> str:
    known = item.decoded() if item.value else None
    if isinstance(known, Int) and known.note is not None and known.value == item.value:
        return f"if_nametoindex({quoted(known.note.encode('utf-8', 'surrogateescape'))})"
    return str(item.value)


def _kernel_version(item: _Item) -> str:
    value = item.value
    return f"KERNEL_VERSION({value >> 16}, {value >> 8 & 0xFF}, {value & 0xFF})"


def _chars(item: _Item) -> str:
    data = item.raw()
    size = item.place.size
    if not item.frame.late:
        size = min(size, item.frame.size - item.place.offset)
    text, end, _ = data[:size].partition(b"\0")
    return quoted(text) if end else quoted(text[: size - 1]) + "..."


def _raw(item: _Item) -> str:
    return hex_quoted(item.raw())


def _dev(item: _Item) -> str:
    return f"makedev({hexa(os.major(item.value))}, {hexa(os.minor(item.value))})"


def _u64(item: _Item) -> str:
    return "UINT64_MAX" if item.value == (1 << 64) - 1 else str(item.value)


def _id(item: _Item) -> str:
    return "-1" if item.value == 0xFFFFFFFF else str(item.value)


def _numa(item: _Item) -> str:
    return f"{item.value} /* NUMA_NO_NODE */" if item.value == 0xFFFFFFFF else str(item.value)


def _insns(item: _Item) -> str:
    return item.array(insn.SLOT, instructions) if item.line.verbose else address(item.value)


def _unpacked(code: str, show: Callable[[int], str]) -> Callable[[bytes], Iterable[str]]:
    return lambda data: (show(number) for (number,) in struct.iter_unpack(code, data))


def _numbers(code: str, show: Callable[[int], str]) -> Callable[[_Item], str]:
    size, elements = struct.calcsize(code), _unpacked(code, show)
    return lambda item: item.array(size, elements)


def _strings(item: _Item) -> str:
    code = "<I" if item.line.call.raw.arch == AUDIT_ARCH_I386 else "<Q"
    text = item.line.text
    return item.array(
        struct.calcsize(code), _unpacked(code, lambda addr: text(addr, None, item.memory))
    )


def _attach(value: int) -> str:
    return flags(value, names.attach_flags, "BPF_F_???")


def _iter(item: _Item) -> str:
    if not item.value:
        return "NULL"
    if not item.many:
        return "[]"
    data = item.memory.read(item.value, 4) if item.memory is not None else None
    if data is None or len(data) < 4:
        return address(item.value)
    return f"[{{map={{map_fd={int.from_bytes(data, 'little', signed=True)}}}}}]"


def _info(item: _Item) -> str:
    line, frame = item.line, item.frame
    assert frame.after is not None
    places = _places("OBJ_GET_INFO_BY_FD")
    fact = line.call.fd(places["info.bpf_fd"].number(frame.before))
    row = {"prog": "PROG_INFO", "map": "MAP_INFO"}.get("" if fact is None else fact.kind)
    old = places["info.info_len"].number(frame.before)
    size = places["info.info_len"].number(frame.after)
    if row is None or not line.verbose or not 0 < size <= PAGE:
        return address(item.value)
    after = line.exit().read(item.value, size)
    before = line.before.read(item.value, old) or b""
    if after is None or len(after) < size:
        # Nothing is copied at the exit of a call that failed.
        if len(before) < size:
            return address(item.value)
        after = before[:size]
    path = (*frame.path, "info", "info")
    inner = _Frame(path, size, before, after, True)
    kept = len(line.out)
    line.struct(row, inner)
    text = "".join(line.out[kept:])
    del line.out[kept:]
    return text


def _attr_size(item: _Item) -> str:
    text = xval(item.value, perf.perf_attr_size, "PERF_ATTR_SIZE_???")
    line = item.line
    if line.call.raw.ret != -errno.E2BIG:
        return text
    # The kernel says which size it would have taken.
    addr = line.args[0 if line.call.syscall.name == "perf_event_open" else 2]
    data = None if line.after is None else line.after.read(addr, 8)
    if data is None or len(data) < 8:
        return f"{text} => ???"
    new = int.from_bytes(data[4:], "little")
    return f"{text} => {xval(new, perf.perf_attr_size, 'PERF_ATTR_SIZE_???')}"


def _config(item: _Item) -> str:
    value = item.value
    low, pmu = value & 0xFFFFFFFF, value >> 32
    parts = [f"{pmu:#x}<<32"] if pmu else []
    name = perf.perf_type_id.get(_places("PERF_ATTR")["type"].number(item.frame.before))
    if name == "PERF_TYPE_HARDWARE":
        return "|".join((*parts, xval(low, perf.perf_hw_id, "PERF_COUNT_HW_???")))
    if name == "PERF_TYPE_SOFTWARE":
        return xval(value, perf.perf_sw_ids, "PERF_COUNT_SW_???")
    if name == "PERF_TYPE_TRACEPOINT":
        return str(value)
    if name != "PERF_TYPE_HW_CACHE":
        return hexa(value)
    if low >> 24:
        parts.append(f"{low >> 24:#x}<<24")
    for shift, table, default in (
        (16, perf.perf_hw_cache_op_result_id, "PERF_COUNT_HW_CACHE_RESULT_???"),
        (8, perf.perf_hw_cache_op_id, "PERF_COUNT_HW_CACHE_OP_???"),
        (0, perf.perf_hw_cache_id, "PERF_COUNT_HW_CACHE_???"),
    ):
        text = xval(low >> shift & 0xFF, table, default)
        parts.append(f"{text}<<{shift}" if shift else text)
    return "|".join(parts)


def _reserved(item: _Item) -> str:
    # strace counts the bits of aux_action from the end of the struct's version 6.
    last = "931..959" if item.name == "__reserved_3" else f"63..{item.place.shift}"
    return f"{hexa(item.value)} /* Bits {last} */"


def _max_stack(item: _Item) -> str:
    rest = item.frame.before[item.place.end : item.place.end + 2].ljust(2, b"\0")
    number = int.from_bytes(rest, "little")
    return f"{item.value} /* bytes 110..111: {number:#x} */" if number else str(item.value)


def _bp_type(item: _Item) -> str:
    known = {key: name for key, name in perf.hw_breakpoint_type.items() if key <= 4}
    invalid = item.value <= 7
    return xval(item.value, known, f"HW_BREAKPOINT_{'INVALID' if invalid else '???'}")


FORMATS: Final[dict[str, Callable[[_Item], str]]] = {
    "u": lambda item: str(item.value),
    "d": lambda item: str(_s32(item.value)),
    "x": lambda item: hexa(item.value),
    "fd": lambda item: str(_s32(item.value)),
    "dirfd": lambda item: (
        "AT_FDCWD" if _s32(item.value) == const.AT_FDCWD else str(_s32(item.value))
    ),
    "addr": lambda item: address(item.value),
    "u64": _u64,
    "id": _id,
    "xval": _xval,
    "flags": _flags,
    "attach": lambda item: _attach(item.value),
    "elem": lambda item: flags(item.value, _ELEM_FLAGS, "BPF_???"),
    "lookup": lambda item: flags(item.value, _LOOKUP_FLAGS, "BPF_???"),
    "file": lambda item: flags(item.value, _FILE_FLAGS, "BPF_F_???"),
    "ifindex": _ifindex,
    "kernel_version": _kernel_version,
    "chars": _chars,
    "raw": _raw,
    "dev": _dev,
    "numa": _numa,
    "path": lambda item: item.line.path(item.value),
    "text": lambda item: item.line.text(item.value, item.many, item.memory),
    "name128": lambda item: item.line.text(item.value, 128, item.memory),
    "bytes": lambda item: item.line.data(item.value, item.many or 0, item.memory, quoted),
    "stream": lambda item: (
        address(item.value) if item.line.failed else FORMATS["bytes"](item)
    ),
    "hex": lambda item: item.line.data(item.value, item.many or 0, item.memory, hex_quoted),
    "us": _numbers("<I", str),
    "xs": _numbers("<Q", hexa),
    "attaches": _numbers("<I", _attach),
    "strings": _strings,
    "insns": _insns,
    "iter": _iter,
    "info": _info,
    "attr_type": lambda item: xval(item.value, perf.perf_type_id, "PERF_TYPE_???"),
    "attr_size": _attr_size,
    "clock": lambda item: xval(item.value, system.clockid, "CLOCK_???"),
    "config": _config,
    "precise": lambda item: f"{item.value} /* {_PRECISE[item.value & 3]} */",
    "reserved": _reserved,
    "max_stack": _max_stack,
    "bp_type": _bp_type,
}
"""How a field can be printed."""

# ---------------------------------------------------------------- system calls


def _bpf(line: _Line) -> None:
    out = line.out
    cmd, addr, size = line.args[0] & 0xFFFFFFFF, line.args[1], line.args[2] & 0xFFFFFFFF
    plain = cmd & ~const.BPF_COMMON_ATTRS
    name = names.bpf_cmd.get(plain)
    known = line.call.args.get("cmd")
    shown = known.name if isinstance(known, Name) else names.bpf_cmd.get(cmd)
    out.append(f"{shown or f'{hexa(cmd)} /* BPF_??? */'}, ")
    key = "" if name is None else name.removeprefix("BPF_")
    frame = line.frame(("attr",), addr, size) if 0 < size <= PAGE and key in ROWS else None
    if frame is None:
        out.append(address(addr))
    else:
        line.struct(key, frame)
    out.append(f", {size}")
    if cmd != plain and name is not None:
        addr, size = line.args[3], line.args[4] & 0xFFFFFFFF
        out.append(", ")
        frame = line.frame(("attr_common",), addr, size) if 0 < size <= PAGE else None
        if frame is None:
            out.append(address(addr))
        else:
            line.struct("COMMON_ATTR", frame)
        out.append(f", {size}")


_PERF_SIZE: Final = layout_of(perf_attr.PERF_ATTR).size
_ABBREVIATED: Final = 48
"""Bytes of perf_event_attr that strace reads without -v: up to wakeup_events."""


def _perf_attr(line: _Line, path: tuple[str, ...], addr: int) -> _Frame | None:
    head = line.before.read(addr, 8) if addr else None
    if head is None or len(head) < 8:
        return None
    claimed = int.from_bytes(head[4:], "little")
    size = min(claimed, _PERF_SIZE) or perf_attr.PERF_ATTR_SIZE_VER0
    if size < perf_attr.PERF_ATTR_SIZE_VER0:
        return None
    data = line.before.read(addr, size) or b""
    if len(data) < size:
        return None
    if not line.verbose:
        size = _ABBREVIATED
        data = data[:size]
    return _Frame(path, size, data, data if line.after is not None else None)


def _perf_event_open(line: _Line) -> None:
    pid, cpu, group = (_s32(arg) for arg in line.args[1:4])
    frame = _perf_attr(line, ("attr",), line.args[0])
    if frame is None:
        line.out.append(address(line.args[0]))
    else:
        line.exit()
        _print_perf_attr(line, frame)
    bits = flags(line.args[4], perf.perf_event_open_flags, "PERF_FLAG_???")
    line.out.append(f", {pid}, {cpu}, {group}, {bits}")


def _print_perf_attr(line: _Line, frame: _Frame) -> None:
    """The attr; without -v only those of its bits that are set."""
    kept = len(line.out)
    line.struct("PERF_ATTR", frame)
    if not line.verbose:
        text = "".join(line.out[kept:])
        del line.out[kept:]
        for name in _BITS:
            if name != "precise_ip":
                text = text.replace(f", {name}=0", "")
        line.out.append(text)


def _ioctl(line: _Line) -> None:
    fd, request, arg = _s32(line.args[0]), line.args[1] & 0xFFFFFFFF, line.args[2]
    known = line.call.args.get("request")
    name = known.name if isinstance(known, Name) else None
    line.out.append(f"{fd}, {name or _ioc(request)}, ")
    kind = IOCTLS.get(name or "", "x")
    if kind == "group":
        table = perf.perf_event_ioc_flags
        line.out.append(flags(arg & 0xFFFFFFFF, table, "PERF_IOC_FLAG_???"))
    elif kind == "d":
        line.out.append(str(_s32(arg)))
    elif kind == "u":
        line.out.append(str(arg))
    elif kind == "filter":
        line.out.append(line.text(arg, PAGE, line.before))
    elif kind == "query":
        _query_bpf(line, arg)
    elif kind == "attr":
        frame = _perf_attr(line, ("arg",), arg)
        if frame is None:
            line.out.append(address(arg))
        else:
            _print_perf_attr(line, frame)
    elif kind in ("number", "number_out"):
        if kind == "number_out" and line.after is None:
            line.out[-1] = line.out[-1].removesuffix(", ")
            raise _PendingError
        memory = line.before if kind == "number" else None if line.failed else line.after
        data = memory.read(arg, 8) if memory is not None and arg else None
        whole = data is not None and len(data) == 8
        number = int.from_bytes(data or b"", "little")
        line.out.append(f"[{number}]" if whole else address(arg))
    else:
        line.out.append(hexa(arg))


def _ioc(request: int) -> str:
    """A request that has no name, as its parts."""
    ways = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}
    kind, number, size = request >> 8 & 0xFF, request & 0xFF, request >> 16 & 0x3FFF
    return f"_IOC({ways[request >> 30]}, {hexa(kind)}, {hexa(number)}, {hexa(size)})"


def _query_bpf(line: _Line, arg: int) -> None:
    head = line.before.read(arg, 4) if arg else None
    if head is None or len(head) < 4:
        line.out.append(address(arg))
        return
    line.out.append(f"{{ids_len={int.from_bytes(head, 'little')}, ")
    after = line.exit().read(arg, 8)
    if line.failed or after is None or len(after) < 8:
        line.out.append("...}")
        return
    count = int.from_bytes(after[4:], "little")
    data = line.exit().read(arg + 8, 4 * count) or b""
    ids = [str(number) for (number,) in struct.iter_unpack("<I", data[: len(data) & ~3])]
    line.out.append(f"prog_cnt={count}, ids=[{', '.join(ids)}]}}")


def _openat(line: _Line) -> None:
    dirfd, bits = _s32(line.args[0]), line.args[2] & 0xFFFFFFFF
    known = line.call.args.get("flags")
    found = list(getattr(known, "names", ()))
    rest = getattr(known, "rest", bits)
    # The access mode, which is in no order, comes first.
    shown = sorted(found, key=lambda name: f" {_OPEN_ORDER} ".find(f" {name} "))
    if rest & 3 == 3:
        shown.insert(0, "O_ACCMODE")
        rest &= ~3
    if rest:
        shown.append(hexa(rest))
    where = "AT_FDCWD" if dirfd == const.AT_FDCWD else str(dirfd)
    line.out.append(f"{where}, {line.path(line.args[1])}, {'|'.join(shown)}")
    if line.call.args.get("mode") is not None:
        line.out.append(f", {line.args[3] & 0xFFFF:#05o}".replace("0o", "0"))


def _setsockopt(line: _Line) -> None:
    fd, level, option, addr, size = line.args[0], *line.args[1:5]
    known = [line.call.args.get(name) for name in ("level", "optname")]
    shown = [
        value.name if isinstance(value, Name) and value.name else hexa(number & 0xFFFFFFFF)
        for value, number in zip(known, (level, option), strict=True)
    ]
    size = _s32(size)
    line.out.append(f"{_s32(fd)}, {', '.join(shown)}, ")
    line.out.append(line.data(addr, size, line.before, quoted) if size >= 0 else address(addr))
    line.out.append(f", {size}")


def _write(line: _Line) -> None:
    fd, addr, size = line.args[:3]
    line.out.append(f"{_s32(fd)}, {line.data(addr, size, line.before, quoted)}, {size}")


_CALLS: Final[dict[str, Callable[[_Line], None]]] = {
    "bpf": _bpf,
    "perf_event_open": _perf_event_open,
    "ioctl": _ioctl,
    "openat": _openat,
    "setsockopt": _setsockopt,
    "write": _write,
    "close": lambda line: line.out.append(str(_s32(line.args[0]))),
}


def call_line(
    call: Call,
    *,
    prefix: str = "",
    column: int = 40,
    string_limit: int = 32,
    verbose: bool = True,
) -> str:
    """A call as one line, without its newline.

    ``prefix`` comes before the name of the call and counts as part of the line;
    ``column`` is where ``=`` and the result stand at the earliest (strace's
    -a), ``string_limit`` the most bytes of a string that are printed (-s);
    ``verbose`` False leaves out what strace leaves out without -v.
    """
    line = _Line(call, string_limit, verbose)
    name = call.syscall.name
    line.out.append(f"{prefix}{name}(")
    show = _CALLS.get(name)
    try:
        if show is None:
            line.out.append(", ".join(hexa(arg) for arg in line.args))
        else:
            show(line)
    except _PendingError:
        line.out.append(" <unfinished ...>")
    text = "".join(line.out) + ") "
    return f"{text:<{max(0, column)}}= {result(call)}"


def result(call: Call) -> str:
    """The result, with the name and meaning of an error; ``?`` where there was none."""
    ret = call.raw.ret
    if ret is None:
        return "?"
    if not call.raw.failed:
        return str(ret)
    number = -ret
    kernel = system.kernel_errno.get(number)
    if number in _RESTARTS:
        return f"? {kernel} ({_RESTARTS[number]})"
    name = _ERRNO.get(number) or errno.errorcode.get(number) or kernel
    return f"-1 {name} ({os.strerror(number)})" if name else f"-1 (errno {number})"


def event_line(event: ProcessEvent, *, prefix: str = "") -> str | None:
    """The line for the end of a process; None for events that strace says nothing of."""
    if event.what != "exit":
        return None
    number = event.details.get("signal")
    if isinstance(number, int):
        core = "(core dumped) " if event.details.get("core") else ""
        return f"{prefix}+++ killed by {_signal(number)} {core}+++"
    code = event.details.get("code")
    return None if code is None else f"{prefix}+++ exited with {code} +++"


class StraceRenderer:
    """Writes each call as strace would, and how processes ended.

    As soon as there are two threads, lines begin with whose they are: the pid
    in brackets on a terminal or pipe, and just the pid in a file, as strace does
    with and without -o.
    """

    def __init__(
        self, out: Any, *, column: int = 40, string_limit: int | None = None, quiet: bool = False
    ) -> None:
        self.out = out
        self.column = column
        self.string_limit = 32 if string_limit is None else string_limit
        self.quiet = quiet
        self._file = getattr(out, "name", "<stderr>") not in ("<stderr>", "<stdout>")
        self._threads: set[int] = set()
        self._many = False

    def header(self, header: Any) -> None:
        """Nothing is said of it."""

    def fact(self, kind: str, key: int, name: str) -> None:
        """Nothing is said of it."""

    def attachment(self, told: Any) -> None:
        """strace knows no attachments."""

    def call(self, call: Call) -> None:
        """A line."""
        line = call_line(
            call,
            prefix=self._prefix(call.raw.tid),
            column=self.column,
            string_limit=self.string_limit,
        )
        self.out.write(line + "\n")

    def process(self, event: ProcessEvent) -> None:
        """A line where a thread ended."""
        prefix = self._prefix(event.tid)
        if event.what == "fork":
            child = event.details.get("child_tid", event.details.get("child"))
            if isinstance(child, int):
                self._prefix(child)
        elif event.what == "exit":
            self._threads.discard(event.tid)
            line = event_line(event, prefix=prefix)
            if line is not None and not self.quiet:
                self.out.write(line + "\n")

    def end(self, status: dict[str, Any]) -> None:
        """Nothing is said of it."""

    def _prefix(self, tid: int) -> str:
        self._threads.add(tid)
        if self._file:
            self._many = self._many or len(self._threads) > 1
            return f"{tid:<5} " if self._many else ""
        return f"[pid {tid:5}] " if len(self._threads) > 1 else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRT_{number - 32}" if number > 32 else str(number)
