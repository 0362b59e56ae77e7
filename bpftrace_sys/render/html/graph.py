"""The picture of what hangs together: maps, programs by process, and where they are attached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.records import Program, Report

SHOWN: Final = 48
"""Nodes of a column; a line says how many more there are."""
ROW: Final = 52.0
HEIGHT: Final = 40.0
PAD: Final = 10.0
BOX: Final = 24.0
"""Room for a process's name above its programs."""
MAPS: Final = (10.0, 200.0)
PROGRAMS: Final = (290.0, 250.0)
TARGETS: Final = (640.0, 310.0)
"""Left edge and width of each column."""
WIDTH: Final = 960.0
CHARACTER: Final = 7.3
SMALL: Final = 5.9
"""What a character of a title takes, and one of the line below it."""


@dataclass(slots=True)
class Node:
    """A box: two lines, and where a click leads."""

    key: str
    title: str
    about: str
    href: str
    style: str
    wanted: float = 0.0
    y: float = 0.0
    near: list[Node] = field(default_factory=list)


def graph(report: Report) -> Markup | None:
    """The picture; None where there is no program."""
    if not report.programs:
        return None
    groups = _by_process(report)
    programs: dict[str, Node] = {}
    boxes: list[tuple[str, float, float]] = []
    y, left = PAD, SHOWN
    for name, found in groups:
        if left <= 0:
            break
        top = y
        y += BOX
        for program in found[:left]:
            node = _program(program)
            node.y = y
            programs[node.key] = node
            y += ROW
        left -= len(found[:left])
        boxes.append((name, top, y - (ROW - HEIGHT) + PAD / 2 - top))
        y += PAD
    maps, map_edges = _maps(report, programs)
    targets, target_edges = _targets(report, programs)
    height = max(_place(maps), _place(targets), y) + PAD
    more = [
        _more(left_out, column, height)
        for left_out, column in (
            (sum(len(found) for _, found in groups) - len(programs), PROGRAMS),
            (max(0, len(report.maps) - SHOWN), MAPS),
        )
        if left_out > 0
    ]
    if more:
        height += 20
    parts: list[Child] = [_arrow()]
    for name, top, tall in boxes:
        x, width = PROGRAMS
        parts.append(
            element("rect", {"class": "box", "x": x - 12, "y": top, "width": width + 24,
                             "height": tall, "rx": 8})
        )
        parts.append(
            element("text", {"class": "about", "x": x - 2, "y": top + 15}, _fit(name, width, SMALL))
        )
    for one, other in map_edges:
        parts.append(_edge(one, MAPS[0] + MAPS[1], other, PROGRAMS[0], "uses"))
    for one, other, style in target_edges:
        parts.append(_edge(one, PROGRAMS[0] + PROGRAMS[1], other, TARGETS[0], style))
    for column, nodes in ((MAPS, maps), (PROGRAMS, programs.values()), (TARGETS, targets)):
        parts += [_draw(node, column) for node in nodes]
    parts += more
    return element(
        "svg",
        {"class": "graph", "viewBox": f"0 0 {WIDTH:g} {height:g}", "role": "img",
         "aria-label": "programs, the maps that they use, and where they are attached"},
        *parts,
    )  # fmt: skip


def _by_process(report: Report) -> list[tuple[str, list[Program]]]:
    """Programs under the name of the process that loaded them."""
    found: dict[str, list[Program]] = {}
    for program in report.programs:
        if program.seq:
            thread = report.threads[program.thread]
            name = f"{thread.comm} ({thread.pid})"
        else:
            name = "from before the trace" if program.origin == "before" else "from elsewhere"
        found.setdefault(name, []).append(program)
    return list(found.items())


def _program(program: Program) -> Node:
    words = [program.kind]
    if program.insns is not None:
        words.append(f"{program.insns} insns")
    if program.error:
        words = [f"refused: {program.error}"]
    elif program.id is not None:
        words.append(f"id {program.id}")
    return Node(
        program.anchor,
        program.name,
        " · ".join(word for word in words if word),
        f"#{program.anchor}",
        "prog refused" if program.error else "prog",
    )


