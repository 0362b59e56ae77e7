"""-ff: the file FILE itself beside FILE.TID, made when there is something to say of them all."""

from __future__ import annotations

import io
import os

from bpftrace_sys.render.output import Output, OutputError, created


class Later(Output):
    """A file that is not made before something is written."""

    def __init__(self, path: str, append: bool) -> None:
        """OutputError where no file could be made beside it, either."""
        folder = os.path.dirname(path) or "."
        try:
            os.stat(folder)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {path}: no files can be made in {folder}")
        super().__init__(io.StringIO(), path)
        self._append = append
        self._made = False

    @property
    def is_file(self) -> bool:
        return self._made

    def write(self, text: str) -> int:
        if text and not self._made and self.lost is None:
            try:
                self.stream = created(self.name, self._append)
                self._made = True
            except OutputError as error:
                self.lost = str(error)
        return super().write(text)
