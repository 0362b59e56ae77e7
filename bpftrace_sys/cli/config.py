"""The configuration file: options that a person gives each time, and a theme.

``$XDG_CONFIG_HOME/bpfstrace/config.toml`` (https://specifications.freedesktop.org/basedir-spec):
a table of options for tracing and replaying (``[options]``), for one command (``[live]``,
``[replay]``, ``[diff]``, ``[ps]``, ``[dump]``, ``[disasm]``), and ``[theme]``. Only a file of our
own user's is read, for options say what is run and written. tomllib is imported where there is a
file.
"""

from __future__ import annotations

import os
import stat

from bpftrace_sys.cli.getopt_long import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from bpftrace_sys.cli.settings import Settings

NO_CONFIG: Final = "--no-config"
LIMIT: Final = 1 << 16
"""Bytes of the file."""
PASSWD: Final = "/etc/passwd"
"""passwd(5)"""
WITH_OPTIONS: Final = ("diff", "ps", "dump", "disasm")
"""Subcommands that have a table besides tracing and replaying."""
TABLES: Final = ("options", "live", "replay", *WITH_OPTIONS, "theme")
NOT_THERE: Final = (FileNotFoundError, NotADirectoryError)


class ConfigError(UsageError):
    """The file is not read, or something in it is wrong; the text says where and why."""


class Config:
    """What stands in the file."""

    def __init__(self, path: str = "", text: str = "") -> None:
        """Raises ConfigError; without a text there is nothing."""
        self.path = path
        self._text = text
        self._tables: dict[str, dict[str, Any]] = {}
        if text:
            self._parse()

    def _parse(self) -> None:
        import tomllib

        try:
            tables: dict[str, Any] = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{self.path}: not TOML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{self.path}: nested too deeply") from None
        for name, table in tables.items():
            if name not in TABLES or not isinstance(table, dict):
                raise ConfigError(
                    f"{self.place('', name)}: there are the tables "
                    f"{', '.join(f'[{known}]' for known in TABLES)}, not {name!r}"
                )
        self._tables = tables

    def place(self, table: str, key: str) -> str:
        """``FILE:LINE`` of a key; of its table where the key stands in an unusual way."""
        inside, found = not table, 0
        for number, line in enumerate(self._text.splitlines(), 1):
            word = line.strip()
            if word.startswith("["):
                name = word.strip("[]").split("]")[0].strip(" \"'")
                inside = name == table
                if name == (table or key):
                    found = number
            elif inside and word.partition("=")[0].strip(" \"'") == key:
                return f"{self.path}:{number}"
        return f"{self.path}:{found}" if found else self.path

    def words(self, command: str) -> Iterator[tuple[str, str, str]]:
        """The table, key and option (``--string-limit=128``) of each line for a command."""
        names = ("options", command) if command in ("live", "replay") else (command,)
        for name in names:
            for key, value in self._tables.get(name, {}).items():
                if not key:
                    raise ConfigError(f"{self.place(name, key)}: no option has an empty name")
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, bool):
                        if each:
                            yield name, key, f"--{key}"
                    elif isinstance(each, str | int):
                        yield name, key, f"--{key}={each}"
                    else:
                        raise ConfigError(
                            f"{self.place(name, key)}: {key} takes true, a number, "
                            "a text or a list of these"
                        )

    def theme(self) -> dict[str, str]:
        """Styles by the names of render/style.py."""
        found = self._tables.get("theme", {})
        for name, words in found.items():
            if not isinstance(words, str):
                place = self.place("theme", name)
                raise ConfigError(f"{place}: {name} takes a text, as 'bold red'")
        return found


