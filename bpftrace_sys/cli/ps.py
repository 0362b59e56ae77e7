"""``bpfstrace ps``: the BPF objects of this machine, who has them and where they are attached."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from bpftrace_sys import __version__
from bpftrace_sys.cli.arguments import arguments, or_trace
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.messages import OWN_FAILURE
from bpftrace_sys.cli.options import colour_of
from bpftrace_sys.cli.values import seconds_of
from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.record.machine.inventory import look
from bpftrace_sys.record.machine.live_facts import LiveFacts
from bpftrace_sys.render.inventory import machine_lines, screenful, write_tables
from bpftrace_sys.render.output import Output, close
from bpftrace_sys.story.inventory import Machine
from bpftrace_sys.trace.events import ending_line
from bpftrace_sys.trace.inventory import Inventory
from decoders.events import Ending

CLEAR: Final = "\x1b[H\x1b[J"
"""To the upper left, and nothing from there on: what was scrolled away stays."""


def main(words: list[str]) -> int:
    """``bpfstrace ps``; returns the exit code."""
    found = arguments("ps", words)
    if found is None:
        return 0
    given, rest = dict(found[0]), found[1]
    if rest:
        raise UsageError(f"ps takes no {rest[0]!r}{or_trace('ps', words)}")
    json = "--json" in given
    colour = colour_of("--color", given["--color"]) if "--color" in given else "auto"
    seconds = seconds_of("--watch", given["--watch"]) if "--watch" in given else 0.0
    try:
        return _watch(json, seconds, colour)
    except KeyboardInterrupt:
        return 0


def _watch(json: bool, seconds: float, colour: str) -> int:
    earlier: Inventory | None = None
    facts = LiveFacts()
    out = Output(sys.stdout, "<stdout>")
    while True:
        machine = Machine(look(lambda map_id: facts.fact("ops_members", map_id)), facts, earlier)
        _show(machine, json, out, bool(seconds), colour)
        out.flush()
        if out.lost is not None or not seconds:
            return 0 if out.closed_pipe or close([out]) else OWN_FAILURE
        earlier = machine.inventory
        time.sleep(seconds)


def _show(machine: Machine, json: bool, out: Output, again: bool, colour: str) -> None:
    if json:
        uname = os.uname()
        header = {
            "type": "machine",
            "bpfstrace": __version__,
            "time": machine.inventory.time,
            "host": uname.nodename,
            "kernel": uname.release,
            "machine": uname.machine,
            "stats": machine.inventory.stats,
        }
        for line in (header, *machine_lines(machine), ending_line(Ending())):
            out.write(dumps(line) + "\n")
        return
    if again and out.stream.isatty():
        out.write(CLEAR + time.strftime("%Y-%m-%d %H:%M:%S\n\n"))
        screenful(machine.tables(), out, 2)
        return
    if again:
        out.write(time.strftime("%Y-%m-%d %H:%M:%S\n\n"))
    write_tables(machine.tables(), out, colour)
    if again:
        out.write("\n")
