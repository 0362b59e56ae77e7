"""``python3 -m bpftrace_sys`` is ``bpfstrace``."""

from bpftrace_sys.cli.main import run

run()
