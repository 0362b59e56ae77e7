"""Outputs go where they were sent, and not where another user has put something."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.common.output_files import create, readable_by_others

NOBODY = 65534

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def everybodys(tmp_path: Path) -> Path:
    """A folder like /tmp."""
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of another user's."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def written(path: Path, append: bool = False) -> None:
    fd = create(str(path), append)
    os.write(fd, b"new")
    os.close(fd)


def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    written(tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_a_file_of_ours_is_begun_anew_or_continued(everybodys: Path) -> None:
    path = everybodys / "out"
    path.write_text("older and longer")
    path.chmod(0o644)
    written(path)
    assert path.read_text() == "new"
    written(path, append=True)
    assert path.read_text() == "newnew"
    fd = create(str(path))
    assert readable_by_others(fd) == "644"
    os.close(fd)
    path.chmod(0o600)
    fd = create(str(path))
    assert readable_by_others(fd) is None
    os.close(fd)


def test_links_of_ours_are_followed(everybodys: Path, tmp_path: Path) -> None:
    (everybodys / "link").symlink_to(tmp_path / "target")
    written(everybodys / "link")
    assert (tmp_path / "target").read_text() == "new"
    (tmp_path / "inside").symlink_to(tmp_path / "other")
    written(tmp_path / "inside")
    assert (tmp_path / "other").read_text() == "new"


@root
@pytest.mark.parametrize("folder", ["everybodys", "foreign"])
def test_what_others_have_put_there_is_not_written_to(
    folder: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(folder)
    target = tmp_path / "target"
    target.write_text("precious")
    link, file, pipe = place / "link", place / "file", place / "pipe"
    link.symlink_to(target)
    file.write_text("theirs")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (link, file, pipe):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for path in (link, file, pipe):
        with pytest.raises(OSError, match="65534") as raised:
            create(str(path))
        assert raised.value.strerror
    os.close(reader)
    assert target.read_text() == "precious"
    assert file.read_text() == "theirs"


@root
def test_a_second_name_in_a_foreign_folder(foreign: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.link(target, foreign / "name")
    with pytest.raises(OSError, match="another name"):
        create(str(foreign / "name"))
    assert target.read_text() == "precious"


@root
def test_a_link_that_could_be_exchanged(foreign: Path, tmp_path: Path) -> None:
    (foreign / "link").symlink_to(tmp_path / "target")  # ours, in a folder that is not
    with pytest.raises(OSError, match="exchange"):
        create(str(foreign / "link"))
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/proc/self/fd/1"])
def test_devices_and_standard_streams(path: str) -> None:
    code = "import os, sys; from bpftrace_sys.common.output_files import create\n"
    code += f"os.write(create({path!r}), b'new')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == (b"" if path == "/dev/null" else b"new")


def test_a_pipe_of_ours(everybodys: Path) -> None:
    os.mkfifo(everybodys / "pipe")
    reader = os.open(everybodys / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    written(everybodys / "pipe")
    assert os.read(reader, 10) == b"new"
    os.close(reader)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        create(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        create(str(tmp_path / "no" / "such"))