def folder() -> str:
    """Where our user's configuration is; empty where the user has no home.

    HOME and XDG_CONFIG_HOME may be left over from who called sudo or su: folders of another
    user's do not count.
    """
    mine = os.geteuid()
    xdg, home = os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "")
    for base, path in ((xdg, xdg), (home, f"{home}/.config")):
        try:
            if os.path.isabs(base) and os.stat(base).st_uid == mine:
                return path
        except OSError:
            continue
    # Not by getpwuid(3): it asks name services over sockets, and this is asked at each start.
    try:
        with open(PASSWD, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split(":")
                if len(fields) == 7 and fields[2] == str(mine) and os.path.isabs(fields[5]):
                    return f"{fields[5]}/.config"
    except OSError:
        pass
    return ""


def load() -> Config:
    """Reads the file, if there is one. Raises ConfigError."""
    base = folder()
    if not base:
        return Config()
    path = f"{base}/bpfstrace/config.toml"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        above = os.open(f"{base}/bpfstrace", flags | os.O_DIRECTORY)
    except NOT_THERE:
        # As it is for a link (O_DIRECTORY with O_NOFOLLOW), of which it has to be said.
        if os.path.islink(f"{base}/bpfstrace"):
            raise ConfigError(_refused(f"{base}/bpfstrace", "is a link")) from None
        return Config()
    except OSError as error:
        raise ConfigError(_refused(path, error.strerror or str(error))) from None
    try:
        fd = os.open("config.toml", flags, dir_fd=above)
    except NOT_THERE:
        os.close(above)
        return Config()
    except OSError as error:
        link = os.path.islink(path)
        os.close(above)
        why = "is a link" if link else error.strerror or str(error)
        raise ConfigError(_refused(path, why)) from None
    with os.fdopen(fd, "rb") as file:
        wrong = _wrong(os.fstat(above), f"{base}/bpfstrace") or _wrong(os.fstat(fd), path)
        os.close(above)
        if wrong:
            raise ConfigError(wrong)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(_refused(path, "is no regular file"))
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ConfigError(_refused(path, f"has more than {LIMIT} bytes"))
    try:
        return Config(path, data.decode())
    except UnicodeDecodeError:
        raise ConfigError(_refused(path, "is not UTF-8")) from None


def _refused(path: str, why: str) -> str:
    return f"{path}: {why}, so it is not read; {NO_CONFIG} does without"


def _wrong(found: os.stat_result, path: str) -> str:
    """Why another user may have written there; empty: none did."""
    if found.st_uid != os.geteuid():
        return _refused(path, f"belongs to the user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return _refused(path, f"may be written by others (chmod go-w {path})")
    return ""


def configured(settings: Settings, words: list[str], command: str) -> Settings:
    """The settings of a command line with those of the file, which it overrides.

    ``settings``: what the words say by themselves. Raises ConfigError.
    """
    if not settings.config:
        return settings
    found = load()
    use_theme(found)
    given = list(found.words(command))
    if not given:
        return settings
    from bpftrace_sys.cli.options import meant_for, parse

    kept = []
    for table, key, word in given:
        if table == "options" and not meant_for(f"--{key}", command):
            continue
        try:
            one = parse([word], command, agree=False)
            if one.args or not one.config or one.help or one.version:
                raise UsageError(f"{key} does not belong here")
        except UsageError as error:
            raise ConfigError(f"{found.place(table, key)}: {error}") from None
        kept.append((found.place(table, key), word))
    try:
        return parse([*(word for _, word in kept), *words], command)
    except UsageError as error:
        place = _at_fault(kept, words, command) or found.path
        raise ConfigError(f"{error} (with the options of {place})") from None


def _at_fault(kept: list[tuple[str, str]], words: list[str], command: str) -> str | None:
    """Where the option stands without which the others agree; None where it is not one."""
    from bpftrace_sys.cli.options import parse

    for at, (place, _) in enumerate(kept):
        others = [word for number, (_, word) in enumerate(kept) if number != at]
        try:
            parse([*others, *words], command)
        except UsageError:
            continue
        return place
    return None


def use_theme(found: Config) -> None:
    """Paints as the file says, from now on."""
    chosen = found.theme()
    if chosen:
        from bpftrace_sys.render import style

        style.configured.clear()
        style.configured.update(
            {name: (words, found.place("theme", name)) for name, words in chosen.items()}
        )
