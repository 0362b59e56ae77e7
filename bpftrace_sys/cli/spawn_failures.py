"""Why a program did not start, in words."""

from __future__ import annotations

import errno
import os

from bpftrace_sys.common.escape import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpftrace_sys.record.ptrace.engine import SpawnError


def spawn_failure(error: SpawnError, argv: list[str]) -> str:
    """Why the program did not start, and what to do."""
    name = printable(argv[0])
    if error.stage == "user":
        return error.path
    if error.stage != "exec" or not argv[0]:
        return f"{name or repr('')}: {error if argv[0] else 'no such program'}"
    import shutil

    file = error.path if "/" in argv[0] else shutil.which(argv[0])
    if file is None and argv[0] in (".", ".."):
        file = argv[0]  # found in any folder of PATH
    if file is None:
        # Of a file of that name here nothing follows: it was not asked for.
        from bpftrace_sys.cli.commands import BY_NAME
        from bpftrace_sys.cli.suggest import meant

        return f"{name}: no such program in PATH{meant(argv[0], BY_NAME, 'bpfstrace {}')}"
    head = _head(file)
    if error.script:
        if head.startswith(b"\x7fELF"):
            return f"Exec format error: {name} is a program for another machine, or damaged"
        script = name.removeprefix("./")
        hint = f"; try: bpfstrace python3 {script}" if name.endswith(".py") else ""
        return f"Exec format error: {script} has no #! line{hint}"
    if error.errno == errno.ENOENT and head.startswith(b"#!"):
        line = head[2:].split(b"\n")[0]
        if line.endswith(b"\r"):
            return (
                f"{name}: its #! line ends in a carriage return, which becomes part of the "
                "interpreter's name; sed -i 's/\\r$//' takes it away"
            )
        interpreter = line.strip().decode("utf-8", "backslashreplace")
        return f"{name}: its #! line names {printable(interpreter)}, which is not there"
    if error.exit_code == 127:
        return f"{name}: no such program" + ("" if "/" in name else " in PATH")
    if os.path.isdir(file):
        return f"{name}: is a directory"
    if error.errno == errno.EACCES and os.path.isfile(file) and not os.access(file, os.X_OK):
        return f"{name}: Permission denied: not executable (chmod +x makes it so)"
    return f"{name}: {os.strerror(error.errno)}"


def _head(path: str) -> bytes:
    """The beginning of a file; empty where it cannot be read."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(256)
    except (OSError, ValueError):
        pass
    return b""
