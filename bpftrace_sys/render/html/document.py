"""The file around a page: policy, style sheet, script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

from bpftrace_sys.render.html.markup import Child, digest, element, joined, script, style


def read_part(name: str) -> str:
    """A style sheet or script of ours, as it stands in the package."""
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def document(title: str, kind: str, body: Sequence[Child], scripts: Sequence[str]) -> Iterator[str]:
    """The page around a body: policy, style sheet, script."""
    css = read_part("page.css")
    js = "".join(['"use strict";\n(() => {\n', *(read_part(name) for name in scripts), "})();\n"])
    policy = (
        f"default-src 'none'; style-src '{digest(css)}'; script-src '{digest(js)}'; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("meta", {"name": "generator", "content": "bpfstrace"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("title", {}, title),
        style(css),
    )
    yield f'<!doctype html>\n<html lang="en" class="{kind}">\n'
    yield head.text
    yield "\n<body>\n"
    for child in body:
        if child is not None:
            yield joined(child).text + "\n"
    yield script(js).text
    yield "\n</body>\n</html>\n"
