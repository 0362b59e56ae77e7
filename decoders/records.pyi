# To type checkers these are Python's own.

from dataclasses import asdict as asdict
from dataclasses import dataclass as dataclass
from dataclasses import field as field
from dataclasses import replace as replace
from typing import NamedTuple as NamedTuple
