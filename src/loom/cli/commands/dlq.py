"""`loom dlq`: list, show, replay, export and purge dead letters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from loom.cli.dlq import GROUP_KEYS, Found, LetterFilter, LetterScene, group_of, moment, scene_of
from loom.cli.exit_codes import Exit, InputError
from loom.cli.letters import print_letter
from loom.cli.options import AsJson, Brokers, Debug, ProjectConfig, ProjectFlow, end, end_guarded
from loom.cli.program import guarded, log_to_stderr
from loom.cli.show import instant, print_json, print_json_line, print_table
from loom.core.counted import counted

__all__ = ["command"]

command = typer.Typer(
    help="List, show, replay, export and purge dead letters: those of Loom, of Kafka Streams and of Kafka Connect.",
    no_args_is_help=True,
)

Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", "-t", help="a topic of dead letters, instead of the flow's; may be repeated"),
]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="only this kind of error; may be repeated")]
Steps = Annotated[list[str] | None, typer.Option("--step", help="only errors of this step; may be repeated")]
Types = Annotated[
    list[str] | None, typer.Option("--type", help="only this exception, in full or its last part; may be repeated")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REGEX", help="only where the reason matches")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="only letters from then on")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="only letters before then")]
Partition = Annotated[int | None, typer.Option("--partition", "-p", min=0, help="only letters of this partition")]
Offset = Annotated[int | None, typer.Option("--offset", "-o", min=0, help="only letters at this offset")]
Execute = Annotated[bool, typer.Option("--execute", help="do it; without it only say what would be done")]


@command.command("list")
def list_letters(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    topic: Topics = None,
    by: Annotated[
        str, typer.Option("--by", metavar="KEYS", help=f"group by these, with commas: {', '.join(GROUP_KEYS)}")
    ] = "kind,step,type,reason",
    kind: Kinds = None,
    step: Steps = None,
    type: Types = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Count dead letters by kind, step, exception and reason, or by what you say, the most frequent first."""

    def work() -> None:
        log_to_stderr(debug)
        keys = [key.strip() for key in by.split(",")]
        if unknown := [key for key in keys if key not in GROUP_KEYS]:
            raise InputError(f"--by takes {', '.join(GROUP_KEYS)}, not {unknown[0]!r}")
        groups: dict[tuple[str, ...], list[int]] = {}
        scene = scene_of(flow, config, brokers, topic or [])
        for found in _letters(scene, _chosen(kind, step, type, reason, since, until)):
            time = found.letter.record.timestamp_ms or 0
            group = groups.setdefault(group_of(found.letter, keys), [0, 0, time, time])
            group[0] += 1
            group[1] += found.replayed
            group[2], group[3] = min(group[2], time), max(group[3], time)
        ordered = sorted(groups.items(), key=lambda item: (-item[1][0], item[0]))
        if as_json:
            print_json(
                [
                    {
                        **dict(zip(keys, group, strict=True)),
                        "letters": n,
                        "replayed": done,
                        "first": first,
                        "last": last,
                    }
                    for group, (n, done, first, last) in ordered
                ]
            )
            return
        rows = [(*group, n, done, instant(first), instant(last)) for group, (n, done, first, last) in ordered]
        width = len(keys)
        print_table((*keys, "letters", "replayed", "first", "last"), rows, right=(width, width + 1))
        total, done = (sum(counts[index] for counts in groups.values()) for index in (0, 1))
        typer.echo(f"{counted(total, 'dead letter')}, {total - done:,} of them not replayed")

    end_guarded(work, debug)


@command.command("show")
def show_letters(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    topic: Topics = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="how many")] = 1,
    kind: Kinds = None,
    step: Steps = None,
    type: Types = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    offset: Offset = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show dead letters: what failed where and why, the record as it was, and the step in the plan of the flow."""

    def work() -> None:
        log_to_stderr(debug)
        scene = scene_of(flow, config, brokers, topic or [])
        chosen = _chosen(kind, step, type, reason, since, until, partition, offset)
        shown = 0
        for found in _letters(scene, chosen):
            if as_json:
                print_json(scene.document(found))
            else:
                print_letter(found, scene.document(found), scene.plan)
            shown += 1
            if shown == count:
                return
        if not shown:
            raise InputError("there is no such dead letter")

    end_guarded(work, debug)


@command.command("replay")
def replay_letters(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    topic: Topics = None,
    into_step: Annotated[
        bool, typer.Option("--into-step", help="into the step that failed, so that earlier ones do not run again")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TOPIC", help="to this topic, instead of the record's own")
    ] = None,
    kind: Kinds = None,
    step: Steps = None,
    type: Types = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    offset: Offset = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="at most this many letters")] = None,
    max_failures: Annotated[
        int, typer.Option("--max-failures", min=1, help="leave letters that have failed more often (x-error-count)")
    ] = 5,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="at most this many letters a second")] = None,
    execute: Execute = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Replay dead letters: write each record to its topic again, once.

    Nothing is written without --execute. Records and the marks that they were replayed are one transaction, so a replay that is
    killed can be called again: it goes on with what is left.
    """

    def work() -> None:
        log_to_stderr(debug)
        from loom.cli.clusters import writing_settings
        from loom.cli.replay import ReplayOrder, plan_replay, run_replay
        from loom.streaming.kafka.log_reader import LogReader

        if into_step and to is not None:
            raise InputError(
                "--into-step and --to exclude each other: a step is one of the flow that reads the record's topic"
            )
        chosen = _chosen(kind, step, type, reason, since, until, partition, offset)
        order = ReplayOrder(chosen, into_step, to, max_failures, rate, limit)
        scene = scene_of(flow, config, brokers, topic or [])
        with LogReader(scene.settings) as reader:
            logs = reader.ranges(scene.partitions)
            scene.load_marks(reader)
            plan = plan_replay(scene, reader, order, logs)
            done = 0
            if execute and not plan.refused and plan.targets:
                done = run_replay(scene, reader, order, logs, writing_settings(config, brokers))
        document = {"targets": plan.targets, "staying": plan.staying, "refused": plan.refused, "replayed": done}
        if as_json:
            print_json(document)
        else:
            _print_replay(document, execute)
        refused.update(plan.refused)

    refused: dict[str, int] = {}
    end(guarded(work, debug) or (Exit.FAILED if refused else Exit.DONE))


