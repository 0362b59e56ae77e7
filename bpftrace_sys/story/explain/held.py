"""What does not fit into a map that holds programs, maps or sockets."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.elements import label_of, map_fact, map_kind
from bpftrace_sys.story.explain.failure import ENOTSUPP, Failure, kind_of
from bpftrace_sys.story.explain.fds import spoken_of
from bpftrace_sys.story.explain.wording import and_words, article, word_set
from bpftrace_sys.story.objects import Prog
from decoders.call import inner_value
from decoders.raw import FdFact
from decoders.uapi import const, names
from decoders.values import Bytes

MAPS_OF_MAPS: Final = word_set("ARRAY_OF_MAPS HASH_OF_MAPS")
SOCKETS: Final = word_set("SOCKMAP SOCKHASH REUSEPORT_SOCKARRAY XSKMAP")
COMPARED: Final = ("map_type", "key_size", "value_size", "map_flags")
"""What bpf_map_meta_equal() compares (kernel/bpf/map_in_map.c)."""
OF_ONE_LENGTH: Final = word_set("ARRAY XSKMAP")
"""Types of which max_entries is compared, too: array_map_meta_equal(), xsk_map_meta_equal()."""
NOT_INSIDE: Final = word_set("PROG_ARRAY CGROUP_STORAGE PERCPU_CGROUP_STORAGE STRUCT_OPS")
"""Types without map_meta_equal()."""


HOLDS: Final[dict[str, tuple[str, str]]] = {
    "PROG_ARRAY": ("prog", "programs"),
    "ARRAY_OF_MAPS": ("map", "maps"),
    "HASH_OF_MAPS": ("map", "maps"),
    "PERF_EVENT_ARRAY": ("perf_event", "perf events"),
    "CGROUP_ARRAY": ("file", "cgroups"),
}
"""What the fd in an element's value has to be, and the word for it."""
FD_ARRAYS: Final = word_set("PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS")
"""Arrays of fds: their elements know no flags (bpf_fd_array_map_update_elem())."""
QUEUE_MAX: Final = 16384
"""The packets that a cpumap's queue takes (cpu_map_update_elem())."""


def number_in(failure: Failure) -> int | None:
    """The number that an element's value begins with: an fd, a queue's size."""
    value = inner_value(failure.call.attr("attr", "value"))
    if not isinstance(value, Bytes) or len(value.data) < 4:
        return None
    return int.from_bytes(value.data[:4], "little", signed=True)


def held(failure: Failure) -> FdFact | None:
    """What the fd in an element's value is."""
    fd = number_in(failure)
    return None if fd is None else failure.call.fd(fd)


def no_holder(failure: Failure) -> list[str]:
    """EBADF and EINVAL of an update: an fd that is not open, or of what the map does not hold."""
    fact, fd = map_fact(failure), number_in(failure)
    kind = "" if fact is None else map_kind(fact)
    if fd is None or kind not in HOLDS:
        return []
    if failure.errno == errno.EINVAL and kind in FD_ARRAYS and failure.number("flags"):
        return [f"elements of {article(kind.lower())} are updated with flags 0 (BPF_ANY) only"]
    inside = held(failure)
    wanted, word = HOLDS[kind]
    of = article(kind.lower())
    if inside is None:
        unseen = failure.errno != errno.EBADF or failure.model.without_proc
        return [] if unseen else [f"fd {fd}, the value, is not open"]
    said = f"fd {fd} is {spoken_of(inside)}, and {of} holds {word}"
    if inside.kind != wanted:
        return [said]
    if wanted != "file":
        return []
    system = failure.now(f"file_system {inside.info.get('path', '')}")
    if system == "cgroup":
        return [f"fd {fd} is {spoken_of(inside)}, a cgroup of version 1; {of} holds those of 2"]
    return [said] if system not in (None, "cgroup2") else []


def long_queue(failure: Failure) -> list[str]:
    """EOVERFLOW of an update of a cpumap."""
    fact, size = map_fact(failure), number_in(failure)
    if fact is None or size is None or map_kind(fact) != "CPUMAP" or 0 <= size <= QUEUE_MAX:
        return []
    return [f"a queue of {size & 0xFFFFFFFF} packets: a cpumap's takes {QUEUE_MAX}"]


def does_not_fit(failure: Failure) -> list[str]:
    """EINVAL of an update: a program of another type, a map that differs from the template."""
    fact = map_fact(failure)
    inside = held(failure)
    if fact is None or inside is None:
        return []
    kind = map_kind(fact)
    if kind == "PROG_ARRAY":
        return _other_owner(failure, fact, inside)
    if kind in MAPS_OF_MAPS and inside.kind == "map":
        return _unlike_template(failure, fact, inside)
    return []


def _other_owner(failure: Failure, table: FdFact, inside: FdFact) -> list[str]:
    prog = failure.model.object(inside, failure.call.raw.pid)
    if not isinstance(prog, Prog) or not prog.type:
        return []
    return _disagreement(failure, table, prog)


