"""A command of `loom`."""

from __future__ import annotations

from typing import Annotated

import typer

from loom.cli.options import Config, Debug, end_guarded
from loom.core.config import ConfigContext


def extras(
    config: Config, loud: Annotated[bool, typer.Option(help="in capitals")] = False, debug: Debug = False
) -> None:
    """Name the group of a config."""

    def work() -> None:
        group = ConfigContext.from_yaml(config).section("kafka.consumer.group_id", str)
        typer.echo(group.upper() if loud else group)

    end_guarded(work, debug)
