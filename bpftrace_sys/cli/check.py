"""``bpfstrace check``: does a trace do only what a reviewed lock file allows?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DIFFERENT, DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.output_files import OutputError, create
from bpftrace_sys.compare.policy.deeds import Deed, JudgementError, Where, deeds_of, describe
from bpftrace_sys.compare.policy.lock_file import LockError, load, save, updated
from bpftrace_sys.compare.policy.verdicts import Verdict, counted, in_order, judge
from bpftrace_sys.story.targets import printable


def main(words: list[str]) -> int:
    """``bpfstrace check``; returns the exit code."""
    found = arguments("check", words)
    if found is None:
        return DONE
    given, traces = dict(found[0]), found[1]
    path = given.get("--lock")
    if not path or not traces:
        raise UsageError("check takes traces and --lock FILE; see bpfstrace check --help")
    update = "--update" in given
    if not update and ("--no-tags" in given or "--tags" in given):
        raise UsageError("--tags and --no-tags go with --update")
    for flag in ("--json", "--junit", "--sarif", "--annotate"):
        if update and flag in given:
            raise UsageError(f"{flag} tells a verdict; --update makes none")
    if given.get("--annotate", "github") != "github":
        raise UsageError(f"--annotate={given['--annotate']}: there is github only")
    if list(given.values()).count("-") + ("--json" in given) > 1:
        raise UsageError("only one of --json, --junit and --sarif can go to stdout")
    pin_tags = False if "--no-tags" in given else True if "--tags" in given else None
    try:
        return _update(path, traces, pin_tags) if update else _check(path, traces, given)
    except (JudgementError, LockError) as error:
        complain(str(error))
        return TROUBLE


def _check(path: str, traces: list[str], given: dict[str, str]) -> int:
    lock = load(path)
    places = any(flag in given for flag in ("--json", "--junit", "--sarif", "--annotate"))
    judged = []
    for trace in traces:
        each = judge(trace, lock, path, places)
        judged.append(each)
        if "--json" not in given and "-" not in given.values():
            _tell(each)
    _machines(judged, given)
    troubles = [each.trouble for each in judged if each.trouble]
    if troubles:
        complain("; ".join(troubles))
        return TROUBLE
    return DIFFERENT if any(each.outside for each in judged) else DONE


def _tell(judged: Verdict) -> None:
    """A trace's verdict as text."""
    trace, path = printable(judged.trace), printable(judged.lock)
    if judged.trouble:
        return  # complained of in the end
    if not judged.outside:
        print(f"{trace}: within {path}: {counted(judged.found)}")
        return
    print(f"{trace}: outside {path}: {len(judged.outside)}")
    for outside in judged.outside:
        print(f"  {outside.text}  [{outside.where}]")


def _machines(judged: Sequence[Verdict], given: dict[str, str]) -> None:
    """The verdicts in the formats that were asked for."""
    from bpftrace_sys.render import verdicts

    if "--json" in given:
        print(json.dumps(verdicts.as_json(judged), indent=1))
    if "--junit" in given:
        _write(given["--junit"], verdicts.as_junit(judged))
    if "--sarif" in given:
        _write(given["--sarif"], json.dumps(verdicts.as_sarif(judged), indent=1) + "\n")
    if "--annotate" in given:
        from bpftrace_sys.render.annotations import of_judged

        for each in judged:
            for line in of_judged(each):
                print(line, file=sys.stderr)


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        fd = create(path, mode=0o666)  # a verdict: nothing of a program's memory is in it
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def _update(path: str, traces: list[str], pin_tags: bool | None) -> int:
    old = load(path) if os.path.exists(path) else None
    found: dict[Deed, Where] = {}
    for trace in traces:
        for deed, where in deeds_of(trace).items():
            found.setdefault(deed, where)
    made = updated(old, found, pin_tags)
    save(made, path)
    if old is None:
        print(f"{printable(path)}: new: {counted(found)}")
        return DONE
    added = in_order(deed for deed in found if not old.allows(deed))
    print(f"{printable(path)}: written: {counted(found)}; {len(added)} that it did not allow")
    for deed in added:
        print(f"  + {describe(deed)}  [{found[deed]}]")
    return DONE
