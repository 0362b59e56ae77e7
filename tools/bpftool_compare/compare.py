# SPDX-License-Identifier: GPL-2.0-only
"""What bpfstrace says against what bpftool showed meanwhile: each contradiction is a sentence.

Ids are not used twice while a machine runs, so what a view shows of an id may be compared whenever
it was taken. Where programs are attached is compared at the time of the view.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bpftool_compare.places import same
from bpftool_compare.said import FATE, KINDS, NEVER, Said, Standing
from bpftool_compare.view import Facts, Place, View, detached

NAME_LEN: Final = 15
SLACK: Final = 1_000_000
"""Nanoseconds by which the clocks of calls and of views may be apart."""
UNSHOWN: Final = (
    "socket filter", "reuseport", "tail call", "xdp devmap", "xdp cpumap", "struct_ops", "tun ",
    "kcm", "sk_skb", "sk_msg", "stream", "software", "hardware", "hw_cache", "breakpoint", "lirc",
    "event", "sk_lookup", "flow_dissector",
)  # fmt: skip
"""What bpftool shows nowhere, or only of links."""
SIZES: Final = {"key_size": "bytes_key", "value_size": "bytes_value", "max_entries": "max_entries"}


class Comparison:
    """One trace, and the views that were taken while it was made and after it."""

    def __init__(self, said: Said, views: Sequence[View], after: View | None = None) -> None:
        self.said = said
        self.views = views
        self.after = after
        everything = [*views, *([after] if after is not None else [])]
        self.known: dict[str, dict[int, Facts]] = {kind: {} for kind in KINDS}
        for view in everything:
            for kind in KINDS:
                self.known[kind].update(view.of(kind))
        self.shown: dict[int, list[Place]] = {}
        for view in views:
            for place in view.places():
                self.shown.setdefault(place.prog, []).append(place)
        self.checked = 0
        """How many facts were found in both."""

    def contradictions(self) -> list[str]:
        """All of them, each once."""
        found = [
            *self._objects(), *self._labels(), *self._loads(), *self._maps(), *self._tables(),
            *self._standings(), *self._fates(), *self._left_behind(),
        ]  # fmt: skip
        return list(dict.fromkeys(found))

    def _differ(self, where: str, what: str, ours: Any, theirs: Any) -> Iterator[str]:
        self.checked += 1
        if ours != theirs:
            yield f"{where}: {what} is {ours!r}, and bpftool says {theirs!r}"

    def _name(self, where: str, ours: str, theirs: Facts) -> Iterator[str]:
        """Names, of which the kernel keeps 15 letters, and BTF may have all."""
        name = str(theirs.get("name", ""))
        if ours[:NAME_LEN] == name[:NAME_LEN] and NAME_LEN in (len(ours), len(name)):
            self.checked += 1
            return
        yield from self._differ(where, "name", ours, name)

    # ---------------------------------------------------------------- objects

    def _objects(self) -> Iterator[str]:
        for where, each in self.said.objects():
            kind, number = each["kind"], each["id"]
            theirs = self.known[kind].get(number)
            if theirs is None:
                continue
            where = f"{where}, {kind} {number}"
            if "name" in each and kind in ("prog", "map"):
                yield from self._name(where, each["name"], theirs)
            if "tag" in each and "tag" in theirs:
                yield from self._differ(where, "tag", each["tag"], theirs["tag"])
            if "type" in each and isinstance(theirs.get("type"), str):
                yield from self._differ(where, "type", each["type"], theirs["type"])
            if kind == "map":
                for ours, key in SIZES.items():
                    if ours in each:
                        yield from self._differ(where, ours, each[ours], theirs[key])
            if kind == "link" and "target" in each and "prog_id" in theirs and not detached(theirs):
                place = Place(theirs["prog_id"], "link", theirs)
                self.checked += 1
                if not same(place, each["target"]):
                    yield f"{where}: its target is {each['target']!r}, and bpftool says {place}"

    def _labels(self) -> Iterator[str]:
        for label in self.said.labels():
            kind, number = label["kind"], int(label["id"])
            theirs = self.known[kind].get(number)
            if theirs is None or kind in ("btf", "link"):
                continue
            where = f"text {label[0]}"
            yield from self._name(where, label["name"] or "", theirs)
            for word in label["rest"].split():
                if "/" in word and kind == "map" and word.replace("/", "").isdecimal():
                    size = f"{theirs['bytes_key']}/{theirs['bytes_value']}"
                    yield from self._differ(where, "key/value", word, size)
                if word.startswith("tag="):
                    yield from self._differ(where, "tag", word[4:], theirs["tag"])

    # ---------------------------------------------------------------- calls

    def _loads(self) -> Iterator[str]:
        bound: dict[int, set[int]] = {}
        for line in self.said.calls("BPF_PROG_BIND_MAP"):
            fds = line.get("fds", {})
            progs = [each["id"] for each in fds.values() if each.get("kind") == "prog"]
            maps = {each["id"] for each in fds.values() if each.get("kind") == "map"}
            for prog in progs:
                bound.setdefault(prog, set()).update(maps)
        for number, line in self.said.loaded().items():
            theirs = self.known["prog"].get(number)
            if theirs is None:
                continue
            where = f"seq {line['seq']}, PROG_LOAD of prog {number}"
            attr = line["args"]["attr"]
            kind = attr["prog_type"].removeprefix("BPF_PROG_TYPE_").lower()
            if isinstance(theirs["type"], str):
                yield from self._differ(where, "prog_type", kind, theirs["type"])
            name = attr.get("prog_name", "")
            if isinstance(name, str) and len(name) < NAME_LEN:
                # Of a longer one bpftool tells the function's name in BTF, which may be another.
                yield from self._differ(where, "prog_name", name, theirs.get("name", ""))
            ours = {
                each["id"]
                for each in line.get("fds", {}).values()
                if each.get("kind") == "map" and "id" in each
            }
            yield from self._differ(
                where, "maps", sorted(ours | bound.get(number, set())),
                sorted(theirs.get("map_ids", [])),
            )  # fmt: skip
            begin, end = self.said.began(line["seq"]), self.said.ended(line["seq"])
            self.checked += 1
            if not begin // 10**9 - 2 <= theirs["loaded_at"] <= end // 10**9 + 2:
                yield f"{where}: loaded at {begin}, and bpftool says {theirs['loaded_at']}"

    def _maps(self) -> Iterator[str]:
        frozen = {
            each["id"]
            for line in self.said.calls("BPF_MAP_FREEZE")
            for each in line.get("fds", {}).values()
            if each.get("kind") == "map" and "id" in each
        }
        for line in self.said.calls("BPF_MAP_CREATE"):
            number = line.get("fd", {}).get("id")
            theirs = self.known["map"].get(number)
            if theirs is None:
                continue
            where = f"seq {line['seq']}, MAP_CREATE of map {number}"
            attr = line["args"]["attr"]
            kind = attr["map_type"].removeprefix("BPF_MAP_TYPE_").lower()
            if isinstance(theirs["type"], str):
                yield from self._differ(where, "map_type", kind, theirs["type"])
            yield from self._name(where, attr.get("map_name", ""), theirs)
            for ours, key in SIZES.items():
                yield from self._differ(where, ours, attr[ours], theirs[key])
            last = [view.maps[number] for view in self.views if number in view.maps][-1:]
            if self.after is not None and number in self.after.maps:
                last = [self.after.maps[number]]
            if last and number in frozen and not last[0]["frozen"]:
                yield f"{where}: a MAP_FREEZE succeeded, and bpftool says it is not frozen"
            if last and number not in frozen and last[0]["frozen"]:
                yield f"{where}: no MAP_FREEZE was seen, and bpftool says that it is frozen"

    # ---------------------------------------------------------------- tables

    def _tables(self) -> Iterator[str]:
        for title, kind in (("programs", "prog"), ("maps", "map"), ("links", "link")):
            for row in self.said.tables.get(title, ()):
                theirs = self.known[kind].get(int(row["id"] or 0))
                if theirs is not None:
                    yield from self._row(f"table of {title}, {kind} {row['id']}", kind, row, theirs)

    def _row(self, where: str, kind: str, row: Mapping[str, str], theirs: Facts) -> Iterator[str]:
        if kind in ("prog", "map"):
            name = "" if row["name"] == "(anonymous)" else row["name"]
            if "\N{HORIZONTAL ELLIPSIS}" not in name:
                yield from self._name(where, name, theirs)
        if isinstance(theirs.get("type"), str):
            yield from self._differ(where, "type", row["type"], theirs["type"])
        if kind == "prog":
            yield from self._differ(where, "tag", row["tag"], theirs["tag"])
            for place in self.shown.get(int(row["id"]), ()):
                self.checked += 1
                if not self._unseen(row) and not self._mentions(row["attached to"], place):
                    yield f"{where}: {row['attached to']!r}, and bpftool says {place}"
        if kind == "map":
            pairs = (("key", "bytes_key"), ("value", "bytes_value"), ("entries", "max_entries"))
            for ours, key in pairs:
                yield from self._differ(where, ours, row[ours], str(theirs[key]))
        if kind == "link":
            self.checked += 1
            place = Place(theirs.get("prog_id", 0), "link", theirs)
            if not detached(theirs) and not same(place, row["target"]):
                yield f"{where}: target {row['target']!r}, and bpftool says {place}"

    @staticmethod
    def _unseen(row: Mapping[str, str]) -> bool:
        """Whether it is said that attaching would not have been seen."""
        return row["attached to"].startswith(("not seen attached", "attachment not traced"))

    def _mentions(self, cell: str, place: Place) -> bool:
        """Whether a cell of several targets may have this one."""
        if "from before" in cell or "from elsewhere" in cell:
            return True
        words = cell.replace("; ", ", ").split(", ")
        count = len(words)
        spans = [(begin, end) for begin in range(count) for end in range(begin + 1, count + 1)]
        pieces = [", ".join(words[begin:end]) for begin, end in spans]
        return any(
            same(place, piece.removeprefix("was attached to ").partition(" (seen at")[0])
            for piece in pieces
        )

    # ---------------------------------------------------------------- attachments

    def _standings(self) -> Iterator[str]:
        ours: dict[int, list[Standing]] = {}
        for standing in self.said.standings:
            ours.setdefault(standing.prog, []).append(standing)
        loaded = self.said.loaded()
        unseen = {
            int(row["id"]) for row in self.said.tables.get("programs", ()) if self._unseen(row)
        }
        for view in self.views:
            places: dict[int, list[Place]] = {}
            for place in view.places():
                places.setdefault(place.prog, []).append(place)
            for prog, line in loaded.items():
                if prog not in view.progs:
                    continue
                for place in () if prog in unseen else places.get(prog, ()):
                    self.checked += 1
                    if not any(
                        standing.begun - SLACK <= view.end
                        and standing.until + SLACK >= view.begin
                        and same(place, standing.target)
                        for standing in ours.get(prog, ())
                    ):
                        told = [standing.target for standing in ours.get(prog, ())]
                        yield (
                            f"prog {prog} (seq {line['seq']}): bpftool says {place}, "
                            f"and bpfstrace {told or 'nothing'}"
                        )
                for standing in ours.get(prog, ()):
                    yield from self._stands(standing, places.get(prog, ()), view)

    def _stands(self, standing: Standing, places: Sequence[Place], view: View) -> Iterator[str]:
        if standing.since + SLACK > view.begin or standing.until < view.end + SLACK:
            return
        if standing.link is not None and standing.link in view.links:
            link = view.links[standing.link]
            self.checked += 1
            if link.get("prog_id") != standing.prog:
                yield (
                    f"link {standing.link} is of prog {standing.prog}, and bpftool says {link}"
                )
            return
        if standing.target.startswith(UNSHOWN) or standing.until != NEVER:
            return
        if standing.link is not None or "link" in standing.via:
            return  # ended when its fd was closed, which is no call that is traced
        self.checked += 1
        if not any(same(place, standing.target) for place in places):
            yield (
                f"prog {standing.prog} is said to be on {standing.target!r}, and bpftool shows "
                f"{[str(place) for place in places] or 'it nowhere'}"
            )

    def _fates(self) -> Iterator[str]:
        """``not attached NAME``: of all programs of that name and tag."""
        for fate in FATE.finditer(self.said.text):
            tag = fate["rest"].partition("tag ")[2][:16]
            for row in self.said.tables.get("programs", ()):
                if row["tag"] != tag or not row["attached to"].startswith("not attached"):
                    continue
                for place in self.shown.get(int(row["id"] or 0), ()):
                    yield f"text says {fate[0]!r}, and bpftool says {place}"

    def _left_behind(self) -> Iterator[str]:
        if self.after is None:
            return
        rows = {
            (row["what"], int(row["id"])): row for row in self.said.tables.get("left behind", ())
        }
        for (kind, number), row in rows.items():
            theirs = self.after.of(kind).get(number)
            self.checked += 1
            if theirs is None:
                yield f"left behind: {kind} {number} {row['name']}, and bpftool shows it no more"
                continue
            for path in theirs.get("pinned", ()):
                told = row["why"].partition("pinned at ")[2].split("; ")
                if not any(os.path.exists(each) and os.path.samefile(each, path) for each in told):
                    yield f"left behind: {kind} {number}: {row['why']!r}, and bpftool says {path}"
        made = {
            (each["kind"], each["id"])
            for line in self.said.by_seq.values()
            if "probe" not in line and (each := line.get("fd")) and "id" in each
            and line["args"].get("cmd") in MAKERS
        }
        for kind, number in made:
            if kind in ("prog", "map", "link") and number in self.after.of(kind):
                self.checked += 1
                if (kind, number) not in rows and "left behind" in self.said.tables:
                    yield f"{kind} {number} is there still, and not in the table left behind"


MAKERS: Final = ("BPF_PROG_LOAD", "BPF_MAP_CREATE", "BPF_LINK_CREATE", "BPF_RAW_TRACEPOINT_OPEN")
