"""A reproduction written in Python: one file that needs the standard library only.

All that comes from the trace is written as a literal, or as a comment in which nothing ends
the line: a trace cannot put code into the file.
"""

from __future__ import annotations

import base64
import textwrap
import zlib
from collections.abc import Iterator
from importlib import resources
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.export.reproduction import (
    FD,
    Buffer,
    Chars,
    Close,
    Handle,
    Issue,
    LeftOut,
    Looked,
    Nowhere,
    Number,
    Part,
    Reproduction,
    Value,
)

INLINE: Final = 64
"""Bytes up to which a buffer's contents stand where it is used."""
WIDTH: Final = 96
HEX_FROM: Final = 1 << 16
LARGE: Final = 1 << 20
"""Bytes from which less room is not worth the time."""
TYPES: Final = "from typing import Any, Callable, NoReturn, Sequence"
"""What the runtime imports for type checkers only, as Python 3.8 has it."""
RUNTIME: Final = ("reproducer_runtime.py", "reproducer_places.py")
"""Files beside this one, which every reproducer holds."""


def write(made: Reproduction) -> Iterator[str]:
    """The reproducer, in pieces."""
    yield from _Writer(made).pieces()


def about(made: Reproduction) -> list[str]:
    """What a reader has to know, in lines."""
    lines = [
        "Issues the calls of a bpfstrace trace again, and prints what each returns beside",
        "what was recorded. DIFFERS marks where they are not the same (exit code 1).",
        "",
        *textwrap.wrap(
            f"Recorded: {made.title or '(nothing)'}", WIDTH, subsequent_indent="  "
        ),
        f"On:       Linux {made.kernel} {made.machine}",
        "",
        "Run it as root, on a machine that may crash: it loads and attaches the recorded",
        "programs. Pins, cgroups and network devices are its own, and go when it ends.",
        "It holds memory of the recorded process: look before you pass it on.",
    ]
    for remark in made.remarks:
        lines += ["", *textwrap.wrap(f"{remark[:1].upper()}{remark[1:]}.", WIDTH)]
    return lines


