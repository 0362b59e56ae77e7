"""``python3 -m bpftrace_sys`` is ``bpfstrace``."""

from bpftrace_sys.cli import run

run()
