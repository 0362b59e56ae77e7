"""The gallery: its pictures are those that tools/gallery.py makes, are used, and are small."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import gallery

from tests.support.running import ROOT

PAGES = [ROOT / "docs" / "gallery.md", ROOT / "README.zh.md"]


def test_pictures_are_those_of_the_script() -> None:
    made = {path.stem for path in gallery.PICTURES.iterdir()}
    assert made == {row.name for row in gallery.ROWS}
    assert sum(path.stat().st_size for path in gallery.PICTURES.iterdir()) <= gallery.LIMIT


def test_every_picture_is_shown() -> None:
    used = set()
    for page in PAGES:
        for found in re.findall(r'(?:\]\(|src=")((?:docs/)?gallery/[\w-]+\.\w+)', page.read_text()):
            assert (page.parent / found).is_file(), (page.name, found)
            used.add(Path(found).stem)
    assert used == {row.name for row in gallery.ROWS}


def test_links_of_the_chinese_readme() -> None:
    for found in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.zh.md").read_text()):
        assert (ROOT / found).exists(), found


def test_pictures_fetch_nothing() -> None:
    for path in gallery.PICTURES.glob("*.svg"):
        text = path.read_text()
        assert not re.search(r"url\((?!#)|https?://(?!www\.w3\.org)|<script|font-face",
                             text.replace("https://www.textualize.io", "")), path.name  # fmt: skip


def test_text_pictures_are_what_is_printed() -> None:
    # One of them again: what is committed is what comes out.
    [row] = [row for row in gallery.ROWS if row.name == "text-listing"]
    assert isinstance(row, gallery.Told)
    committed = (gallery.PICTURES / "text-listing.svg").read_text()
    assert words(gallery.told(row)) == words(committed)


def words(picture: str) -> list[str]:
    """The text of an SVG; how it is drawn is up to rich's version."""
    found = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", picture))
    return html.unescape(found).replace("\xa0", " ").split()


def test_a_wrong_name() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gallery.py"), "nothing"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no picture is called nothing" in done.stderr
