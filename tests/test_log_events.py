"""Log events are stable identifiers that people grep, and docs/operations.md lists every one of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from loom.streaming.kafka.topic_monitor import Change

ROOT = Path(__file__).resolve().parents[1]
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
#: events of the life cycle are made of a scope and a kind
_OBSERVER = "structlog_observer.py"
#: names that a call gives instead of a text
_NAMED = {"change.what.value": {change.value for change in Change}}


def _loggers(tree: ast.AST) -> set[str]:
    """How a module calls what `get_logger` gave it, and methods of it that it has taken aside."""
    found = {"get_logger(__name__)"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "get_logger(" in ast.unparse(node.value):
            found |= {ast.unparse(target) for target in node.targets}
    return found


def _events(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    loggers = _loggers(tree)
    methods = {f"{logger}.{level}" for logger in loggers for level in _LEVELS}
    values: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            texts = {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
            values.setdefault(name, set()).update(text for text in texts if isinstance(text, str))
            if {ast.unparse(part) for part in ast.walk(node.value)} & methods and isinstance(node.value, ast.IfExp):
                methods.add(name)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) in methods):
            continue
        event = node.args[0]
        if isinstance(event, ast.Constant):
            yield str(event.value)
        else:
            named = ast.unparse(event)
            yield from _NAMED.get(named) or values.get(named) or {f"{path.name}:{node.lineno}: {named}"}


@cache
def written() -> frozenset[str]:
    """Every event that a logger of Loom's own writes."""
    files = [path for path in (ROOT / "src").rglob("*.py") if path.name not in (_OBSERVER, "logger.py")]
    return frozenset(event for path in files for event in _events(path))


def test_every_event_is_an_identifier() -> None:
    assert {event for event in written() if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", event)} == set()


def test_the_page_lists_every_event_and_no_other() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("<!-- events: begin -->")[2].partition("<!-- events: end -->")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(set(listed)), "an event stands in the table twice"
    assert set(listed) == written()
