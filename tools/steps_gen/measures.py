"""What decoders/walk/measures.py says of lengths, and of what selects a union's member, as rows
have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from decoders.uapi import const, names, perf, system
from decoders.walk import measures as m
from decoders.walk.layouts import READ_LIMIT
from steps_gen.rows import (
    ALWAYS,
    FD_KIND,
    FD_KINDS,
    LINK_TYPE,
    Field,
    GenerateError,
    Length,
    Places,
    Test,
    one_of,
)

# ---------------------------------------------------------------- lengths


def _bits(numbers: frozenset[int]) -> int:
    return sum(1 << number for number in numbers)


LENGTH_OF: Final[dict[Callable[..., Any], Callable[[Places], Length]]] = {
    m.key_size: lambda p: Length("KEY"),
    m.value_size: lambda p: Length("VALUE"),
    m.keys_size: lambda p: Length("KEY", p["count"].at),
    m.values_size: lambda p: Length("VALUE", p["count"].at),
    m.cursor_size: lambda p: Length("CURSOR", 0, _bits(m.HASH_MAPS)),
    m.log_size: lambda p: Length("FIELD", p["log_size"].at, 1),
    m.btf_log_size: lambda p: Length("FIELD", p["btf_log_size"].at, 1),
    m.task_name_size: lambda p: Length("FIELD", p["buf_len"].at, 1, 4096),
    m.fd_array_count: lambda p: Length("FD_SLOTS", p["fd_array_cnt"].at),
    m.stream_size: lambda p: Length("RESULT", p["stream_buf_len"].at),
    m.option_size: lambda p: Length("SIGNED", p["optlen"].at, 0, 4096),
    m.written_size: lambda p: Length("FIELD", p["count"].at, 1, 1 << 16),
    m.attr_size: lambda p: Length("PERF_ATTR", 0, 0, 4096),
    m.query_bpf_size: lambda p: Length("PERF_QUERY", 0, 0, 4096),
}


def length(expr: Any, places: Places, each: int = 1) -> Length:
    """The length of ``expr`` things of ``each`` bytes."""
    if isinstance(expr, int):
        return Length(limit=min(expr * each, READ_LIMIT))
    known = LENGTH_OF.get(expr)
    if known is not None:
        found = known(places)
        if each not in (1, found.scale) and found.length != "FD_SLOTS":
            raise GenerateError(f"{expr.__name__} times {each}")
        return found
    if getattr(expr, "__module__", "") == m.__name__:
        raise GenerateError(f"the length {expr.__name__} has no row in LENGTH_OF")
    field = expr(places)
    if not isinstance(field, Field):
        raise GenerateError(f"the length {expr} is not a field")
    return Length("FIELD", field.at, each)


# ---------------------------------------------------------------- selectors


def _flag(name: str, flag: int) -> Callable[[Any, Places], Test | bool]:
    def test(key: Any, places: Places) -> Test:
        found = Test("IS", places[name].at, flag, flag)
        return found if key else found.negated

    return test


def _by_ifindex(key: Any, places: Places) -> Test:
    found = one_of(places["attach_type"].at, m.ATTACH_BY_IFINDEX)
    return found if key else found.negated


def _variant(key: Any, places: Places) -> Test | bool:
    if key == m.EXT or key is None:
        return False  # nothing to follow there
    numbers = frozenset(
        number
        for number, name in names.bpf_attach_type.items()
        if (name == key if key != "cgroup" else "CGROUP" in name)
    )
    return one_of(places["attach_type"].at, numbers) if numbers else False


def _link_type(key: Any, places: Places) -> Test | bool:
    for number, name in names.bpf_link_type.items():
        if name == f"BPF_LINK_TYPE_{key}":
            return Test("IS", LINK_TYPE, ALWAYS, number)
    return False


def _pmu(key: Any, places: Places) -> Test | bool:
    for number, name in perf.perf_type_id.items():
        if name == f"PERF_TYPE_{str(key).upper()}":
            return Test("IS", places["type"].at, ALWAYS, number)
    return Test("PMU", places["type"].at, ALWAYS) if key is not None else False


def _option(key: Any, places: Places) -> Test:
    numbers = frozenset(number for number, name in system.so_filter.items() if name in m.SO_FD)
    found = one_of(places["optname"].at, numbers)
    return found if key == "fd" else found.negated


def _any(key: Any, places: Places) -> bool:
    return True


SELECTED: Final[dict[Callable[..., Any], Callable[[Any, Places], Test | bool]]] = {
    m.has_path_fd: _flag("file_flags", const.BPF_F_PATH_FD),
    m.replaces_by_id: _flag("attach_flags", const.BPF_F_ID),
    m.is_id: _flag("flags", const.BPF_F_ID),
    m.is_path_fd: _flag("flags", const.BPF_F_UPROBE_MULTI_PATH_FD),
    m.is_cgroup: _flag("flags", const.PERF_FLAG_PID_CGROUP),
    m.has_common: _flag("cmd", const.BPF_COMMON_ATTRS),
    m.by_ifindex: _by_ifindex,
    m.variant: _variant,
    m.fd_kind: lambda key, places: Test("IS", FD_KIND, ALWAYS, FD_KINDS[key]),
    m.link_type: _link_type,
    m.pmu: _pmu,
    m.second: _pmu,
    m.socket_option: _option,
    # What decides is not known in the kernel: all that may stand there is taken.
    m.iter_target: _any,
    m.perf_link_type: _any,
}
"""What selects a union's member: of a key the condition; True: always; False: never."""
