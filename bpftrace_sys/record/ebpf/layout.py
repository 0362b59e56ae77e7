"""The records of the ring: state.h's structs and enums."""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("<IIQQQQ6QqIIIIII16s")
PIECE: Final = struct.Struct("<QIHBB")
APART: Final = struct.Struct("<IIQQIHBBII")
PROCESS: Final = struct.Struct("<IIQQIIQ")
WHO: Final = struct.Struct("<IIQQQIIII16s256s")

CALL, PIECE_APART, PROCESS_EVENT, WHO_IS = range(4)
DATA, STRING, FD, ASKED, CRED, ROOT = range(6)
FORK, EXEC, EXITED, NARROW = range(4)
UNFINISHED: Final = 1
LATE: Final = 2
THERE: Final = 4