def _print_replay(document: dict[str, Any], execute: bool) -> None:
    names = (("targets", "to"), ("staying", "stays:"), ("refused", "cannot be replayed:"))
    for key, text in names:
        for what, count in document[key].items():
            typer.echo(f"{count:,} {text} {what}")
    if document["refused"]:
        typer.echo("nothing was replayed: leave out what cannot be replayed with --kind, --step, --type or --reason")
    elif execute:
        typer.echo(f"{document['replayed']:,} replayed")
    else:
        typer.echo("nothing was replayed: add --execute to do it")


@command.command("export")
def export_letters(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    topic: Topics = None,
    kind: Kinds = None,
    step: Steps = None,
    type: Types = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="those that were replayed too")] = False,
    debug: Debug = False,
) -> None:
    """Print dead letters as JSON, one a line. `loom topics produce --records` writes the original records of such lines."""

    def work() -> None:
        log_to_stderr(debug)
        scene = scene_of(flow, config, brokers, topic or [])
        for found in _letters(scene, _chosen(kind, step, type, reason, since, until)):
            if replayed or not found.replayed:
                print_json_line(scene.document(found))

    end_guarded(work, debug)


@command.command("purge")
def purge_letters(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    topic: Topics = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIME", help="all letters that are older, replayed or not")
    ] = None,
    execute: Execute = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete dead letters from the beginning of their log: up to the first that was not replayed, or all before a time.

    A log can be cut at its beginning only. Nothing is deleted without --execute, and nothing brings a letter back.
    """

    def work() -> None:
        log_to_stderr(debug)
        from loom.cli.purge import plan_purge
        from loom.streaming.kafka.log_reader import LogReader
        from loom.streaming.kafka.topic_admin import TopicAdmin

        limit = moment(before, "--before")
        scene = scene_of(flow, config, brokers, topic or [])
        with LogReader(scene.settings) as reader:
            scene.load_marks(reader)
            cuts = plan_purge(scene, reader, limit)
        if execute:
            ends = {cut.partition: cut.offset for cut in cuts if cut.letters}
            if ends:
                TopicAdmin(scene.settings.to_confluent_config()).delete_before(ends)
        if as_json:
            print_json(
                [
                    {
                        "partition": str(cut.partition),
                        "before": cut.offset,
                        "letters": cut.letters,
                        "not_replayed": cut.lost,
                    }
                    for cut in cuts
                ]
            )
            return
        rows = [(cut.partition, cut.offset, cut.letters, cut.lost) for cut in cuts]
        print_table(("partition", "before offset", "letters", "not replayed"), rows, right=(1, 2, 3))
        typer.echo("deleted" if execute else "nothing was deleted: add --execute to do it")

    end_guarded(work, debug)


def _chosen(
    kind: list[str] | None,
    step: list[str] | None,
    type: list[str] | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    partition: int | None = None,
    offset: int | None = None,
) -> LetterFilter:
    if reason is not None:
        try:
            re.compile(reason)
        except re.error as error:
            raise InputError(f"--reason is no regular expression: {error}") from None
    return LetterFilter(
        tuple(kind or ()),
        tuple(step or ()),
        tuple(type or ()),
        reason,
        moment(since, "--since"),
        moment(until, "--until"),
        partition,
        offset,
    )


def _letters(scene: LetterScene, chosen: LetterFilter) -> Iterator[Found]:
    from loom.streaming.kafka.log_reader import LogReader

    with LogReader(scene.settings) as reader:
        scene.load_marks(reader)
        yield from scene.letters(reader, chosen, reader.ranges(scene.partitions))
