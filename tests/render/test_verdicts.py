"""Verdicts for CI: annotations, JSON, JUnit and SARIF, read back by others' readers."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junit2htmlreport.parser import Junit
from sarif_pydantic import Sarif

from bpftrace_sys.cli.check import main as check
from bpftrace_sys.cli.messages import DIFFERENT, DONE, OWN_FAILURE, TROUBLE
from bpftrace_sys.compare.policy.deeds import Deed, Where
from bpftrace_sys.compare.policy.verdicts import Outside, Verdict
from bpftrace_sys.render import verdicts
from bpftrace_sys.render.annotations import WORKSPACE, command, in_repository, of_judged
from bpftrace_sys.story.places import Place
from tests.support.running import FIXTURES, LOADERS, ROOT, run_cli

HELLO = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"
REJECT = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
HOSTILE = 'a,b:c%\r\n::error file=x::y%0A<&"]]>\x1b[31m\u2028\udc80\ufffe.c'


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it: level, properties, message.

    By its documentation and actions/runner's ActionCommand: ``::NAME P=V,P=V::DATA``; of
    escapes %25 comes last.
    """
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    level, _, rest = head.partition(" ")
    pairs = (word.partition("=") for word in rest.split(",") if word)

    def plain(text: str, more: dict[str, str]) -> str:
        for escape, char in {**more, "%0D": "\r", "%0A": "\n", "%25": "%"}.items():
            text = text.replace(escape, char)
        return text

    properties = {name: plain(value, {"%3A": ":", "%2C": ","}) for name, _, value in pairs}
    return level, properties, plain(data, {})


# ------------------------------------------------------------------ annotations


def test_a_refused_program_is_shown_at_its_line() -> None:
    done = run_cli("replay", "--annotate=github", str(REJECT))
    lines = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert len(lines) == 1  # libbpf tried twice; the first attempt had no log
    level, properties, message = parsed(lines[0])
    assert level == "error"
    assert properties == {
        "file": "reject.c", "line": "20", "col": "10", "title": "forgetful: BPF_PROG_LOAD EACCES",
    }  # fmt: skip
    assert message.startswith("R0 invalid mem access 'map_value_or_null'\nat 7: (79) r1 =")
    assert "*count += 1;" in message


def test_what_a_program_gets_over_is_a_warning() -> None:
    """bpftrace asks for what this kernel lacks, goes on without, and exits with 0."""
    trace = FIXTURES / "bpftrace-profile" / "trace.jsonl.gz"
    done = run_cli("replay", "--annotate=github", "-o", "/dev/null", str(trace))
    levels = {parsed(line)[0] for line in done.stderr.splitlines()}
    assert levels <= {"warning"}


def test_live(tmp_path: Path, needs_bpf: None) -> None:
    """While tracing, too, wherever the text goes."""
    done = run_cli(
        "-f", "--annotate", "github", "-o", str(tmp_path / "out"),
        "python3", str(LOADERS / "errors.py"),
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert lines
    said = [parsed(line)[1]["title"] for line in lines]
    assert any("BPF_PROG_LOAD" in title for title in said)
    assert not any("GET_NEXT_KEY" in title for title in said)


def test_only_github_is_known() -> None:
    for words in (["replay", "--annotate=gitlab", "x"], ["check", "--annotate=x", "t", "--lock=l"]):
        done = run_cli(*words)
        assert done.returncode == 2
        assert "github only" in done.stderr


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_leaves_its_place(message: str, name: str) -> None:
    """Whatever stands in names and messages: one line, and what was said comes out."""
    line = command("error", message, name, Place(1, "", name or "x", 3, 4))
    assert line.isprintable()
    level, properties, data = parsed(line)
    assert level == "error"
    assert set(properties) <= {"file", "line", "col", "title"}
    assert (properties["line"], properties["col"]) == ("3", "4")
    if message.isprintable():
        assert data == message
    if name.isprintable() and name:
        assert properties["title"] == name


def test_files_are_named_from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, "/home/runner/work/x/x")
    assert in_repository("/home/runner/work/x/x/src/a.c") == "src/a.c"
    assert in_repository("./src/a.c") == "src/a.c"
    assert in_repository("/home/runner/work/x/xy/a.c") == "/home/runner/work/x/xy/a.c"
    monkeypatch.delenv(WORKSPACE)
    assert in_repository("/src/a.c") == "/src/a.c"


