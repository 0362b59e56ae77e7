"""``python3 -m bpftrace_sys`` is ``bpfstrace``."""

import sys

from bpftrace_sys.cli import main

sys.exit(main())
