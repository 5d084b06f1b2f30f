"""docs/troubleshooting.md lists messages by their text, so each text must be one that the source still writes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from loom.cli import exit_codes
from loom.cli.exit_codes import Exit
from loom.streaming.kafka import errors as kafka_errors
from loom.streaming.runtime import run_errors

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def _texts() -> list[str]:
    """All texts of the source, with `…` for what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _messages() -> list[str]:
    listed = re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)
    return [message.replace("\\|", "|") for message in listed]


def test_every_message_of_the_page_is_one_of_the_source() -> None:
    texts = _texts()
    assert len(_messages()) > 30
    assert [message for message in _messages() if not any(message in text for text in texts)] == []


def test_every_exit_code_is_on_the_page() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == set(Exit)


def _raised_with() -> list[tuple[str, str]]:
    """(name of the class, text) of every exception that the source makes with a text of its own."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                found += [(node.func.id, _text(argument)) for argument in node.args]
    return found


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def test_the_exit_code_of_a_message_is_that_of_the_error_it_belongs_to() -> None:
    classes = {**vars(kafka_errors), **vars(run_errors), **vars(exit_codes)}
    made = [(name, text) for name, text in _raised_with() if isinstance(classes.get(name), type)]
    wrong, checked = [], 0
    for message, code in re.findall(r"^\| `(.+?)` \| (\d) \|", PAGE, re.MULTILINE):
        for name, text in made:
            if message in text:
                checked += 1
                exit_code = exit_codes.exit_for(classes[name].__new__(classes[name]))
                if exit_code != int(code):
                    wrong.append(f"{message!r} is {name}, which ends with {int(exit_code)}, not {code}")
    assert wrong == []
    assert checked > 15
