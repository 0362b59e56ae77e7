#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes decoders/uapi/*.py from kernel headers, in two stages.

extract  headers, through gcc -> tools/uapi_facts.json (facts only)
render   tools/uapi_facts.json -> decoders/uapi/*.py
missing  what these tables have and the code has no row for: which file to edit

With --check nothing is written: exit status 1 says that something would change, and of missing
that something is.
It takes seconds. See docs/uapi.md.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import venv_python
from uapi_gen.extract import ExtractError, extract
from uapi_gen.render import RenderError, render, unplaced

_TOP = Path(__file__).resolve().parent.parent
FACTS = _TOP / "tools/uapi_facts.json"
MODULES = _TOP / "decoders/uapi"


def dumps(facts: dict[str, Any]) -> str:
    """Facts as JSON: one constant, enum or member a line."""

    def lines(value: Any, depth: int) -> str:
        pad = "  " * depth
        if isinstance(value, dict) and value:
            rows = (f"{pad}  {json.dumps(key)}: {lines(item, depth + 1)}"
                    for key, item in value.items())  # fmt: skip
            return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "[\n" + ",\n".join(f"{pad}  {json.dumps(row)}" for row in value) + f"\n{pad}]"
        return json.dumps(value)

    return lines(facts, 0) + "\n"


def _differs(path: Path, text: str) -> bool:
    old = path.read_text() if path.exists() else ""
    if old == text:
        return False
    names = (str(path.relative_to(_TOP)), "as generated now")
    lines = difflib.unified_diff(old.splitlines(), text.splitlines(), *names, lineterm="", n=0)
    print("\n".join(list(lines)[:60]))
    return True


def _put(files: dict[Path, str], check_only: bool) -> int:
    if check_only:
        changed = [path for path, text in files.items() if _differs(path, text)]
        return int(bool(changed))
    for path, text in files.items():
        path.write_text(text)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    first = stages.add_parser("extract", help="headers -> tools/uapi_facts.json")
    first.add_argument("--libbpf", type=Path, required=True, help="a checkout of libbpf")
    first.add_argument("--headers", type=Path, default=Path("/usr/include"))
    first.add_argument("--kernel-headers", type=Path, help="/usr/src/linux-headers-*-common")
    second = stages.add_parser("render", help="tools/uapi_facts.json -> decoders/uapi/*.py")
    for stage in (first, second):
        stage.add_argument("--check", action="store_true", help="write nothing, report changes")
    stages.add_parser("missing", help="what has no row yet, and where it belongs")
    options = parser.parse_args()
    try:
        if options.stage == "missing":
            venv_python.needs("construct")
            sys.path.insert(0, str(_TOP))
            from uapi_gen.missing import missing, report

            lacks = missing(json.loads(FACTS.read_text()))
            print(report(lacks), end="")
            return int(bool(lacks))
        if options.stage == "render":
            facts = json.loads(FACTS.read_text())
            files = render(facts)
            for name in chain(*unplaced(facts)):
                said = f"gen_uapi: {name} is in no table: uapi_gen/spec.py wants it"
                print(said, file=sys.stderr)
            return _put({MODULES / name: text for name, text in files.items()}, options.check)
        facts = extract(options.libbpf, options.headers, options.kernel_headers)
        if options.check:  # other versions of the same headers are no difference
            facts["made_from"] = json.loads(FACTS.read_text())["made_from"]
        return _put({FACTS: dumps(facts)}, options.check)
    except (ExtractError, RenderError) as error:
        print(f"gen_uapi: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
