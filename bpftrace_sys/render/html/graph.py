"""The picture of what hangs together: maps, programs by process, and where they are attached;
and the same as a list, for a window in which a picture has no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.render.html.connections import Connections, Node, connections
from bpftrace_sys.render.html.markup import Child, Markup, element, joined
from bpftrace_sys.render.html.parts import listed
from bpftrace_sys.render.html.records import Report

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


def graph(report: Report) -> Markup | None:
    """The picture and the list; None where there is no program."""
    if not report.programs:
        return None
    found = connections(report)
    return joined(_picture(found), _list(found))


# ------------------------------------------------------------ the picture


def _picture(found: Connections) -> Markup:
    boxes: list[tuple[str, float, float]] = []
    y = PAD
    for name, nodes in found.groups:
        top = y
        y += BOX
        for node in nodes:
            node.y = y
            y += ROW
        bottom = y - (ROW - HEIGHT) + PAD / 2
        boxes.append((name, top, bottom - top))
        y = bottom + 2 * PAD
    height = max(_place(found.maps), _place(found.targets), y - 2 * PAD) + PAD
    more = [
        _more(left_out, column, height)
        for left_out, column in ((found.programs_left, PROGRAMS), (found.maps_left, MAPS))
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
    for used in found.maps:
        parts += [_edge(used, MAPS[0] + MAPS[1], prog, PROGRAMS[0], "uses") for prog in used.near]
    for prog, target, style in found.edges:
        parts.append(_edge(prog, PROGRAMS[0] + PROGRAMS[1], target, TARGETS[0], style))
    programs = [node for _, nodes in found.groups for node in nodes]
    for column, drawn in ((MAPS, found.maps), (PROGRAMS, programs), (TARGETS, found.targets)):
        parts += [_draw(node, column) for node in drawn]
    parts += more
    # What no column fills on the left is not drawn.
    left = 0.0 if found.maps else PROGRAMS[0] - 2 * PAD - 2
    return element(
        "svg",
        {"class": "graph", "viewBox": f"{left:g} 0 {WIDTH:g} {height:g}", "role": "img",
         "aria-label": "programs, the maps that they use, and where they are attached"},
        *parts,
    )  # fmt: skip


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
    return max((node.y + HEIGHT for node in nodes), default=0.0)


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


# ------------------------------------------------------------ the list


def _list(found: Connections) -> Markup:
    """Each program with its maps and targets below it; maps that no program uses at the end."""
    maps = _near(found.maps)
    targets = _near(found.targets)
    lines: list[Child] = []
    for name, nodes in found.groups:
        lines.append(element("li", {"class": "process"}, name))
        for node in nodes:
            used = listed([_named(one) for one in maps.get(id(node), ())])
            lines.append(element(
                "li",
                {},
                _named(node),
                element("span", {"class": "about"}, f" {node.about}"),
                *(element("div", {}, "→ ", _named(one), element(
                    "span", {"class": "about"}, f" {one.about}"))
                  for one in targets.get(id(node), ())),
                element("div", {"class": "about"}, "uses ", *used) if used else None,
            ))  # fmt: skip
    if found.programs_left:
        lines.append(element("li", {"class": "process"}, f"and {found.programs_left} more"))
    unused = listed([_named(node) for node in found.maps if not node.near])
    if unused:
        lines.append(element("li", {"class": "process"}, "used by none of these: ", *unused))
    return element("ul", {"class": "outline"}, *lines)


def _near(nodes: Sequence[Node]) -> dict[int, list[Node]]:
    """Nodes by id() of the programs that they belong to."""
    found: dict[int, list[Node]] = {}
    for node in nodes:
        for prog in node.near:
            found.setdefault(id(prog), []).append(node)
    return found


def _named(node: Node) -> Markup:
    return element("a", {"href": node.href, "class": node.style}, node.title)
