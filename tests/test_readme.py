"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_whole_flow_of_the_readme_compiles_with_its_config(tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(_block("python", "# orders.py"))
    (tmp_path / "config.yaml").write_text(_block("yaml", "# config.yaml"))

    checked = subprocess.run(
        [sys.executable, "-m", "loom.cli.main", "check", "orders:flow", "--config", "config.yaml"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "orders.validate (function): Order -> Order" in checked.stdout
    assert "orders.price (record): Order -> PricedOrder" in checked.stdout
    assert "delivery: at_least_once" in checked.stdout


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets


def _block(language: str, first_line: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(str(block) for block in blocks if str(block).startswith(first_line))
