"""What hangs together: programs by the process that loaded them, their maps, their targets."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.render.html.records import Program, Report
from decoders.records import NamedTuple, dataclass, field

SHOWN: Final = 48
"""Nodes of a kind."""


@dataclass(slots=True)
class Node:
    """A program, a map or a target: two lines, and where a click leads."""

    key: str
    title: str
    about: str
    href: str
    style: str
    near: list[Node] = field(default_factory=list)
    """Of a map and of a target: the programs that it belongs to."""
    wanted: float = 0.0
    y: float = 0.0
    """For the picture."""


class Edge(NamedTuple):
    """From a program to where it is, or was, attached."""

    prog: Node
    target: Node
    style: str


@dataclass(slots=True)
class Connections:
    """All that is shown of it, each kind in the order of the trace."""

    groups: list[tuple[str, list[Node]]] = field(default_factory=list)
    """Programs under the name of a process."""
    maps: list[Node] = field(default_factory=list)
    targets: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    programs_left: int = 0
    """That are not shown."""
    maps_left: int = 0


def connections(report: Report) -> Connections:
    """Up to SHOWN of each kind."""
    found = Connections()
    programs: dict[str, Node] = {}
    for name, group in _by_process(report):
        nodes = [_program(program) for program in group[: SHOWN - len(programs)]]
        found.programs_left += len(group) - len(nodes)
        if nodes:
            found.groups.append((name, nodes))
            programs.update((node.key, node) for node in nodes)
    found.maps = _maps(report, programs)
    found.maps_left = max(0, len(report.maps) - SHOWN)
    found.targets, found.edges = _targets(report, programs)
    return found


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


def _maps(report: Report, programs: dict[str, Node]) -> list[Node]:
    nodes: dict[int, Node] = {}
    for found in report.maps[:SHOWN]:
        about = f"{found.kind} · {found.sizes[0]}/{found.sizes[1]} B"
        if found.sizes[2]:
            about += f" × {found.sizes[2]}"
        nodes[found.thing] = Node(
            found.anchor, found.name or "(anonymous)", about, f"#{found.anchor}", "map"
        )
    for program in report.programs:
        node = programs.get(program.anchor)
        for number in program.maps if node is not None else ():
            used = nodes.get(number)
            if used is not None and node is not None:
                used.near.append(node)
    return list(nodes.values())


def _targets(report: Report, programs: dict[str, Node]) -> tuple[list[Node], list[Edge]]:
    nodes: dict[tuple[str, str], Node] = {}
    edges: dict[tuple[int, int], Edge] = {}
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
        if prog not in node.near:
            node.near.append(prog)
        style = "gone" if gone else "on"
        if gone:
            node.style, node.about = "target gone", "detached again"
        elif tie.verb != "disabled":
            node.style = "target"
        edges[id(prog), id(node)] = Edge(prog, node, style)
    return list(nodes.values()), list(edges.values())