def _maps(
    report: Report, programs: dict[str, Node]
) -> tuple[list[Node], list[tuple[Node, Node]]]:
    nodes: dict[int, Node] = {}
    for found in report.maps[:SHOWN]:
        about = f"{found.kind} · {found.sizes[0]}/{found.sizes[1]} B"
        if found.sizes[2]:
            about += f" × {found.sizes[2]}"
        nodes[found.thing] = Node(
            found.anchor, found.name or "(anonymous)", about, f"#{found.anchor}", "map"
        )
    edges = []
    for program in report.programs:
        node = programs.get(program.anchor)
        for number in program.maps if node is not None else ():
            used = nodes.get(number)
            if used is not None and node is not None:
                edges.append((used, node))
                used.near.append(node)
    return list(nodes.values()), edges


def _targets(
    report: Report, programs: dict[str, Node]
) -> tuple[list[Node], list[tuple[Node, Node, str]]]:
    nodes: dict[tuple[str, str], Node] = {}
    edges: dict[tuple[int, int], tuple[Node, Node, str]] = {}
    by_thing = {
        program.thing: programs[program.anchor]
        for program in report.programs
        if program.thing is not None and program.anchor in programs
    }
    for index, tie in enumerate(report.ties):
        prog = None if tie.prog is None else by_thing.get(tie.prog)
        if prog is None:
            continue
        gone = tie.verb == "detached"
        via = f"via {tie.via}" if tie.via not in ("", "link") else ""
        if tie.link is not None:
            link = report.page_objects[tie.link]
            via = link.anchor.replace("-", " id ", 1)
        key = (tie.target, via if not gone else "")
        node = next(
            (found for (target, _), found in nodes.items() if gone and target == tie.target),
            nodes.get(key),
        )
        if node is None:
            if len(nodes) >= SHOWN:
                continue
            node = nodes[key] = Node("", tie.target, via, f"#tie-{index + 1}", "target")
        node.near.append(prog)
        style = "gone" if gone else "on"
        if gone:
            node.style, node.about = "target gone", "detached again"
        elif tie.verb != "disabled":
            node.style = "target"
        edges[id(prog), id(node)] = (prog, node, style)
    return list(nodes.values()), list(edges.values())


def _place(nodes: list[Node]) -> float:
    """Beside what they belong to, in an order in which edges cross little; how far down."""
    for node in nodes:
        near = [other.y for other in node.near]
        node.wanted = sum(near) / len(near) if near else 1e9
    nodes.sort(key=lambda node: node.wanted)
    y = PAD
    # Those that nothing holds stand below the others.
    for node in nodes:
        node.y = max(y, node.wanted) if node.near else y
        y = node.y + ROW
    # What was pushed down may let those before it move up a little.
    below = float("inf")
    for node in reversed(nodes):
        if node.near and node.y > node.wanted:
            below = node.y
        node.y = min(node.y, below)
        below = node.y - ROW
    if nodes and nodes[0].y < PAD:
        up = PAD - nodes[0].y
        for node in nodes:
            node.y += up
    return max((node.y + ROW for node in nodes), default=0.0)


def _draw(node: Node, column: tuple[float, float]) -> Markup:
    x, width = column
    return element(
        "a",
        {"href": node.href, "class": f"node {node.style}", "data-key": node.key or None},
        element("title", {}, f"{node.title}\n{node.about}"),
        element("rect", {"x": x, "y": node.y, "width": width, "height": HEIGHT, "rx": 6}),
        element("text", {"class": "title", "x": x + 10, "y": node.y + 17}, _fit(node.title, width)),
        element("text", {"class": "about", "x": x + 10, "y": node.y + 32},
                _fit(node.about, width, SMALL)),
    )  # fmt: skip


def _edge(one: Node, x1: float, other: Node, x2: float, style: str) -> Markup:
    y1, y2 = one.y + HEIGHT / 2, other.y + HEIGHT / 2
    bend = (x2 - x1) / 2
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 5:g} {y2:g}"
    return element("path", {"class": f"edge {style}", "d": path, "marker-end": "url(#arrow)"})


def _arrow() -> Markup:
    return element(
        "defs",
        {},
        element(
            "marker",
            {"id": "arrow", "markerWidth": 7, "markerHeight": 8, "refX": 5, "refY": 4,
             "orient": "auto"},
            element("path", {"d": "M0 0.5L6 4L0 7.5z"}),
        ),
    )  # fmt: skip


def _more(number: int, column: tuple[float, float], y: float) -> Markup:
    return element("text", {"class": "about", "x": column[0], "y": y + 8}, f"and {number} more")


def _fit(text: str, width: float, character: float = CHARACTER) -> str:
    room = int((width - 16) / character)
    if len(text) <= room:
        return text
    # Names often differ in their ends only.
    tail = room // 3
    return f"{text[: room - tail - 1]}…{text[-tail:]}"


