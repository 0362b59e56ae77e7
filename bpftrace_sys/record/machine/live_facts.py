"""Names that only the machine of the trace knows: live, or as recorded.

A fact is (kind, key) -> name.  Whatever a live source answers is recorded in
the trace before the call that asked, so that replay says the same.

kinds: ``pmu`` (type number), ``tracepoint`` (id in tracefs), ``tracepoint_named NAME`` (0: with
its category), ``usym PATH`` (offset in a file), ``no_code PATH`` (offset in an ELF file that is in
none of its executable segments), ``unlooked PATH`` (offset in a file: why that was not looked at),
``btf_vmlinux`` (type id), ``ksym`` (address),
``prog``/``map``/``link``/``btf`` (kernel id, for objects that the trace did not see made),
``before KIND`` (id: made before the trace began), ``named KIND NAME`` (id: it has another name),
``func_of PROG`` and ``module_type MODULE`` (type id), ``bpf_call`` (distance from
__bpf_call_base), ``device`` (ifindex of a link from elsewhere), ``holders KIND`` and ``pinned
KIND PATH`` (id: who has an fd of it, whether it is there), ``standing`` (id of a program: where
it is attached without link or fd), ``ops_members`` (id of a struct_ops map: its functions and
their offsets), ``iter_target`` (id of an iterator program: what it walks), ``fields STRUCT``
(members that our layouts lack), ``prototype`` (type id in vmlinux of a function or of a
tracepoint's typedef), ``member_prototype N`` (type id of a struct_ops), ``prototype FUNCTION``
and ``tracepoint_args NAME`` (0: its declaration), ``format CATEGORY:NAME`` (0: a tracepoint's
fields: ``TYPE NAME@OFFSET+SIZE;...``), ``runs`` (id of a program: how often it ran, with
--stats), ``alive_prog`` and so on (still there at the end), ``enum NAME`` (a value that our
tables lack and the running kernel's BTF names), ``boot`` (0: nanoseconds since the epoch when
the machine booted), ``why ...`` (see evidence.py).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.record.machine.hardware import Machine
from bpftrace_sys.trace.facts import PASSING, Answers, Facts, too_long

if TYPE_CHECKING:
    from bpftrace_sys.trace.inventory import Place
    from decoders.formats.btf import Btf

TRACEFS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
SETTLING: Final = 0.03
"""Seconds that what seems to be left behind is given to go; and the longest between two looks."""
PAUSE: Final = 0.001
"""Seconds between the first two looks; each time twice as long."""
BTF_FOLDER: Final = "/sys/kernel/btf"
VMLINUX_BTF: Final = f"{BTF_FOLDER}/vmlinux"


OF_OBJECTS: Final = frozenset(
    {
        "why", "before", "named", "prog", "map", "link", "btf", "func_of", "iter_target",
        "ops_members", "holders", "pinned", "alive_prog", "alive_map", "alive_link",
    }
)  # fmt: skip
"""Kinds of facts about single calls and objects: there are ever new ones, so the oldest are
forgotten, and asked again if need be."""


class LiveFacts(Facts):
    """Asks this machine, once per question."""

    def __init__(
        self, highest: dict[str, int] | None = None, machine: Machine | None = None,
        files: Any = None,
    ) -> None:  # fmt: skip
        """``highest``: the highest ids when the trace began, by kind (see newest_ids.py);
        ``files``: the TraceeFiles of whoever else looks for files."""
        self.highest = highest or {}
        machine = machine or Machine()
        super().__init__(machine.pmus, machine.cpus)
        self.pid = 0
        """The process that is asked about."""
        self.world: Any = None
        """capture.world.World of the call that is told, where it was kept."""
        self.record: Callable[[str, int, str], None] | None = None
        """Told of each answer."""
        self.types: dict[tuple[str, int], int] = {}
        """Ids in vmlinux BTF that need not be asked for: what a program attaches to, what a
        struct_ops map's value is; by kind and id of the object."""
        self._known = Answers()
        self._passing: deque[tuple[str, int]] = deque()
        self._btf: Btf | None = None
        self._btf_read = False
        self._tracepoints: dict[int, str] | None = None
        self._symbols: dict[int, str] | None = None
        self._call_base = 0
        self._elf: Any = None
        self._files: Any = files
        self._newer: dict[str, dict[int, str]] | None = None
        self.patience = SETTLING
        """Seconds to wait, in all, for objects to go that nothing seems to hold."""
        self._evidence: Any = None
        self._declarations: Any = None
        self.runs: Callable[[int], str | None] | None = None
        """RunStats.runs, where runs are counted (--stats)."""
        self._holders: dict[tuple[str, int], list[tuple[int, str]]] | None = None
        self._standing: dict[int, list[Place]] | None = None

    def concerning(self, pid: int) -> None:
        self.pid = pid

    def have_patience(self, seconds: float) -> None:
        self.patience = seconds

    def fact(self, kind: str, key: int) -> str | None:
        if kind == "pmu":
            return self.pmus.get(key)
        question = (kind, key)
        known = self._known.get(question)
        # A number means another device in another network namespace.
        if question in self._known and kind != "device":
            return known
        word, _, rest = kind.partition(" ")
        answer = None
        if rest and word in ABOUT:
            answer = ABOUT[word](self, key, rest)
        elif not rest and word in OF_NUMBERS:
            answer = OF_NUMBERS[word](self, key)
        if answer is not None and too_long(kind, answer):
            answer = None
        self._known.learn(question, answer)
        if key and word in OF_OBJECTS:
            self._passing.append(question)
            if len(self._passing) > PASSING:
                self._known.forget(self._passing.popleft())
        if answer is not None and answer != known and self.record is not None:
            self.record(kind, key, answer)
        return answer

    def newer(self, enum: str, value: int) -> str | None:
        question = (f"enum {enum}", value)
        if question not in self._known:
            answer = self._newer_names().get(enum, {}).get(value)
            self._known.learn(question, answer)
            if answer is not None and self.record is not None:
                self.record(*question, answer)
        return self._known.get(question)

    def vmlinux(self) -> Btf | None:
        """The running kernel's BTF, or None."""
        if not self._btf_read:
            from decoders.formats import btf

            self._btf_read = True
            with contextlib.suppress(OSError, btf.BtfError), open(VMLINUX_BTF, "rb") as file:
                self._btf = btf.parse(file.read())
        return self._btf

    def _newer_names(self) -> dict[str, dict[int, str]]:
        if self._newer is None:
            self._newer = {}
            vmlinux = self.vmlinux()
            if vmlinux is not None:
                from decoders import newer
                from decoders.uapi import helpers, names, perf

                # The kernel has an enum of its own by the name of bpf_stream_id.
                tables = {
                    name: table
                    for module in (names, perf, helpers)
                    for name, table in vars(module).items()
                    if isinstance(table, dict) and name[:1].islower() and name != "bpf_stream_id"
                }
                self._newer = newer.newer_names(vmlinux, tables)
        return self._newer

    def _ask_fields(self, key: int, struct: str) -> str | None:
        """Members of a struct that our layouts lack, as decoders.newer packs them."""
        vmlinux = self.vmlinux()
        if vmlinux is None:
            return None
        from decoders import newer
        from decoders.uapi.layouts import LAYOUTS

        found = newer.newer_fields(vmlinux, {struct: LAYOUTS.get(struct, ())}).get(struct)
        return newer.packed(found) if found else None

    def _ask_iter_target(self, key: int) -> str | None:
        from bpftrace_sys.record.machine import bpf

        type_id = self.types.get(("prog", key)) or bpf.attach_btf_id(key)
        vmlinux = self.vmlinux() if type_id else None
        name = vmlinux.name(type_id) if vmlinux is not None and type_id else ""
        return name.removeprefix("bpf_iter_") if name.startswith("bpf_iter_") else None

    def _ask_tracepoint(self, key: int) -> str | None:
        if self._tracepoints is None or key not in self._tracepoints:
            from bpftrace_sys.record.machine.tracepoints import tracepoints

            self._tracepoints = tracepoints(TRACEFS)
        return self._tracepoints.get(key)

    def _ask_tracepoint_named(self, key: int, name: str) -> str | None:
        """A tracepoint with its category, where there is but one of that name."""
        from bpftrace_sys.record.machine.tracepoints import tracepoint_named

        return tracepoint_named(TRACEFS, name)

    def _ask_device(self, key: int) -> str | None:
        from bpftrace_sys.record.machine.netdev import ifname, in_netns

        return in_netns(self.pid, lambda: ifname(key))

    @property
    def files(self) -> Any:
        """A TraceeFiles."""
        if self._files is None:
            from bpftrace_sys.record.files.tracee_files import TraceeFiles

            self._files = TraceeFiles()
        return self._files

    def _functions(self) -> Any:
        if self._elf is None:
            from bpftrace_sys.record.machine.symbols import Symbols

            self._elf = Symbols(self.files)
        return self._elf

    def _ask_usym(self, offset: int, path: str) -> str | None:
        found = self._functions().at(self.pid, path, offset)
        return None if found is None else str(found)

    def _ask_no_code(self, offset: int, path: str) -> str | None:
        return "yes" if self._functions().executable(self.pid, path, offset) is False else None

    def _ask_unlooked(self, offset: int, path: str) -> str | None:
        found = self.files.unlooked(path)
        return None if found is None else str(found)

    def _ask_why(self, key: int, question: str) -> str | None:
        if self._evidence is None:
            from bpftrace_sys.record.machine.evidence import Evidence

            self._evidence = Evidence(self)
        found = self._evidence.ask(question, key)
        return None if found is None else str(found)

    def _ask_boot(self, key: int) -> str | None:
        return str(time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _ask_btf_vmlinux(self, key: int) -> str | None:
        vmlinux = self.vmlinux()
        name = None if vmlinux is None else vmlinux.name(key)
        return name or None

    def _ask_ksym(self, key: int) -> str | None:
        return self._kernel_symbols().get(key)

    def _ask_bpf_call(self, key: int) -> str | None:
        """The function that a translated call leads to, at this distance from the base."""
        symbols = self._kernel_symbols()
        return symbols.get(self._call_base + key) if self._call_base else None

    def _kernel_symbols(self) -> dict[int, str]:
        if self._symbols is None:
            symbols: dict[int, str] = {}
            try:
                with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
                    for line in file:
                        addr, _, rest = line.partition(" ")
                        if addr.strip("0"):
                            name = rest[2:].rstrip("\n")
                            symbols.setdefault(int(addr, 16), name)
                            if name == "__bpf_call_base":
                                self._call_base = int(addr, 16)
            except (OSError, ValueError):
                pass
            self._symbols = symbols
        return self._symbols

    def _alive(self, kind: str, key: int) -> str | None:
        """Whether an object is still there after the last tracee's end.

        The kernel frees objects a moment after their last fd is closed.
        """
        from bpftrace_sys.record.machine import bpf

        pause = PAUSE
        while bpf.info(kind, key) is not None:
            if self.patience <= 0:
                return "yes"
            self.patience -= pause
            time.sleep(pause)
            pause = min(2 * pause, SETTLING)
        return None

    def _ask_alive_prog(self, key: int) -> str | None:
        return self._alive("prog", key)

    def _ask_alive_map(self, key: int) -> str | None:
        return self._alive("map", key)

    def _ask_alive_link(self, key: int) -> str | None:
        return self._alive("link", key)

    def _ask_standing(self, key: int) -> str | None:
        """Where a program is attached without link or fd: on devices, cgroups, namespaces.

        All are looked at when the first program is asked for.
        """
        if self._standing is None:
            from bpftrace_sys.record.machine.inventory import without_links

            self._standing = without_links()
        from bpftrace_sys.trace.inventory import places_text

        found = self._standing.get(key)
        return places_text(found) if found else None

    def _ask_holders(self, key: int, kind: str) -> str | None:
        """The processes that have an fd of an object: ``1234 (bpftool), 77 (sh)``."""
        if self._holders is None:
            from bpftrace_sys.record.machine.holders import holders

            self._holders = holders(os.getpid())
        found = self._holders.get((kind, key), ())
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return ", ".join(f"{pid} ({comm})" for pid, comm in found[:3]) + more or None

    def _prototypes(self) -> Any:
        if self._declarations is None:
            from bpftrace_sys.record.machine.prototypes import Prototypes

            vmlinux = self.vmlinux()
            self._declarations = False if vmlinux is None else Prototypes(vmlinux)
        return self._declarations or None

    def _ask_prototype(self, key: int, function: str = "") -> str | None:
        """A kernel function's or tracepoint's declaration, by type id or by the function's name."""
        found = self._prototypes()
        if found is None:
            return None
        declared: str | None = found.function(function) if function else found.of_type(key)
        return declared

    def _ask_tracepoint_args(self, key: int, name: str) -> str | None:
        """What a tracepoint hands to raw programs."""
        found = self._prototypes()
        declared: str | None = None if found is None else found.tracepoint(name)
        return declared

    def _ask_member_prototype(self, key: int, index: str) -> str | None:
        """What a member of a struct_ops is, by the struct's type id."""
        found = self._prototypes()
        if found is None or not (index.isascii() and index.isdigit()):
            return None
        declared: str | None = found.member(key, int(index[:6]))
        return declared

    def _ask_format(self, key: int, tracepoint: str) -> str | None:
        """The fields of a tracepoint."""
        from bpftrace_sys.record.machine.prototypes import tracepoint_fields

        return tracepoint_fields(TRACEFS, tracepoint)

    def _ask_runs(self, key: int) -> str | None:
        """How often a program ran: ``RUNS NANOSECONDS MISSES``."""
        return None if self.runs is None else self.runs(key)

    def _ask_pinned(self, key: int, question: str) -> str | None:
        """Whether an object is pinned where ``question`` (its kind and a path) says."""
        from bpftrace_sys.record.machine.holders import is_pinned

        kind, _, path = question.partition(" ")
        return "yes" if is_pinned(path, kind, key) else None

    def _ask_prog(self, key: int) -> str | None:
        from bpftrace_sys.record.machine import bpf

        return bpf.name("prog", key)

    def _ask_map(self, key: int) -> str | None:
        from bpftrace_sys.record.machine import bpf

        return bpf.name("map", key)

    def _ask_link(self, key: int) -> str | None:
        from bpftrace_sys.record.machine import bpf

        return bpf.name("link", key)

    def _ask_ops_members(self, key: int) -> str | None:
        """The functions of a struct_ops map's value: ``data.init:256 ...``."""
        from bpftrace_sys.record.machine import bpf
        from bpftrace_sys.record.machine.map_contents import functions_of

        vmlinux = self.vmlinux()
        value = self.types.get(("map", key)) or bpf.vmlinux_value_type(key)
        return functions_of(vmlinux, value) if vmlinux is not None and value else None

    def _ask_btf(self, key: int) -> str | None:
        from bpftrace_sys.record.machine import bpf

        return bpf.name("btf", key)

    def _ask_before(self, key: int, kind: str) -> str | None:
        """Whether an object is older than the trace."""
        highest = self.highest.get(kind)
        return "yes" if highest is not None and 0 < key <= highest else None

    def _ask_named(self, key: int, question: str) -> str | None:
        """The name that an object has in the kernel, where it is not the one in question.

        ``question``: the kind and the supposed name.
        """
        from bpftrace_sys.record.machine import bpf

        kind, _, supposed = question.partition(" ")
        found = bpf.short_name(kind, key)
        return None if found is None or found == supposed else found or "(anonymous)"

    def _ask_func_of(self, key: int, prog: str) -> str | None:
        """The name of a type in the BTF that a program was loaded with."""
        from bpftrace_sys.record.machine import bpf

        return bpf.type_name(int(prog), key)

    def _ask_module_type(self, key: int, module: str) -> str | None:
        """The name of a type in a module's BTF."""
        from decoders.formats import btf

        base = self.vmlinux()
        if base is None or "/" in module:
            return None
        try:
            with open(f"{BTF_FOLDER}/{module}", "rb") as file:
                return btf.parse(file.read(), base).name(key) or None
        except (OSError, btf.BtfError):
            return None


OF_NUMBERS: Final[dict[str, Callable[[LiveFacts, int], str | None]]] = {
    "iter_target": LiveFacts._ask_iter_target,
    "tracepoint": LiveFacts._ask_tracepoint,
    "device": LiveFacts._ask_device,
    "boot": LiveFacts._ask_boot,
    "btf_vmlinux": LiveFacts._ask_btf_vmlinux,
    "ksym": LiveFacts._ask_ksym,
    "bpf_call": LiveFacts._ask_bpf_call,
    "alive_prog": LiveFacts._ask_alive_prog,
    "alive_map": LiveFacts._ask_alive_map,
    "alive_link": LiveFacts._ask_alive_link,
    "standing": LiveFacts._ask_standing,
    "prototype": LiveFacts._ask_prototype,
    "runs": LiveFacts._ask_runs,
    "prog": LiveFacts._ask_prog,
    "map": LiveFacts._ask_map,
    "link": LiveFacts._ask_link,
    "ops_members": LiveFacts._ask_ops_members,
    "btf": LiveFacts._ask_btf,
}
"""Kinds of facts that follow from a number alone, and who asks the machine."""
ABOUT: Final[dict[str, Callable[[LiveFacts, int, str], str | None]]] = {
    "fields": LiveFacts._ask_fields,
    "tracepoint_named": LiveFacts._ask_tracepoint_named,
    "usym": LiveFacts._ask_usym,
    "no_code": LiveFacts._ask_no_code,
    "unlooked": LiveFacts._ask_unlooked,
    "why": LiveFacts._ask_why,
    "holders": LiveFacts._ask_holders,
    "prototype": LiveFacts._ask_prototype,
    "tracepoint_args": LiveFacts._ask_tracepoint_args,
    "member_prototype": LiveFacts._ask_member_prototype,
    "format": LiveFacts._ask_format,
    "pinned": LiveFacts._ask_pinned,
    "before": LiveFacts._ask_before,
    "named": LiveFacts._ask_named,
    "func_of": LiveFacts._ask_func_of,
    "module_type": LiveFacts._ask_module_type,
}
"""Kinds that take more words: ``format sched:sched_switch``."""
