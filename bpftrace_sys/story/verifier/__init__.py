"""The kernel verifier's log: its lines, the registers that it tells of, and its verdict."""
