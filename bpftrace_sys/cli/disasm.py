"""bpfstrace disasm: raw instructions as a listing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.messages import DIFFERENT, DONE, TROUBLE, complain
from bpftrace_sys.cli.options import colour_of


def main(words: list[str]) -> int:
    """``bpfstrace disasm``; returns the exit code."""
    found = arguments("disasm", words)
    if found is None:
        return DONE
    given, words = dict(found[0]), found[1]
    colour = colour_of("--color", given["--color"]) if "--color" in given else "auto"
    if len(words) != 1:
        raise UsageError("disasm takes one file of raw instructions (- is stdin)")
    from itertools import islice

    from decoders.formats.insn_text import disasm

    try:
        if words[0] == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(words[0], "rb") as file:
                data = file.read()
    except OSError as error:
        complain(f"{words[0]}: {error.strerror}")
        return TROUBLE
    if data.startswith(b"\x7fELF"):
        complain(
            f"{words[0]}: this is an ELF object, not raw instructions; "
            "llvm-objdump -d shows what is in it"
        )
        return TROUBLE
    lines = coloured(disasm(data), colour)
    while part := list(islice(lines, 4096)):
        sys.stdout.write("\n".join(part) + "\n")
    if len(data) % 8:
        print(f"bpfstrace: {len(data) % 8} bytes after the last instruction", file=sys.stderr)
        return DIFFERENT
    return DONE


def coloured(lines: Iterator[str], when: str) -> Iterator[str]:
    """The lines as --color asks."""
    from bpftrace_sys.render.style import painter, wants_colour

    if not wants_colour(sys.stdout, when):
        return lines
    from bpftrace_sys.render.insn_paint import InsnPainter

    paint = InsnPainter(painter(sys.stdout, when))

    def painted(line: str) -> str:
        pc, colon, text = line.partition(": ")
        return f"{pc}{colon}{paint(text)}"

    return map(painted, lines)
