"""The `loom` command line: finds a command by its name and loads it when it is called.

The commands of Loom itself are the files in `loom.cli.commands`. Any other name is looked up among the entry points of the
group of that name, each of which names a function with `typer` annotations, or a `typer.Typer` with commands of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loom.cli.exit_codes import Exit
from loom.cli.versions import version_line, versions
from loom.core.config.keys import nearest
from loom.core.entry_points import EntryPointError, offer_of, offers

__all__ = ["COMMANDS", "app"]

#: the package that holds our commands, and the group of entry points under which other packages offer theirs
COMMANDS = "loom.cli.commands"


class _Commands(TyperGroup):
    """The commands. Each is loaded only when it is called or listed by `--help`."""

    # From some version on, typer has its own copies of the click classes in these signatures, hence `Any`.
    def list_commands(self, ctx: Any) -> list[str]:
        installed = {offer.name for offer in offers(COMMANDS)}
        return sorted(_built_in() | installed)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _built_in():
            return _command(cmd_name, import_module(f"{COMMANDS}.{cmd_name}").command)
        try:
            offer = offer_of(COMMANDS, cmd_name)
            if offer is not None:
                return _command(cmd_name, offer.load())
        except EntryPointError as error:
            return _broken(cmd_name, str(error))
        near = nearest(cmd_name, self.list_commands(ctx))
        hint = f"did you mean `loom {near}`?" if near is not None else "`loom --help` lists them"
        return _broken(cmd_name, f"there is no command {cmd_name!r}; {hint}")


def _built_in() -> set[str]:
    return {module.name for module in iter_modules(import_module(COMMANDS).__path__)}


def _command(name: str, command: Callable[..., Any] | typer.Typer, **options: Any) -> Any:
    if isinstance(command, typer.Typer):
        group = typer.main.get_group(command)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, **options)(command)
    return typer.main.get_command(alone)


def _broken(name: str, problem: str) -> Any:
    """A command that only says why it cannot be called, so that the others can be listed beside it."""

    def call() -> None:
        typer.echo(f"loom: {problem}", err=True)
        raise typer.Exit(Exit.USAGE)

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return _command(name, call, help=problem, context_settings=anything)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version_line(versions()))
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Typed stream processors: declared, checked, then run."""
