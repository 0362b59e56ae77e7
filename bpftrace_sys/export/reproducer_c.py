"""A reproduction written in C: one file that needs libc and the kernel's headers only.

As in reproducer_python.py, all that comes from the trace is a literal or a comment that
nothing in it can end.
"""

from __future__ import annotations

import errno
import string
from collections.abc import Iterator
from importlib import resources
from typing import Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.escape import printable
from bpftrace_sys.export.reproducer_python import about
from bpftrace_sys.export.reproduction import (
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

INLINE: Final = 256
"""Bytes up to which a buffer's contents stand where it is used."""
ROW: Final = 16
LARGE: Final = 1 << 20
"""Bytes from which on memory is asked for as it is needed."""
RUNTIME: Final = ("reproducer_runtime.c", "reproducer_places.c")
"""Files beside this one, which every reproducer holds."""
UNESCAPED: Final = frozenset(
    (string.ascii_letters + string.digits + " !#$%&'()*+,-./:;<=>@[]^_").encode()
)
"""What stands for itself in a string; a ? could begin a trigraph."""
SYSCALLS: Final = {
    "bpf": "SYS_bpf",
    "perf_event_open": "SYS_perf_event_open",
    "ioctl": "SYS_ioctl",
    "setsockopt": "SYS_setsockopt",
    "write": "SYS_write",
}


def write(made: Reproduction) -> Iterator[str]:
    """The reproducer, in pieces."""
    yield "/*\n" + "".join(f" * {_comment(line)}".rstrip() + "\n" for line in about(made))
    yield " *\n * cc -O1 -o repro THIS && ./repro\n */\n"
    yield "static const char *const errnos[] = {\n" + "".join(
        f'\t[{number}] = "{errno_name(number)}",\n' for number in sorted({*errno.errorcode, 524})
    )
    yield "};\n\n"
    for name in RUNTIME:
        yield resources.files(__package__).joinpath(name).read_text(encoding="utf-8") + "\n"
    yield from _Writer(made).pieces()


class _Writer:
    def __init__(self, made: Reproduction) -> None:
        self.made = made
        self._lines: list[str] = []
        self._blobs: dict[bytes, str] = {}
        self._declared: list[str] = []

    def pieces(self) -> Iterator[str]:
        calls = [text for step in self.made.steps for text in self._step(step)]
        yield "\n/* ---- the calls ---- */\n\n"
        for issue in self.made.issues:
            if issue.made is not None:
                yield f"static struct handle {_handle(issue.made)} = {{ -1, {issue.seq}, NULL }};\n"
        for data, name in self._blobs.items():
            yield f"static unsigned char {name}[{len(data)}];\n"
        yield from calls
        yield "\nstatic const struct step steps[] = {\n"
        yield from self._table()
        yield "\t{ 0, NULL, NULL, NULL, 0, 0, 0, NULL, NULL }\n};\n"
        for data, name in self._blobs.items():
            yield f"\nstatic unsigned char {name}[{len(data)}] = {{\n{_bytes(data)}}};\n"
        yield (
            "\nint main(int argc, char **argv)\n{\n\tconst struct step *step;\n\n"
            "\tstart(argc, argv);\n\tfor (step = steps; step->what; step++)\n"
            "\t\trun(step);\n\treturn finish();\n}\n"
        )

    def _table(self) -> Iterator[str]:
        for step in self.made.steps:
            if isinstance(step, Close):
                handle = _handle(step.handle)
                yield f'\t{{ {step.handle.seq}, "close", "", NULL, 0, -1, 0, &{handle}, NULL }},\n'
            elif isinstance(step, Issue):
                made = "NULL" if step.made is None else f"&{_handle(step.made)}"
                loose = _string(_utf8(step.loose)) if step.loose else "NULL"
                returns = int(step.returns_fd)
                user, capabilities = step.credentials or (-1, 0)
                what, expected = _string(_utf8(step.what)), _string(_utf8(str(step.expected)))
                yield f"\t{{ {step.seq}, {what}, {expected},\n\t  {loose}, "
                yield f"{returns}, {user}, {capabilities:#x}, {made}, call_{step.seq} }},\n"

    def _step(self, step: Issue | Close | LeftOut) -> list[str]:
        if isinstance(step, LeftOut):
            what, why = _comment(step.what), _comment(step.why)
            return [f"\n/* {step.seq}: {what}: not issued: {why} */\n"]
        return [] if isinstance(step, Close) else self._call(step)

    def _call(self, issue: Issue) -> list[str]:
        self._lines, self._declared = [], []
        arguments = [self._value(value) for value in issue.arguments]
        arguments += ["0"] * (5 - len(arguments))
        lines = [
            f"\n/* {issue.seq}: {_comment(issue.what)}  [{_comment(issue.about)}] */\n",
            f"static long call_{issue.seq}(void)\n{{\n",
            *self._declared,
        ]
        joined = ",\n\t\t\t".join(arguments)
        issued = f"issue({SYSCALLS[issue.syscall]}, {joined})"
        if issue.syscall == "write" and isinstance(issue.arguments[1], Buffer):
            lines += ["\tint fd;\n\tlong ret;\n\n", *self._lines, f"\tfd = {arguments[0]};\n"]
            issued = issued.replace(arguments[0], "fd", 1)
            lines += [
                f"\tret = {issued};\n\tif (ret >= 0)\n",
                f"\t\tremember_probes(fd, (const char *)(uintptr_t){arguments[1]}, ret);\n",
                "\treturn ret;\n}\n",
            ]
        else:
            lines += ["\n" if self._declared else "", *self._lines, f"\treturn {issued};\n}}\n"]
        return lines

    def _value(self, value: Value) -> str:
        """An expression; what it needs is written before."""
        if isinstance(value, Number):
            return f"{value.value:#x}" if value.value > 1 << 16 else str(value.value)
        if isinstance(value, Handle):
            return f"fd_of(&{_handle(value)})"
        if isinstance(value, Looked):
            return f"{value.how}({', '.join(_word(word) for word in value.args)})"
        if isinstance(value, Nowhere):
            return "NOWHERE"
        assert isinstance(value, Buffer)
        return self._buffer(value)

    def _buffer(self, made: Buffer) -> str:
        if made.path:
            path = _string(made.data.partition(b"\0")[0])
            return f"pin({path}, {int(made.parents)}, {int(made.mounted)})"
        if made.filled and not made.data and not made.parts:
            return f"room({made.size:#x})"
        data = made.data if made.torn else made.data.rstrip(b"\0")
        name = f"m_{made.name}"
        if len(data) > INLINE and made.listing is None and not made.parts and not made.filled:
            whole = data if made.torn else data.ljust(made.size, b"\0")
            name = self._blobs.setdefault(whole, f"blob_{len(self._blobs) + 1}")
        elif made.listing is not None:
            rows = "".join(
                f"\t\t{_hex(bytes.fromhex(raw))} /* {_comment(text)} */\n"
                for raw, text in made.listing
            )
            self._declared.append(f"\tstatic unsigned char {name}[] = {{\n{rows}\t}};\n")
        else:
            size = max(len(data) if made.torn else made.size, 1)
            filling = f" = {{\n{_bytes(data)}\t}}" if data else ""
            if size <= LARGE:
                self._declared.append(f"\tstatic unsigned char {name}[{size}]{filling};\n")
            else:
                start = f"{name}_start"
                self._declared.append(
                    f"\tstatic unsigned char {start}[{len(data) or 1}]{filling};\n"
                    f"\tunsigned char *{name} = (unsigned char *)(uintptr_t)room({size:#x});\n"
                )
                self._lines.append(f"\tmemcpy({name}, {start}, {len(data)});\n")
        for part in made.parts:
            self._part(name, part)
        if made.torn:
            return f"torn({name}, {len(data)})"
        return f"ADDRESS({name})"

    def _part(self, name: str, part: Part) -> None:
        note = f"\t/* {_comment(part.note)} */" if part.note else ""
        if isinstance(part.value, Chars):
            text = _string(part.value.data)
            row = f"\tmemcpy({name} + {part.offset}, {text}, {len(part.value.data)});"
        else:
            row = f"\tput({name} + {part.offset}, {part.size}, {self._value(part.value)});"
        self._lines.append(f"{row}{note}\n")


def _handle(handle: Handle) -> str:
    return f"h_{handle.name}"


def _word(word: str | int | Handle) -> str:
    if isinstance(word, Handle):
        return f"&{_handle(word)}"
    if isinstance(word, int):
        return f"{word:#x}"
    return _string(word.encode("utf-8", "surrogateescape"))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _hex(data: bytes) -> str:
    return "".join(f"{byte:#04x}, " for byte in data).rstrip()


def _bytes(data: bytes) -> str:
    return "".join(f"\t\t{_hex(data[at : at + ROW])}\n" for at in range(0, len(data), ROW))


def _string(data: bytes) -> str:
    """A C string with nothing in it that C could take for something else."""
    chars = (chr(byte) if byte in UNESCAPED else f"\\{byte:03o}" for byte in data)
    return f'"{"".join(chars)}"'


def _comment(text: str) -> str:
    """Text that does not end a comment, and stays within its line."""
    return printable(text).replace("*/", "* /").replace("/*", "/ *").rstrip("\\")
