"""Asks for a uprobe in a file on which it holds a lease, which lasts until 45 seconds after
somebody else wants to open the file. argv: the file.

Prints whether somebody did.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import perf_event, pmu

path = sys.argv[1]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
file = os.open(path, os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
perf_event(pmu("uprobe"), text=path.encode(), config2=0x1000)
print(signal.sigtimedwait({signal.SIGIO}, 30) is not None)
