"""What several tests of pages share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.hostile import looped
from tests.support.pages import gathered, page


class LongTrace(NamedTuple):
    """A trace of 10,000 calls and its page."""

    path: Path
    text: str
    spent: float
    """Seconds of the processor that the page took."""


@pytest.fixture(scope="session")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> LongTrace:
    path = looped(tmp_path_factory.mktemp("long") / "loop.jsonl", 10_000)
    began = time.process_time()
    found = gathered(path)
    text = "".join(page(found.report, found.marks.names))
    return LongTrace(path, text, time.process_time() - began)
