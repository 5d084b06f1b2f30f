"""docs/troubleshooting.md lists messages by their text, so each text must be one that the source still writes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from loom.cli.exit_codes import Exit

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
