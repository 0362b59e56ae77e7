"""bpfstrace disasm: raw instructions as a listing."""

from __future__ import annotations

import sys

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.messages import DIFFERENT, DONE, TROUBLE, complain


def main(words: list[str]) -> int:
    """``bpfstrace disasm``; returns the exit code."""
    found = arguments("disasm", words)
    if found is None:
        return DONE
    words = found[1]
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
    lines = disasm(data)
    while part := list(islice(lines, 4096)):
        sys.stdout.write("\n".join(part) + "\n")
    if len(data) % 8:
        print(f"bpfstrace: {len(data) % 8} bytes after the last instruction", file=sys.stderr)
        return DIFFERENT
    return DONE
