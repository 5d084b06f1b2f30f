"""docs/mistakes.md: the table in `tests/cli/mistakes.py` with what each command prints.

After a change of a message, the tests that compare write the page again when they are run with `LOOM_WRITE_MISTAKES=1`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from tests.cli.mistakes import BASE, CONFIG, FLOW, MISTAKES, Mistake

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mistakes.md"
#: where the reader of the page is said to be
HOME = "/home/me/shop"


def printed_on(page: str) -> dict[str, str]:
    """What the page says that each command prints, by title."""
    found = {}
    for section in page.split("\n### ")[1:]:
        transcript = re.search(r"^```console\n\$ [^\n]*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert transcript is not None, section
        found[section.split("\n", 1)[0]] = transcript[1]
    return found


def render(printed: Mapping[str, str]) -> str:
    """The page, with what the commands print."""
    parts = [_HEAD.format(flow=FLOW, config=CONFIG)]
    for group, mistakes in MISTAKES.items():
        parts.append(f"## {group}\n")
        parts += [_section(mistake, printed.get(mistake.title, "")) for mistake in mistakes]
    return "\n".join(parts)


def write(title: str, text: str) -> None:
    """Put what a command prints onto the page."""
    printed = printed_on(PAGE.read_text()) if PAGE.exists() else {}
    PAGE.write_text(render({**printed, title: text}))


def writes() -> bool:
    """Whether the page is to be written instead of compared."""
    return bool(os.environ.get("LOOM_WRITE_MISTAKES"))


def _section(mistake: Mistake, printed: str) -> str:
    parts = [f"### {mistake.title}\n"]
    files = mistake.files()
    if any(files[name] != BASE.get(name) for name in files):
        lines: list[str] = []
        for name, text in files.items():
            before = BASE.get(name, "").splitlines()
            found = list(difflib.unified_diff(before, text.splitlines(), n=0, lineterm=""))[2:]
            if found:
                lines += [f"# {name}", *(line for line in found if not line.startswith("@@"))]
        parts.append("```diff\n" + "\n".join(lines) + "\n```\n")
    parts.append(f"```console\n$ {mistake.command}\n{printed}```\n")
    said = f"Exit code {int(mistake.code)}."
    parts.append(f"{mistake.note} {said}\n" if mistake.note else f"{said}\n")
    return "\n".join(parts)


_HEAD = """\
# Typical mistakes

What `loom` prints when something is wrong: what was found, where, and what helps. Each mistake below is made in the
flow and the config that follow, and a test compares what is printed with this page. Lines of the log are left out;
what a step of yours raises is logged with its traceback. No mistake takes longer than ten seconds to be told, and no
message is a traceback; `--debug` shows them. Messages that come later in a flow's life are in
[troubleshooting](troubleshooting.md).

```python
{flow}```

```yaml
{config}```
"""
