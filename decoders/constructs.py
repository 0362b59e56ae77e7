"""construct, imported without what only its debugger, its pickles and its checksums need.

That is half of what it imports, and the longer half: pdb alone takes as long as construct. Those
modules are loaded when somebody looks into them, as importlib.util.LazyLoader has it.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import LazyLoader
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

LATE: Final = frozenset({"hashlib", "inspect", "pdb", "pickle", "traceback"})


class _Late:
    """Finds the modules of LATE, and puts off loading them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


_late: Final = _Late()
sys.meta_path.insert(0, _late)
try:
    import construct
finally:
    sys.meta_path.remove(_late)

cs: Final = construct
this: Final = construct.this
