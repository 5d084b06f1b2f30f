"""`loom top`: watch flows that run, in a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from loom.cli.options import AsJson, Debug, ProjectConfig, end_guarded

__all__ = ["command"]


def command(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE:FLOW|URL]...",
            help="the flow, whose config names the port, or addresses (http://127.0.0.1:9100); by default the project's flow",
            show_default=False,
        ),
    ] = None,
    config: ProjectConfig = None,
    once: Annotated[
        bool, typer.Option("--once", help="print it once and end, as when the output is no terminal")
    ] = False,
    as_json: AsJson = False,
    interval: Annotated[float, typer.Option("--interval", "-i", min=0.5, help="seconds between two looks")] = 1.0,
    debug: Debug = False,
) -> None:
    """Watch a flow that runs: its graph with rates, lag, latency, errors and kept records for each node, and the last errors.

    It asks the endpoint that serves the metrics (observability.prometheus). Of a flow with several processes all are asked and
    shown joined; so are several addresses. Ends with exit code 5 where nothing answers, or something else than a flow.
    """

    def work() -> None:
        # Only this command needs them.
        from loom.cli.live_endpoint import endpoints_of
        from loom.cli.live_top import print_once, watch
        from loom.cli.show import print_json

        endpoints = endpoints_of(target or [], config)
        if as_json:
            print_json(endpoints.ask().documents)
        elif once:
            print_once(endpoints)
        else:
            watch(endpoints, interval)

    end_guarded(work, debug)
