"""`loom offsets`: where a consumer group is, and moving it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from loom.cli.exit_codes import InputError
from loom.cli.offsets import GroupScene, parse_target, scene_of
from loom.cli.options import AsJson, Brokers, Debug, ProjectConfig, ProjectFlow, end_guarded
from loom.cli.program import log_to_stderr
from loom.cli.show import duration, print_json, print_table
from loom.core.counted import counted
from loom.streaming.kafka.errors import SecondInstanceError

__all__ = ["command"]

command = typer.Typer(help="Show where a consumer group is, and move it.", no_args_is_help=True)

Group = Annotated[str | None, typer.Option("--group", "-g", help="a group, instead of the flow's")]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", "-t", help="a topic, instead of those that the flow reads; may be repeated"),
]


@command.command("show")
def show_offsets(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    group: Group = None,
    topic: Topics = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the group's offset in each partition, its lag in offsets and in time, and which run committed it.

    The lag in time is the age of the first record that the group has not read.
    """

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.group_positions import group_positions
        from loom.streaming.kafka.log_reader import LogReader
        from loom.streaming.kafka.offset_metadata import OffsetMetadata

        scene = scene_of(flow, config, brokers, group, topic or [])
        with LogReader(scene.settings) as reader:
            positions = group_positions(reader, scene.partitions())
        members, now = scene.members(), int(time.time() * 1000)
        documents = []
        for one in positions:
            metadata = OffsetMetadata.parse(one.committed.metadata) if one.committed is not None else OffsetMetadata()
            documents.append(
                {
                    "topic": one.partition.topic,
                    "partition": one.partition.partition,
                    "offset": one.committed.offset if one.committed is not None else None,
                    "begin": one.log.low,
                    "end": one.log.high,
                    "lag": one.lag,
                    "lag_ms": one.lag_ms(now),
                    "flow": metadata.flow,
                    "run": metadata.run,
                }
            )
        if as_json:
            print_json({"group": scene.settings.group_id, "members": members, "partitions": documents})
        else:
            _print_positions(scene, members, documents)

    end_guarded(work, debug)


def _print_positions(scene: GroupScene, members: tuple[str, ...], documents: list[dict[str, Any]]) -> None:
    typer.echo(f"group {scene.settings.group_id}, members: {', '.join(members) or 'none'}")
    rows = [
        (
            f"{one['topic']}[{one['partition']}]",
            one["offset"],
            one["begin"],
            one["end"],
            one["lag"],
            duration(one["lag_ms"]),
            one["flow"],
            one["run"],
        )
        for one in documents
    ]
    print_table(
        ("partition", "offset", "begin", "end", "lag", "lag in time", "flow", "run"), rows, right=(1, 2, 3, 4, 5)
    )
    total = sum(one["lag"] or 0 for one in documents)
    slowest = max((one["lag_ms"] or 0 for one in documents), default=0)
    typer.echo(f"lag {counted(total, 'offset')}, {duration(slowest)}")


@command.command("reset")
def reset_offsets(
    flow: ProjectFlow = None,
    to: Annotated[
        str, typer.Option("--to", metavar="earliest|latest|OFFSET|TIME", help="TIME as 2026-01-31T12:00:00Z or a date")
    ] = "",
    config: ProjectConfig = None,
    brokers: Brokers = None,
    group: Group = None,
    topic: Topics = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", min=0, help="only this partition; may be repeated")
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="do it; without it only say what would be done")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Move a group: to the beginning or the end of the log, an offset, or the first record of a time.

    Nothing is changed without --execute. Stop the flow first: it is refused while consumers are subscribed with the group, and
    a run that reads by a fixed assignment ends with exit code 8 at its next commit.
    """

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.group_positions import group_positions, metadata_after_reset, offsets_after_reset
        from loom.streaming.kafka.log_reader import LogReader

        target = parse_target(to)
        scene = scene_of(flow, config, brokers, group, topic or [])
        members = scene.members()
        if members:
            raise SecondInstanceError(
                f"consumers are subscribed with the group {scene.settings.group_id!r}: {', '.join(members)}. Stop them first. "
                "A consumer that was killed stays a member until its session times out (45 s by default). Nothing was changed"
            )
        everything = scene.partitions()
        chosen = [one for one in everything if not partition or one.partition in partition]
        if not chosen:
            raise InputError(f"no topic has a partition {', '.join(map(str, partition or []))}")
        with LogReader(scene.settings) as reader:
            positions = group_positions(reader, chosen)
            offsets = offsets_after_reset(reader, positions, target)
            if execute:
                texts = metadata_after_reset(reader.committed(everything), chosen, scene.numbers, scene.flow)
                reader.commit({one: (offsets[one], texts[one]) for one in chosen})
        documents = [
            {
                "topic": one.partition.topic,
                "partition": one.partition.partition,
                "from": one.committed.offset if one.committed is not None else None,
                "to": offsets[one.partition],
                "read_again": max((one.committed.offset if one.committed else 0) - offsets[one.partition], 0),
                "skipped": max(offsets[one.partition] - (one.committed.offset if one.committed else one.log.low), 0),
            }
            for one in positions
        ]
        if as_json:
            print_json({"group": scene.settings.group_id, "executed": execute, "partitions": documents})
            return
        rows = [
            (f"{one['topic']}[{one['partition']}]", one["from"], one["to"], one["read_again"], one["skipped"])
            for one in documents
        ]
        print_table(("partition", "from", "to", "read again", "skipped"), rows, right=(1, 2, 3, 4))
        typer.echo("done" if execute else "nothing was changed: add --execute to do it")

    end_guarded(work, debug)
