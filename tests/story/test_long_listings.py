"""Listings of long programs are made a piece at a time, and say what whole ones say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpftrace_sys.cli.main import main
from decoders.formats import insn as isa
from tests.support.running import FIXTURES


def told(recording: Path, folder: Path, *options: str) -> tuple[str, str]:
    """What replay says, as text and as JSON."""
    text, lines = folder / "text", folder / "lines.jsonl"
    main(["replay", "-o", str(text), "--json", str(lines), *options, str(recording)])
    return text.read_text(), lines.read_text()


@pytest.mark.parametrize("options", [(), ("-v",)])
def test_in_pieces_as_whole(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions, sources, maps, wide instructions, jumps over the pieces' ends, refusals."""
    long = 0
    for recording in sorted(FIXTURES.glob("*/trace.jsonl.gz")):
        if recording.stat().st_size > 20_000:
            continue
        whole = told(recording, tmp_path, *options)
        monkeypatch.setattr(isa, "LONG", 3)
        monkeypatch.setattr("bpftrace_sys.render.call_text.BATCH", 5)
        monkeypatch.setattr("bpftrace_sys.render.json_objects.BATCH", 2)
        pieces = told(recording, tmp_path, *options)
        monkeypatch.undo()
        assert pieces == whole, recording
        long += "1: (" in whole[0]
    assert long > 9