class _Writer:
    def __init__(self, made: Reproduction) -> None:
        self.made = made
        self._lines: list[str] = []
        self._programs: dict[str, str] = {}
        """The names of listings, by their text."""
        self._blobs: dict[bytes, str] = {}

    def pieces(self) -> Iterator[str]:
        imports, *rest = _runtime()
        calls = "".join(self._calls())
        yield "#!/usr/bin/env python3\n"
        yield f'"""{_in_quotes(chr(10).join(about(self.made)))}\n"""\n\n'
        yield imports
        yield "\n\n# " + "-" * 66 + " the calls\n\n\n"
        yield calls
        for listing, name in self._programs.items():
            yield f'\n\n{name} = """\n{listing}"""\n'
        yield from rest
        yield f"\n\nTITLE = {printable(self.made.title)!r}\n"
        if self._blobs:
            yield "\n# " + "-" * 66 + " blobs\n"
        for data, name in self._blobs.items():
            yield f"\n{name} = {_packed(data)}\n"
        yield '\nif __name__ == "__main__":\n    start()\n    calls()\n    finish()\n'

    # ------------------------------------------------------------ calls

    def _calls(self) -> Iterator[str]:
        yield "def calls():\n"
        for step in self.made.steps:
            if isinstance(step, Close):
                yield f"\n    close({step.handle.name})  # {_comment(step.why)}\n"
            elif isinstance(step, LeftOut):
                yield f"\n    # {step.seq}: {_comment(step.what)}: not issued: "
                yield f"{_comment(step.why)}\n"
            else:
                yield "".join(f"    {line}\n" if line else "\n" for line in self._call(step))
        if not self.made.steps:
            yield "    pass\n"

    def _call(self, issue: Issue) -> list[str]:
        self._lines = ["", f"# {issue.seq}: {_comment(issue.what)}  [{_comment(issue.about)}]"]
        arguments = ", ".join(self._value(value) for value in issue.arguments)
        target = f"{issue.made.name} = " if issue.made is not None else ""
        expected = "FD" if issue.expected == FD else repr(issue.expected)
        tail = f", {issue.loose!r}" if issue.loose else ""
        if issue.returns_fd and issue.expected != FD:
            tail += ", returns=FD"
        if issue.credentials is not None:
            tail += f", user={issue.credentials[0]}, capabilities={issue.credentials[1]:#x}"
        self._lines.append(
            f"{target}call({issue.seq}, {issue.what!r}, {issue.syscall!r}, [{arguments}], "
            f"{expected}{tail})"
        )
        return self._lines

    def _value(self, value: Value) -> str:
        """An expression; what it needs is written before."""
        if isinstance(value, Number):
            return hex(value.value) if value.value >= HEX_FROM else str(value.value)
        if isinstance(value, Chars):
            return repr(value.data)
        if isinstance(value, Handle):
            return value.name
        if isinstance(value, Looked):
            if value.how in ("own_pid", "netns"):
                return value.how
            words = (w.name if isinstance(w, Handle) else repr(w) for w in value.args)
            return f"{value.how}({', '.join(words)})"
        if isinstance(value, Nowhere):
            return "NOWHERE"
        return self._buffer(value)

    def _buffer(self, made: Buffer) -> str:
        if made.path:
            data = made.data.partition(b"\0")[0]
            words = [] if made.parents else ["parents=False"]
            words += ["mounted=True"] if made.mounted else []
            return f"Pin({', '.join([repr(data), *words])})"
        if made.listing is not None and not made.torn:
            return self._insns(made)
        words = []
        data = made.data.rstrip(b"\0") if not made.torn else made.data
        if data:
            words.append(self._data(data))
        if made.torn:
            words.append("torn=True")
        elif len(data) != made.size or not data:
            words.append(f"size={made.size}" if made.size < HEX_FROM else f"size={made.size:#x}")
        if not made.parts:
            return f"Buffer({', '.join(words)})"
        rows = [self._part(part) for part in made.parts]
        self._lines += [
            f"{made.name} = Buffer({''.join(f'{word}, ' for word in words)}parts=[", *rows, "])"
        ]
        return made.name

    def _part(self, part: Part) -> str:
        row = f"    ({part.offset}, {part.size}, {self._value(part.value)}),"
        return f"{row:<46}  # {_comment(part.note)}" if part.note else row

    def _data(self, data: bytes) -> str:
        if len(data) <= INLINE:
            return repr(data)
        return self._blobs.setdefault(data, f"BLOB_{len(self._blobs) + 1}")

    def _insns(self, made: Buffer) -> str:
        assert made.listing is not None
        listing = "".join(f"{raw:<32} | {_in_quotes(text)}\n" for raw, text in made.listing)
        name = self._programs.setdefault(listing, f"PROGRAM_{len(self._programs) + 1}")
        slots = "".join(
            f", s{part.offset // 8}={self._value(part.value)}" for part in made.parts
        )
        return f"insns({name}{slots})"


def _comment(text: str) -> str:
    """Text that stays within its line."""
    return printable(text)


def _in_quotes(text: str) -> str:
    """Text between three double quotes."""
    lines = (printable(line) for line in text.split("\n"))
    return "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip()


def _packed(data: bytes) -> str:
    """A blob as an expression: base 85, compressed."""
    level = 9 if len(data) < LARGE else 1
    text = base64.b85encode(zlib.compress(data, level)).decode("ascii")
    rows = (text[at : at + WIDTH] for at in range(0, len(text), WIDTH))
    return 'unpacked("""\n' + "\n".join(rows) + f'\n""", {len(data)})'


def _runtime() -> list[str]:
    """The imports of the runtime, then the rest of its files."""
    texts = [
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in RUNTIME
    ]
    modules: set[str] = set()
    bodies = []
    for text in texts:
        head, line, body = text.partition("\n# ------")
        modules |= {word for word in head.splitlines() if word.startswith("import ")}
        bodies.append(f"\n{line}{body}")
    imports = ["from __future__ import annotations\n", *sorted(modules), TYPES]
    return ["\n".join(imports) + "\n", *bodies]
