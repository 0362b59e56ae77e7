"""Splits a command line into options and the rest, as getopt_long(3) does.

The standard library's getopt does the same, but the regular expressions that it brings
along take longer to import than a short program takes to run.
"""

from __future__ import annotations

from bpftrace_sys.common import BpfstraceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class UsageError(BpfstraceError):
    """Arguments that cannot be understood; the text says which and what would do."""


class UnknownOptionError(UsageError):
    """An option that is none of ours; ``flag`` as it was typed."""

    def __init__(self, flag: str) -> None:
        super().__init__(f"option {flag} not recognized")
        self.flag = flag


def scan(
    words: Sequence[str], takes: Mapping[str, bool | None], anywhere: bool = False
) -> tuple[list[tuple[str, str]], list[str]]:
    """(flag, its argument or "") of each option in order, and the words that are none.

    ``takes``: the flags (``-o``, ``--output``), and whether each takes an argument; None:
    one that may be left out, so that it has to stand behind a ``=``. Options end at the
    first word that is none, or ``anywhere`` only at ``--``. Long ones may be cut short
    while that is clear. Raises UsageError.
    """
    pairs: list[tuple[str, str]] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += left
        elif word.startswith("--"):
            pairs.append(_long(word, takes, left))
        elif word.startswith("-") and word != "-":
            pairs += _short(word, takes, left)
        elif anywhere:
            rest.append(word)
        else:
            rest += [word, *left]
    return pairs, rest


def _long(word: str, takes: Mapping[str, bool | None], left: Iterator[str]) -> tuple[str, str]:
    typed, equals, text = word.partition("=")
    flag = typed
    if typed not in takes:
        fitting = [known for known in takes if known.startswith(typed)]
        if not fitting:
            raise UnknownOptionError(typed)
        if len(fitting) > 1:
            raise UsageError(
                f"option {typed} not a unique prefix: {' or '.join(sorted(fitting))}"
            )
        (flag,) = fitting
    if not takes[flag]:
        if equals and takes[flag] is None:
            return flag, text
        if equals:
            raise UsageError(f"option {flag} must not have an argument")
        return flag, ""
    return flag, text if equals else _argument(flag, left)


def _short(
    word: str, takes: Mapping[str, bool | None], left: Iterator[str]
) -> Iterator[tuple[str, str]]:
    for at, letter in enumerate(word[1:], 2):
        flag = f"-{letter}"
        if flag not in takes:
            raise UnknownOptionError(flag)
        if takes[flag]:
            yield flag, word[at:] or _argument(flag, left)
            return
        yield flag, ""


def _argument(flag: str, left: Iterator[str]) -> str:
    for word in left:
        return word
    raise UsageError(f"option {flag} requires argument")


def words_of(text: str) -> list[str]:
    """The words between commas of an argument."""
    return [word for word in text.split(",") if word]
