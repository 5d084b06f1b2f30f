"""Commands of other packages: found by their names, and one that is broken says so and hides no other."""

from __future__ import annotations

import pytest

from loom.cli.exit_codes import Exit
from tests.cli.conftest import Loom


@pytest.fixture
def loom(loom: Loom) -> Loom:
    (loom.directory / "more.py").write_text(
        'def greet(name: str = "you", fail: bool = False) -> None:\n    """Say hello."""\n    print(f"hello {name}")\n'
        "import typer\nseveral = typer.Typer(help='Say things.')\n"
        "several.command('hello')(greet)\nseveral.command('again')(greet)\n"
    )
    return loom


def offer(loom: Loom, package: str, line: str) -> None:
    """Install a package that offers a command, as far as anybody can tell."""
    info = loom.directory / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[loom.cli.commands]\n{line}\n")


def test_a_command_of_a_package_is_called_by_its_name_and_listed(loom: Loom) -> None:
    offer(loom, "greetings", "greet-all = more:greet")
    told = loom("greet-all", "--name", "ann")
    assert (told.code, told.out) == (Exit.DONE, "hello ann\n")
    assert "Say hello." in loom("--help").out


def test_a_package_may_offer_a_command_with_commands_of_its_own(loom: Loom) -> None:
    offer(loom, "greetings", "say = more:several")
    assert loom("say", "hello", "--name", "ann").out == "hello ann\n"
    assert "again" in loom("say", "--help").out
    assert "Say things." in loom("--help").out


def test_a_broken_command_says_so_and_hides_no_other(loom: Loom) -> None:
    offer(loom, "greetings", "greet = nowhere:greet")
    told = loom("greet", "--name", "ann", "more")
    assert told.code == Exit.USAGE
    assert "the entry point greet = nowhere:greet of the package greetings" in told.messages[0]
    assert "Traceback" not in told.err
    listed = loom("--help")
    assert listed.code == Exit.DONE
    assert "check" in listed.out
    assert "greet" in listed.out


def test_a_command_of_our_own_is_not_replaced(loom: Loom) -> None:
    offer(loom, "greetings", "check = more:greet")
    assert "hello" not in loom("check").out


@pytest.mark.parametrize("name", ["nope", "no.pe", "__init__", "--nope"])
def test_what_is_no_command_is_refused_by_its_name(loom: Loom, name: str) -> None:
    told = loom(name)
    assert told.code == Exit.USAGE
    assert name in told.err
