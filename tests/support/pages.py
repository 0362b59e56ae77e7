"""Pages of traces: what they are made of, and what is in them as a parser sees it."""

from __future__ import annotations

import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bpftrace_sys.render.html.gather import Gather
from bpftrace_sys.render.html.markup import UNSEEN
from bpftrace_sys.render.html.page import page
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from tests.support.running import FIXTURES

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def gathered(path: Path) -> Gather:
    """What a page of a trace is made of."""
    kept: list[Gather] = []

    def make(model: Model) -> Gather:
        kept.append(Gather(model))
        return kept[0]

    read(str(path), make)
    return kept[0]


def written(path: Path) -> str:
    """The page of a trace."""
    found = gathered(path)
    return "".join(page(found.report, found.marks.names))


def lines_of(path: Path) -> list[str]:
    """The lines of a recording."""
    with gzip.open(path, "rt") as file:
        return list(file)


class Parsed(HTMLParser):
    """Tags, ids, links and data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.blocks: dict[str, str] = {}
        self._block = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.attributes |= given.keys()
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if given.get("href"):
            self.links.append(str(given["href"]))
        self._block = str(given.get("id")) if given.get("type") == "application/json" else ""

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._block = ""

    def json(self, name: str) -> Any:
        """The data of a block."""
        return json.loads(self.blocks[name])


def assert_inert(text: str, parsed: Parsed) -> None:
    """One script and one style sheet, both named by the policy, and nothing that could run."""
    assert not any(name.startswith("on") or name in ("style", "src") for name in parsed.attributes)
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert len(re.findall(r"<script(?! type=\"application/json\")", text)) == 1
    assert all(link.startswith(("#", "?q=")) for link in parsed.links)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    words = policy[1].replace("&#x27;", "'").split("; ")
    assert words[0] == "default-src 'none'"
    assert [word.split(" ")[0] for word in words[1:3]] == ["style-src", "script-src"]
    assert all(word.count("'sha256-") == 1 for word in words[1:3])
    assert "unsafe" not in policy[1]
    assert not UNSEEN.search(text)
    assert not re.search("[\x00-\x08\x0b-\x1f]", text)
