"""Marks are true: what offline tests must not need fails when they run, as conftest.py sees to."""

from __future__ import annotations

import ctypes
import errno
import platform
import subprocess
import sys

from tests.support.running import ROOT
from tests.support.without_bpf import NUMBERS

SCRIPT = """
import ctypes
from tests.support.without_bpf import NUMBERS, give_up_bpf
import platform
give_up_bpf()
libc = ctypes.CDLL(None, use_errno=True)
for number in NUMBERS[platform.machine()]:
    print(libc.syscall(number, -1, 0, 0), ctypes.get_errno())
print(libc.getpid() > 0)
"""


def test_the_three_calls_are_refused_and_no_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "-1 1\n" * 3 + "True\n", done.stderr


def test_they_are_gone_while_offline_tests_run() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for number in NUMBERS[platform.machine()]:
        assert libc.syscall(number, -1, 0, 0) == -1
        assert ctypes.get_errno() == errno.EPERM