# ------------------------------------------------------------------ check


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A lock file that allows the hello world all but its helper and its tag."""
    lock = tmp_path / "bpf.lock.toml"
    assert check([str(HELLO), "--lock", str(lock), "--update"]) == DONE
    text = lock.read_text().replace('"bpf_trace_printk"', '"bpf_other"')
    lock.write_text(text.replace("38dd440716c4900f", "0").replace("c21893ee8040b45c", "1"))
    return lock


def judged(lock: Path, *options: str) -> Any:
    return run_cli("check", str(HELLO), "--lock", str(lock), *options)


def test_json_has_the_verdict(narrow: Path) -> None:
    done = judged(narrow, "--json")
    assert done.returncode == DIFFERENT
    found = json.loads(done.stdout)
    assert found["verdict"] == "outside"
    (trace,) = found["traces"]
    assert trace["counts"] == {"program": 1, "tag": 1, "helper": 1, "attach": 1}
    helper = next(each for each in trace["outside"] if each["kind"] == "helper")
    assert helper["value"] == ["bpf_trace_printk"]
    assert helper["program"] == {"name": "hello_world", "type": "kprobe"}
    # What the lesson's bpftool shows of this program: source line and column of insn 10.
    assert (helper["insn"], helper["line"], helper["column"]) == (10, 15, 37)
    assert "bpf_trace_printk_" in helper["source"]


def test_junit_is_read_by_others(narrow: Path, tmp_path: Path) -> None:
    done = judged(narrow, "--junit", str(tmp_path / "junit.xml"))
    assert done.returncode == DIFFERENT
    assert "calls the helper bpf_trace_printk" in done.stdout  # the text is there as well
    suites = Junit(str(tmp_path / "junit.xml")).suites
    (suite,) = suites
    assert [len(suite.passed()), len(suite.failed())] == [2, 2]
    assert any("bpf_trace_printk" in case.name for case in suite.failed())
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "4", "failures": "2", "errors": "0",
    }  # fmt: skip


def test_sarif_is_read_by_others(narrow: Path, tmp_path: Path) -> None:
    done = judged(narrow, "--sarif", str(tmp_path / "x.sarif"))
    assert done.returncode == DIFFERENT
    log = Sarif.model_validate_json((tmp_path / "x.sarif").read_text())
    (run,) = log.runs
    assert run.results is not None
    assert [result.rule_id for result in run.results] == ["outside-tag", "outside-helper"]
    helper = run.results[1]
    assert helper.locations is not None
    physical = helper.locations[0].physical_location
    assert physical is not None
    assert physical.region is not None
    assert (physical.region.start_line, physical.region.start_column) == (15, 37)
    rules = run.tool.driver.rules
    assert rules is not None
    for result in run.results:
        assert result.rule_index is not None
        assert rules[result.rule_index].id == result.rule_id


def test_fingerprints_last(narrow: Path, tmp_path: Path) -> None:
    """GitHub knows a finding again by them: they do not depend on numbers of calls."""
    prints = []
    for seq in (3, 9):
        deed = Deed("pin", value=("/sys/fs/bpf/x",))
        found = Verdict("t", "l", outside=[Outside(deed, Where(f"call #{seq}", seq))])
        results = verdicts.as_sarif([found])["runs"][0]["results"]
        prints.append(results[0]["partialFingerprints"])
    assert prints[0] == prints[1]


def test_check_annotates(narrow: Path) -> None:
    done = judged(narrow, "--annotate=github")
    found = [parsed(line) for line in done.stderr.splitlines()]
    assert [level for level, _, _ in found] == ["error", "error"]
    _, properties, message = found[1]
    assert (properties["line"], properties["col"]) == ("15", "37")
    assert "calls the helper bpf_trace_printk [call #5, insn 10]" in message


def test_trouble_is_an_error_everywhere(narrow: Path, tmp_path: Path) -> None:
    """A damaged trace is no pass in any format."""
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"type":"trace","format":"bpfstrace","version":1}\n')
    junit, sarif = tmp_path / "j.xml", tmp_path / "s.json"
    done = run_cli(
        "check", str(cut), str(HELLO), "--lock", str(narrow), "--json",
        "--junit", str(junit), "--sarif", str(sarif), "--annotate=github",
    )  # fmt: skip
    assert done.returncode == TROUBLE
    found = json.loads(done.stdout)
    assert [found["verdict"], *(each["verdict"] for each in found["traces"])] == [
        "trouble", "trouble", "outside",
    ]  # fmt: skip
    suites = Junit(str(junit)).suites
    assert [next(iter(suite.failed())).failure_msg for suite in suites] == [
        found["traces"][0]["trouble"], f"outside {narrow}",
    ]  # fmt: skip
    log = Sarif.model_validate_json(sarif.read_text())
    assert log.runs[0].invocations is not None
    assert log.runs[0].invocations[0].execution_successful is False
    assert any(
        parsed(line)[1]["title"] == "bpfstrace check: the trace proves nothing"
        for line in done.stderr.splitlines()
        if line.startswith("::")
    )


def test_within_is_within_everywhere(tmp_path: Path) -> None:
    lock = str(tmp_path / "l.toml")
    assert check([str(HELLO), "--lock", lock, "--update"]) == DONE
    done = run_cli(
        "check", str(HELLO), "--lock", lock, "--annotate=github", "--sarif", "-"
    )
    assert (done.returncode, done.stderr) == (DONE, "")
    log = Sarif.model_validate_json(done.stdout)
    assert log.runs[0].results == []
    assert log.runs[0].invocations is not None
    assert log.runs[0].invocations[0].execution_successful is True


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "--junit", "-"], ["--junit", "-", "--sarif", "-"], ["--update", "--json"],
        ["--update", "--annotate=github"], ["--junit"], ["--annotate="],
    ],
)  # fmt: skip
def test_what_does_not_go_together(words: list[str], narrow: Path) -> None:
    done = judged(narrow, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_a_failure_of_ours(narrow: Path, tmp_path: Path) -> None:
    done = judged(narrow, "--junit", str(tmp_path / "no" / "j.xml"))
    assert done.returncode == OWN_FAILURE
    assert "No such file" in done.stderr


def hostile() -> Verdict:
    """Names of an enemy's wherever there are names."""
    place = Place(0, HOSTILE, HOSTILE, 1, 2, HOSTILE, HOSTILE)
    deeds = {
        Deed("program", (HOSTILE, HOSTILE)): Where(HOSTILE, 1, place),
        Deed("pin", value=(HOSTILE,)): Where("call #2", 2),
    }
    outside = [Outside(deed, where) for deed, where in deeds.items()]
    return Verdict(HOSTILE, HOSTILE, deeds, outside)


