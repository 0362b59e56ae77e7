"""``bpfstrace dump``: a program of this machine, translated and as native code."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final, NoReturn

from bpftrace_sys.cli.arguments import arguments, or_trace
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.messages import OWN_FAILURE, complain
from bpftrace_sys.cli.options import colour_of
from bpftrace_sys.cli.renderers import width_of
from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.escape import printable
from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.record.capture.kernel_views import KernelViews
from bpftrace_sys.record.machine import bpf, prog_info
from bpftrace_sys.record.machine.fds import FdLookup
from bpftrace_sys.record.machine.holders import pinned
from bpftrace_sys.record.machine.inventory import look
from bpftrace_sys.record.machine.live_facts import LiveFacts
from bpftrace_sys.render.inventory import object_line, program_lines
from bpftrace_sys.render.kernel_view_json import kernel_view_json
from bpftrace_sys.render.output import Output, close
from bpftrace_sys.render.style import painter, wants_colour
from bpftrace_sys.render.text import TextRenderer
from bpftrace_sys.render.text_options import Options
from bpftrace_sys.story.context import place
from bpftrace_sys.story.inventory import Machine
from bpftrace_sys.story.kernel_view import Seen, seen
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Object
from bpftrace_sys.trace.inventory import ObjectState
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.pieces import Pieces, pack
from decoders import arch
from decoders.records import replace

MISSING: Final = 1
"""Exit code where there is no such program, or we may not have it."""
LISTED: Final = 10
"""Of several programs of one name, that are named."""
GIVEN: Final = 3
"""Places of which is said what the program is given there."""


class NotFoundError(BpfstraceError):
    """No program is meant, or more than one."""


def main(words: list[str]) -> int:
    """``bpfstrace dump``; returns the exit code."""
    found = arguments("dump", words)
    if found is None:
        return 0
    given, names = dict(found[0]), found[1]
    flags = set(given)
    colour = colour_of("--color", given["--color"]) if "--color" in given else "auto"
    if len(names) != 1:
        raise UsageError(f"dump takes one ID, NAME or PIN{or_trace('dump', words)}")
    asked = tuple(word for word in ("xlated", "jited") if f"--{word}" in flags) or ("xlated",)
    facts = LiveFacts()
    machine = Machine(look(lambda map_id: facts.fact("ops_members", map_id)), facts)
    try:
        state = find(names[0], machine)
        view = fetch(state, asked)
    except NotFoundError as error:
        complain(str(error))
        return MISSING
    told = seen(view, Model(facts))
    known = next(known for each, known in machine.objects if each is state)
    told.prog = known
    if len(known.attached) == 1:
        # What it reads is named after what it is given there.
        there = place(known.attached[0], arch.of_machine()[0], facts)
        if there is not None:
            told.known = replace(told.known, layout=there[1])
    out = Output(sys.stdout, "<stdout>")
    _show(machine, told, known, state, flags, asked, out, colour)
    out.flush()
    return 0 if out.closed_pipe or close([out]) else OWN_FAILURE


def _show(
    machine: Machine,
    told: Seen,
    known: Object,
    state: ObjectState,
    flags: set[str],
    asked: tuple[str, ...],
    out: Output,
    colour: str,
) -> None:
    if "--json" in flags:
        pieces = Pieces()
        for line in (object_line(state, known),
                     kernel_view_json(told, lambda data: pack(data, pieces))):  # fmt: skip
            out.write(dumps(line) + "\n")
        return
    paint = painter(out.stream, colour)
    model = Model(machine.place_text.facts)
    out.write("\n".join(program_lines(machine, state, known, paint)) + "\n")
    for target in known.attached[:GIVEN]:
        found = place(target, 0, model.facts)
        if found is not None:
            out.write(f"  given     {printable(found[0])}\n")
    options = Options(
        verbose=bool("--verbose" in flags),
        width=width_of(out),
        kernel=asked,
        syntax="intel" if "--intel" in flags else "att",
        tokens=wants_colour(out.stream, colour),
    )
    TextRenderer(out, model, options, paint).kernel_view(told)


# ------------------------------------------------------------ which


def find(word: str, machine: Machine) -> ObjectState:
    """The program that is meant by an id, a name or a pin; raises NotFoundError."""
    progs = {state.id: state for (kind, _), state in machine.states.items() if kind == "prog"}
    if word.isascii() and word.isdigit():
        state = progs.get(int(word))
        if state is None:
            _missing(f"no program has the id {word}", machine)
        return state
    if "/" in word:
        return _pinned(word, machine)
    named = [state for state in progs.values() if state.name == word]
    # The kernel, and so other tools, cut a name.
    cut = len(word) == bpf.NAME_LEN
    named = named or [state for state in progs.values() if cut and state.name.startswith(word)]
    if not named:
        _missing(f"no program is called {word}", machine)
    if len(named) > 1:
        ids = ", ".join(
            f"{state.id} ({machine.held_by(state)})" for state in named[:LISTED]
        )
        raise NotFoundError(f"{len(named)} programs are called {word}; choose by id: {ids}")
    return named[0]


def _missing(what: str, machine: Machine) -> NoReturn:
    hidden = [each for each in machine.inventory.unseen if each.what == "programs of others"]
    more = f" that we may see: {hidden[0].why}" if hidden else " (bpfstrace ps lists them)"
    raise NotFoundError(what + more)


def _pinned(path: str, machine: Machine) -> ObjectState:
    found = pinned(path)
    if found is None:
        if not os.path.lexists(path):
            raise NotFoundError(f"{path}: nothing is there")
        raise NotFoundError(f"{path}: no BPF object is pinned there, or we may not have it")
    kind, number = found
    if kind == "link":
        link = machine.states.get(found)
        number = link.info.number("prog_id") if link is not None else 0
    elif kind != "prog":
        raise NotFoundError(f"{path}: a {kind} is pinned there, not a program")
    state = machine.states.get(("prog", number))
    if state is None:
        raise NotFoundError(f"{path}: its program is gone")
    return state


# ------------------------------------------------------------ what


def fetch(state: ObjectState, asked: tuple[str, ...]) -> KernelView:
    """What the kernel gives of a program, by its id or by somebody's fd; raises NotFoundError."""
    assert state.id is not None
    number = state.id
    trouble = ""
    with contextlib.closing(FdLookup()) as lookup:
        for tid, theirs in [(0, 0), *((each.pid, each.fds[0]) for each in state.holders)]:
            try:
                fd = lookup.duplicate(tid, theirs) if tid else bpf.fd_by_id("prog", number)
                try:
                    info = prog_info.fetch(fd)
                finally:
                    os.close(fd)
            except (OSError, ValueError) as error:
                trouble = trouble or getattr(error, "strerror", None) or str(error)
                continue
            if info.id == number:
                view = KernelViews(asked).named(info)
                view.asked = asked
                view.btf = bpf.btf_data(info.btf_id) or b"" if info.btf_id else b""
                return view
    raise NotFoundError(f"program {number}: {trouble or 'gone'}")
