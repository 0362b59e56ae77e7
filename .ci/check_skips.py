# SPDX-License-Identifier: GPL-2.0-only
"""Fails when a test skipped without a reason that is on the list of allowed skips.

    check_skips.py JUNIT.xml... ALLOWED.toml

JUNIT.xml is what `pytest --junitxml` wrote, each half of the tests its own. ALLOWED.toml holds
`[[skip]]` tables:

    reason       regular expression, searched for in the skip's reason
    why          why this may skip in CI, for people
    unless_path  optional: where this path exists the skip is unexpected after all

Exit code 0 when every skip is allowed, 1 when one is not, 2 when a file cannot be used.
"""

from __future__ import annotations

import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple


class Allowed(NamedTuple):
    """One row of the list of allowed skips."""

    reason: re.Pattern[str]
    why: str
    unless_path: str | None


class Skip(NamedTuple):
    """One skipped test: its name in pytest's notation, and the reason that it gave."""

    test: str
    reason: str


def read_allowed(path: Path) -> list[Allowed]:
    """Read the list; KeyError or re.error when a row is malformed."""
    rows = tomllib.loads(path.read_text()).get("skip", [])
    return [Allowed(re.compile(r["reason"]), r["why"], r.get("unless_path")) for r in rows]


def read_skips(path: Path) -> list[Skip]:
    """Every skipped test of a JUnit file; an expected failure (xfail) is not a skip."""
    skips = []
    for case in ET.parse(path).iter("testcase"):
        for skipped in case.iter("skipped"):
            if skipped.get("type") != "pytest.xfail":
                name = f"{case.get('classname', '')}::{case.get('name', '')}"
                skips.append(Skip(name, skipped.get("message", "")))
    return skips


def allowed_by(skip: Skip, rows: list[Allowed]) -> Allowed | None:
    """The row that allows this skip on this machine, or None."""
    for row in rows:
        if row.reason.search(skip.reason) and not (
            row.unless_path and Path(row.unless_path).exists()
        ):
            return row
    return None


def main(argv: list[str]) -> int:
    """Print every skip with its verdict; the exit code is the module docstring's."""
    if len(argv) < 3:
        print("usage: check_skips.py JUNIT.xml... ALLOWED.toml", file=sys.stderr)
        return 2
    try:
        skips = [skip for junit in argv[1:-1] for skip in read_skips(Path(junit))]
        rows = read_allowed(Path(argv[-1]))
    except (OSError, ET.ParseError, tomllib.TOMLDecodeError, KeyError, re.error) as error:
        print(f"check_skips: {error}", file=sys.stderr)
        return 2
    unexpected = 0
    for skip in skips:
        row = allowed_by(skip, rows)
        unexpected += row is None
        verdict = f"allowed: {row.why}" if row else "UNEXPECTED"
        print(f"{skip.test}\n    skipped: {skip.reason}\n    {verdict}")
    print(f"{len(skips)} skipped, {unexpected} of them unexpectedly")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
