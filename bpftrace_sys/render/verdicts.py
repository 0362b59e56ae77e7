"""What ``bpfstrace check`` found, for machines: JSON, JUnit's XML, SARIF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from bpftrace_sys import __version__
from bpftrace_sys.common.escape import printable
from bpftrace_sys.compare.policy.deeds import describe
from bpftrace_sys.compare.policy.verdicts import Outside, Verdict, in_order
from bpftrace_sys.render.annotations import in_repository
from decoders.digests import sha256_of

if TYPE_CHECKING:
    from bpftrace_sys.story.places import Place

ABOUT: Final = {
    "program": "A program is loaded that the lock file does not name",
    "tag": "A program has other instructions than the lock file says",
    "helper": "A program calls a helper that the lock file does not list for it",
    "kfunc": "A program calls a kfunc that the lock file does not list for it",
    "attach": "A program is attached where the lock file does not list it",
    "map": "A map is made that the lock file does not name",
    "pin": "An object is pinned where the lock file does not list it",
    "open": "A pin is opened that the lock file does not list",
}
"""By kind of deed."""


# ------------------------------------------------------------------ JSON


def as_json(judged: Sequence[Verdict]) -> dict[str, object]:
    """One object: the verdict over all traces, and each trace's."""
    verdicts = {each.verdict for each in judged}
    overall = next((word for word in ("trouble", "outside") if word in verdicts), "within")
    return {"verdict": overall, "traces": [_trace(each) for each in judged]}


def _trace(judged: Verdict) -> dict[str, object]:
    counts: dict[str, int] = {}
    for deed in judged.found:
        counts[deed.kind] = counts.get(deed.kind, 0) + 1
    made: dict[str, object] = {
        "trace": judged.trace,
        "lock": judged.lock,
        "verdict": judged.verdict,
        "counts": counts,
        "outside": [_outside(each) for each in judged.outside],
    }
    if judged.trouble:
        made["trouble"] = judged.trouble
    return made


def _outside(each: Outside) -> dict[str, object]:
    deed, where = each.deed, each.where
    name, kind = deed.prog
    made: dict[str, object] = {"kind": deed.kind, "text": each.text}
    if any(deed.prog):
        made["map" if deed.kind == "map" else "program"] = {"name": name, "type": kind}
    if deed.value:
        made["value"] = list(deed.value)
    made |= {"call": where.seq, "where": where.text}
    if where.place is not None:
        made["insn"] = where.place.pc
        if where.place.file:
            made |= {"file": where.place.file, "line": where.place.line}
            made |= {"column": where.place.column, "source": where.place.source}
    return made


# ------------------------------------------------------------------ JUnit


def as_junit(judged: Sequence[Verdict]) -> str:
    """JUnit's XML: a suite a trace, a case for each thing that the trace does."""
    from xml.etree import ElementTree

    suites = ElementTree.Element("testsuites", name="bpfstrace check")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for each in judged:
        suite = ElementTree.SubElement(suites, "testsuite", name=printable(each.trace))
        wrong = {outside.deed: outside for outside in each.outside}
        counts = {
            "tests": len(each.found) + bool(each.trouble),
            "failures": len(wrong),
            "errors": int(bool(each.trouble)),
        }
        for name, count in counts.items():
            suite.set(name, str(count))
            totals[name] += count
        suite.set("skipped", "0")
        suite.set("time", "0")
        for deed in in_order(each.found):
            case = _case(suite, describe(deed), each)
            outside = wrong.get(deed)
            if outside is None:
                continue
            place = outside.where.place
            failure = ElementTree.SubElement(
                case, "failure", message=f"outside {printable(each.lock)}", type=deed.kind
            )
            failure.text = f"{ABOUT[deed.kind]}: {_said(outside)}{_shown(place)}"
        if each.trouble:
            case = _case(suite, "the trace can be judged", each)
            error = ElementTree.SubElement(
                case, "error", message=printable(each.trouble), type="trouble"
            )
            error.text = printable(each.trouble)
    for name, count in totals.items():
        suites.set(name, str(count))
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(suite: Any, name: str, judged: Verdict) -> Any:
    from xml.etree import ElementTree

    return ElementTree.SubElement(
        suite, "testcase", classname=printable(judged.lock), name=name, time="0"
    )


def _said(outside: Outside) -> str:
    return f"{outside.text} [{printable(str(outside.where))}]"


def _shown(place: Place | None) -> str:
    if place is None or not place.where:
        return ""
    return f"\n{printable(place.where)}: {printable(place.source)}"


# ------------------------------------------------------------------ SARIF

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT: Final = "%SRCROOT%"
"""What relative paths in a SARIF log are relative to: the repository."""


def as_sarif(judged: Sequence[Verdict]) -> dict[str, object]:
    """A SARIF 2.1.0 log with one run: a result for each thing that is outside."""
    rules = list(ABOUT)
    results = [_result(outside, each, rules) for each in judged for outside in each.outside]
    troubles = [each for each in judged if each.trouble]
    invocation: dict[str, object] = {"executionSuccessful": not troubles}
    if troubles:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": printable(each.trouble)}} for each in troubles
        ]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "bpfstrace",
                        "version": __version__,
                        "rules": [
                            {
                                "id": f"outside-{kind}",
                                "shortDescription": {"text": text},
                                "defaultConfiguration": {"level": "error"},
                            }
                            for kind, text in ABOUT.items()
                        ],
                    }
                },
                "invocations": [invocation],
                "results": results,
                "columnKind": "utf16CodeUnits",
            }
        ],
    }


def _result(outside: Outside, judged: Verdict, rules: list[str]) -> dict[str, object]:
    kind = outside.deed.kind
    digest = sha256_of(outside.text.encode("utf-8", "backslashreplace")).hex()
    return {
        "ruleId": f"outside-{kind}",
        "ruleIndex": rules.index(kind),
        "level": "error",
        "message": {"text": f"{_said(outside)}: outside {printable(judged.lock)}"},
        "locations": [{"physicalLocation": _location(outside.where.place, judged.lock)}],
        # The same from run to run, whatever the numbers of calls are.
        "partialFingerprints": {"deed/v1": digest},
        "properties": {"trace": printable(judged.trace), "call": outside.where.seq},
    }


def _location(place: Place | None, lock: str) -> dict[str, object]:
    """The line of source; the lock file where none is known, for that is what one would edit."""
    if place is None or not place.file:
        return {"artifactLocation": _artifact(lock), "region": {"startLine": 1}}
    made: dict[str, object] = {"artifactLocation": _artifact(place.file)}
    if place.line:
        region: dict[str, object] = {"startLine": place.line}
        if place.column:
            region["startColumn"] = place.column
        if place.source:
            region["snippet"] = {"text": printable(place.source)}
        made["region"] = region
    return made


def _artifact(path: str) -> dict[str, str]:
    path = in_repository(path)
    uri = quote(os.fsencode(path.encode("utf-8", "backslashreplace").decode()))
    return {"uri": f"file://{uri}"} if path.startswith("/") else {"uri": uri, "uriBaseId": ROOT}
