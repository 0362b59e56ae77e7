"""Which container a process is in, by its cgroup; and cgroups by their ids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpftrace_sys.record.ebpf.cgroups import Cgroups, container, root_of
from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.proc import cgroup_of

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope",
        f"/kubepods/besteffort/pod7/{ID}",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/system.slice/containerd.service/kubepods-burstable-pod3.slice:cri-containerd:{ID}",
        f"/docker/{'f' * 64}/docker/{ID}",
    ],
)
def test_the_container_that_a_cgroup_names(path: str) -> None:
    """The innermost one, where they are nested."""
    assert container(path) == ID


@pytest.mark.parametrize(
    "path", ["/", "/user.slice/user-0.slice/session-1.scope", f"/x/{ID[:63]}", "/init.scope"]
)
def test_a_cgroup_that_names_none(path: str) -> None:
    assert container(path) is None


def test_processes_and_ids(tmp_path: Path) -> None:
    top = next((mount.path for mount in mounts() if mount.kind == "cgroup2"), None)
    assert cgroup_of(os.getpid()) is not None
    assert cgroup_of(4_194_303) is None
    assert root_of(str(tmp_path)) is None
    if top is None:
        pytest.skip("no cgroup2")
    assert root_of(top) == top
    assert Cgroups().path(os.stat(top).st_ino) == "/"
    assert Cgroups().path(1 << 60) is None
