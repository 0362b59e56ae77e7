#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes docs/api.md from the docstrings of bpftrace_sys.api, as pdoc finds them.

    tools/gen_api.py            write it
    tools/gen_api.py --check    exit 1 if it is not what would be written

It takes a second. `pdoc bpftrace_sys.api` shows the same as pages in a browser.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import venv_python  # noqa: E402

venv_python.needs("pdoc", "construct")

import pdoc.doc  # noqa: E402

import bpftrace_sys.api  # noqa: E402

PAGE = REPO / "docs" / "api.md"
HEAD = """\
# The Python API

<!-- Made by tools/gen_api.py from the docstrings of bpftrace_sys/api: change those. -->

"""


def page() -> str:
    """The page."""
    module = pdoc.doc.Module(bpftrace_sys.api)
    members = [module.members[name] for name in bpftrace_sys.api.__all__]
    functions = [each for each in members if isinstance(each, pdoc.doc.Function)]
    classes = [each for each in members if isinstance(each, pdoc.doc.Class)]
    parts = [HEAD, text(module.docstring), "\n\n"]
    for made in functions:
        parts += function(made, "##")
    for kind in classes:
        parts += class_(kind)
    return "".join(parts).rstrip() + "\n"


def function(found: pdoc.doc.Function, level: str) -> Iterator[str]:
    """A function with its signature."""
    yield f"{level} {found.name}\n\n"
    yield f"```python\n{signature(found)}\n```\n\n"
    yield text(found.docstring) + "\n\n"


def class_(found: pdoc.doc.Class) -> Iterator[str]:
    """A class with its public attributes and methods."""
    bases = [name for _, _, name in found.bases if name in bpftrace_sys.api.__all__]
    yield f"## {found.name}\n\n"
    if bases:
        yield f"A {', '.join(bases)}. "
    yield text(found.docstring) + "\n\n"
    rows = [
        (each.name, each.annotation_str.removeprefix(": "), each.docstring)
        for each in found.own_members
        if isinstance(each, pdoc.doc.Variable) and not each.name.startswith("_")
    ]
    if rows:
        yield "| | | |\n|---|---|---|\n"
        for name, annotation, about in rows:
            told = " ".join(text(about).split())
            yield f"| `{name}` | {short(annotation)} | {told} |\n"
        yield "\n"
    for each in found.own_members:
        if isinstance(each, pdoc.doc.Function) and not each.name.startswith("_"):
            yield from function(each, "###")


def signature(found: pdoc.doc.Function) -> str:
    """A signature, in lines where it is long."""
    words = re.sub(r"\bself, ?|\bself\b", "", str(found.signature), count=1)
    words = re.sub(r"\s+", " ", plain(words)).replace("( ", "(").replace(" )", ")")
    line = f"{found.name}{words}"
    if len(line) <= 96:
        return line
    inner, _, result = line.partition("(")[2].rpartition(")")
    arguments = re.split(r", (?![^\[(]*[\])])", inner)
    return f"{found.name}(\n" + "".join(f"    {each},\n" for each in arguments) + f"){result}"


def plain(words: str) -> str:
    """Types by their last names."""
    words = re.sub(r"\b(?:[a-z_]+\.)+([A-Za-z_]+)", r"\1", words)
    return words.replace("ForwardRef('", "").replace("')", "").replace("+T", "T")


def short(annotation: str) -> str:
    """A type in a table."""
    return f"`{plain(annotation)}`".replace("|", "\\|") if annotation else ""


def text(docstring: str) -> str:
    """A docstring as Markdown: pairs of backticks are those of reST."""
    return re.sub(r"(?<!`)``(?!`)", "`", docstring.strip())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look whether it is current")
    made = page()
    if parser.parse_args().check:
        if PAGE.read_text() != made:
            print(f"{PAGE} is not current: run tools/gen_api.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
