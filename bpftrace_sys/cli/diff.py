"""``bpfstrace diff A B``: reads both traces whole, then says what differs."""

from __future__ import annotations

import json
import sys

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DIFFERENT, DONE, OWN_FAILURE, TROUBLE
from bpftrace_sys.cli.options import UsageError, colour_of
from bpftrace_sys.cli.suggest import meant
from bpftrace_sys.cli.values import kinds_of
from bpftrace_sys.compare.diff.compare import compare
from bpftrace_sys.compare.diff.differences import Differences
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.side import Side, caveats, how_narrowed, narrowed
from bpftrace_sys.compare.diff.whole import whole
from bpftrace_sys.render.output import Output, close, complain, open_page
from bpftrace_sys.story.targets import printable
from bpftrace_sys.trace.items import TraceError


class _Settings:
    def __init__(self, words: list[str]) -> None:
        self.json = self.quiet = False
        self.report: str | None = None
        self.colour = "auto"
        self.paths: list[str] = []
        only: list[str] = []
        ignore: list[str] = []
        strict = False
        found = arguments("diff", words)
        self.help = found is None
        """It was asked for, and is printed."""
        if found is None:
            return
        pairs, self.paths = found
        for flag, value in pairs:
            if flag == "--only":
                only += kinds_of(flag, value)
            elif flag == "--ignore":
                ignore += [word for word in value.split(",") if word]
            elif flag == "--strict":
                strict = True
            elif flag == "--report":
                self.report = value
            elif flag == "--color":
                self.colour = colour_of(flag, value)
            elif flag == "--json":
                self.json = True
            else:
                self.quiet = True
        self.options = Options(frozenset(only), tuple(ignore), strict)
        if len(self.paths) != 2:
            raise UsageError("diff takes two traces: bpfstrace diff A B")
        if self.paths == ["-", "-"]:
            raise UsageError("diff: only one of the traces can come from stdin")


def _slips(options: Options) -> None:
    """Says what of --ignore names no field that was compared."""
    for word in options.idle:
        plain = word.replace("_", "").replace(".", "").isalnum()
        near = meant(word, options.asked) if plain else ""
        complain(f"--ignore {word}: no field of that name was compared{near}")


def _report(found: Differences, a: Side, b: Side, settings: _Settings) -> bool:
    """Writes the page; False where it was lost, which is said."""
    from bpftrace_sys.render.html.diff_page import diff_page

    assert settings.report is not None
    out = open_page(settings.report)
    for piece in diff_page(found, (settings.paths[0], settings.paths[1]), (a.header, b.header)):
        out.write(piece)
    return close([out])


def main(words: list[str]) -> int:
    """``bpfstrace diff`` with what follows it; returns the exit code."""
    settings = _Settings(words)
    if settings.help:
        return DONE
    try:
        a = whole(settings.paths[0], settings.options.strict)
        b = whole(settings.paths[1], settings.options.strict)
    except TraceError as error:
        print(f"bpfstrace: {error}", file=sys.stderr)
        print("bpfstrace: only whole traces can be compared", file=sys.stderr)
        return TROUBLE
    if narrowed(a) != narrowed(b):
        for path, side in zip(settings.paths, (a, b), strict=True):
            how = printable(how_narrowed(narrowed(side)))
            print(f"bpfstrace: {path}: {how}", file=sys.stderr)
        print("bpfstrace: what one of them leaves out cannot be compared", file=sys.stderr)
        return TROUBLE
    for text in caveats(a, b):
        print(f"bpfstrace: {printable(text)}", file=sys.stderr)
    found = compare(a, b, settings.options)
    _slips(settings.options)
    code = DIFFERENT if found else DONE
    if settings.report is not None and not _report(found, a, b, settings):
        return OWN_FAILURE
    if settings.quiet:
        return code
    from bpftrace_sys.render import diff as render
    from bpftrace_sys.render.style import painter

    paths = (settings.paths[0], settings.paths[1])
    out = Output(sys.stdout, "<stdout>")
    if settings.json:
        out.write(json.dumps(render.as_json(found, paths), indent=1) + "\n")
    else:
        paint = painter(sys.stdout, settings.colour)
        for line in render.text(found, paths, (a.header, b.header), paint):
            out.write(line + "\n")
    out.flush()
    return code if out.closed_pipe or close([out]) else OWN_FAILURE
