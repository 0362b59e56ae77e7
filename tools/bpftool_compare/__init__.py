# SPDX-License-Identifier: GPL-2.0-only
"""What bpfstrace says of a program, held against what bpftool says while the program runs."""
