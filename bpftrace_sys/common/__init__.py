"""What every part needs and that knows nothing of BPF, and the root of foreseen errors."""

from __future__ import annotations

from decoders import BpfstraceError as BpfstraceError