@pytest.mark.parametrize("trouble", ["", HOSTILE])
def test_hostile_names_are_names(trouble: str, tmp_path: Path) -> None:
    found = hostile()
    found.trouble = trouble
    for line in of_judged(found):
        assert line.isprintable()
        assert set(parsed(line)[1]) <= {"file", "line", "col", "title"}
    path = tmp_path / "j.xml"
    path.write_text(verdicts.as_junit([found]), encoding="utf-8")
    (suite,) = Junit(str(path)).suites
    assert len(suite.failed()) == 2 + bool(trouble)
    text = json.dumps(verdicts.as_sarif([found]))
    assert Sarif.model_validate_json(text).runs[0].results
    json.loads(json.dumps(verdicts.as_json([found])))


def test_the_example_workflow_runs(tmp_path: Path, needs_bpf: None) -> None:
    """The steps of docs/ci.md that are bpfstrace's, with our hello world for a loader."""
    page = (ROOT / "docs" / "ci.md").read_text()
    workflow = page.partition("```yaml\n")[2].partition("```")[0]
    lines = [line.strip().removeprefix("- run: ") for line in workflow.splitlines()]
    record, judge = [line for line in lines if re.match(r"(sudo .*)?bpfstrace", line)]
    loader = f"{sys.executable} -m bpftrace_sys.hello"
    words = record.replace('sudo "$(which bpfstrace)"', "bpfstrace").replace("./loader", loader)
    done = run_cli(*shlex.split(words)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert check([str(tmp_path / "trace.jsonl.gz"), "--lock", str(tmp_path / "bpf.lock.toml"),
                  "--update"]) == DONE  # fmt: skip
    done = run_cli(*shlex.split(judge)[1:], cwd=tmp_path)
    assert done.returncode == DONE, done.stderr
    assert Sarif.model_validate_json((tmp_path / "bpf.sarif").read_text()).runs[0].results == []


def test_every_kind_of_deed_has_a_rule() -> None:
    from bpftrace_sys.compare.policy.deeds import KINDS

    assert list(verdicts.ABOUT) == list(KINDS)


