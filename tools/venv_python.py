# SPDX-License-Identifier: GPL-2.0-only
"""The Python that has what the tools import: that of .venv, where the one that runs has not."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PYTHON = REPO / ".venv" / "bin" / "python"


def needs(*modules: str) -> None:
    """Goes on where these are there; else starts the tool again with .venv's Python, or says what
    is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if not missing:
        return
    if PYTHON.exists() and not sys.prefix.startswith(str(REPO / ".venv")):
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    raise SystemExit(
        f"{Path(sys.argv[0]).name}: Python has no {' and no '.join(missing)}; CONTRIBUTING.md says "
        "how to make .venv, which has"
    )