def _disagreement(failure: Failure, table: FdFact, prog: Prog) -> list[str]:
    """bpf_prog_map_compatible(): an array belongs to the kind of its first user."""
    for other in failure.model.objects.values():
        if not isinstance(other, Prog) or other is prog or other.call is None or not other.type:
            continue
        uses = any(fact.kind == "map" and fact.id == table.id for fact in other.call.raw.fds)
        if uses and other.type != prog.type:
            return [
                f"{label_of(failure, table)} is used by {other.label}, {article(other.type)} "
                f"program, and so is for {other.type} programs; "
                f"{prog.label or 'this'} is {article(prog.type)} one"
            ]
    return []


def array_of_others(failure: Failure) -> list[str]:
    """EINVAL of a load that was verified: it uses a prog_array of another type's programs."""
    kind = kind_of(failure, "prog_type", "BPF_PROG_TYPE_").lower()
    loaded = Prog(name="", type=kind)
    for fact in failure.call.raw.fds:
        if fact.kind == "map" and map_kind(fact) == "PROG_ARRAY" and kind:
            lines = _disagreement(failure, fact, loaded)
            if lines:
                return [lines[0].replace("; prog is", "; this is")]
    return []


def _unlike_template(failure: Failure, outer: FdFact, inside: FdFact) -> list[str]:
    made = failure.model.object(outer, failure.call.raw.pid)
    template = None
    if made is not None and made.call is not None:
        template = made.call.fact("attr", "inner_map_fd")
    if template is None or template.kind != "map":
        return []
    compared = list(COMPARED)
    flags = template.info.get("map_flags")
    loose = isinstance(flags, int) and flags & const.BPF_F_INNER_MAP
    if map_kind(template) in OF_ONE_LENGTH and not loose:
        compared.append("max_entries")
    wrong = []
    for name in compared:
        asked, given = template.info.get(name), inside.info.get(name)
        if asked is not None and given is not None and asked != given:
            wrong.append(f"{name} {_told(name, given)} instead of {_told(name, asked)}")
    if not wrong:
        return []
    said = label_of(failure, inside)
    return [f"{said} differs from the template of {label_of(failure, outer)}: {and_words(wrong)}"]


def _told(name: str, value: object) -> str:
    if name == "map_type" and isinstance(value, int):
        full = names.bpf_map_type.get(value, str(value))
        return full.removeprefix("BPF_MAP_TYPE_").lower()
    return hex(value) if name == "map_flags" and isinstance(value, int) else str(value)


def bad_template(failure: Failure) -> list[str]:
    """MAP_CREATE of a map of maps: no template, or one that cannot be inside."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    if kind not in MAPS_OF_MAPS:
        return []
    fact = failure.call.fact("attr", "inner_map_fd")
    if fact is None or fact.kind != "map":
        return []
    inner = map_kind(fact)
    said = label_of(failure, fact)
    if inner in MAPS_OF_MAPS and failure.errno == errno.EINVAL:
        return [f"inner_map_fd is {said}, itself a map of maps: they go one level deep"]
    if inner in NOT_INSIDE and failure.errno == ENOTSUPP:
        return [f"inner_map_fd is {said}: {article(inner.lower())} cannot be inside of a map"]
    return []


def no_socket(failure: Failure) -> list[str]:
    """ENOTSOCK: the value of a sockmap is no socket's fd."""
    fact, inside = map_fact(failure), held(failure)
    if fact is None or inside is None or map_kind(fact) not in SOCKETS:
        return []
    return [f"fd {inside.fd} is {spoken_of(inside)}, not a socket"]


def batch_stopped(failure: Failure) -> list[str]:
    """A batch that was done in part: which element was refused."""
    batch = ("attr", "batch")
    fact = failure.call.fact(*batch, "map_fd")
    asked, done = _before_and_after(failure, *batch, "count")
    if fact is None or asked is None or done is None:
        return []
    said = label_of(failure, fact)
    if failure.errno == errno.ENOENT and "LOOKUP" in failure.command:
        return [f"that was the end of {said}; elements that were read now: {done}"]
    if done >= asked:
        return []
    if failure.errno == errno.ENOSPC:
        return [f"count is {asked}: a bucket of {said} holds more elements than there is room for"]
    why = {
        errno.E2BIG: f"{said} is full",
        errno.ENOENT: f"its key is not in {said}",
    }.get(failure.errno)
    return [f"{done} of {asked} elements were done; at element {done}: {why}"] if why else []


def batch_flags(failure: Failure) -> list[str]:
    """EINVAL: generic_map_update_batch() and its like take BPF_F_LOCK, or newer flags."""
    bits = failure.number("batch", "elem_flags") & (const.BPF_NOEXIST | const.BPF_EXIST)
    named = and_words([name for bit, name in names.map_elem_flags.items() if bit and bits & bit])
    return [f"elem_flags has {named}, and no batch takes that"] if bits else []


def _before_and_after(failure: Failure, *path: str) -> tuple[int | None, int | None]:
    from decoders.values import Changed, Int

    value = failure.call.attr(*path)
    if isinstance(value, Changed):
        old, new = value.before, value.after
        return (
            old.value if isinstance(old, Int) else None,
            new.value if isinstance(new, Int) else None,
        )
    number = value.value if isinstance(value, Int) else None
    return number, number
