"""`loom topics`: list, describe and create topics, look at their records, and write some."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from loom.cli.clusters import reading_settings, writing_settings
from loom.cli.decoders import decoder_for, encoder_for
from loom.cli.exit_codes import InputError
from loom.cli.load_flow import load_flow
from loom.cli.options import AsJson, Brokers, Debug, ProjectConfig, end_guarded
from loom.cli.program import log_to_stderr
from loom.cli.project import project_config
from loom.cli.record_lines import LineReader, input_lines
from loom.cli.records import record_document, record_line
from loom.cli.show import print_json, print_json_line, print_table
from loom.cli.topics import create_planned, described, named_topics, needed_topics, plan_topics, properties_of
from loom.core.config import ConfigContext
from loom.core.counted import counted
from loom.streaming.compiler.compile import compile_flow
from loom.streaming.record import KafkaRecord, TopicPartition

__all__ = ["command"]

command = typer.Typer(
    help="List, describe and create topics, look at their records, and write some.", no_args_is_help=True
)

DecodeAs = Annotated[
    str | None,
    typer.Option("--flow", metavar="MODULE:FLOW", help="decode as this flow does; by default as the project's does"),
]
Raw = Annotated[bool, typer.Option("--raw", help="decode as what the bytes look like, whatever the flow says")]


@command.command("list")
def list_topics(
    config: ProjectConfig = None,
    brokers: Brokers = None,
    internal: Annotated[bool, typer.Option("--internal", help="the broker's own topics too")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the topics of a cluster."""

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.topic_admin import TopicAdmin

        admin = TopicAdmin(reading_settings(config, brokers).to_confluent_config())
        found = [topic for topic in admin.topics().values() if internal or not topic.internal]
        if as_json:
            print_json(
                [{"topic": t.name, "partitions": len(t.partitions), "replication": t.replication} for t in found]
            )
        else:
            rows = [(topic.name, len(topic.partitions), topic.replication) for topic in found]
            print_table(("topic", "partitions", "replication"), rows, right=(1, 2))

    end_guarded(work, debug)


@command.command("describe")
def describe_topics(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="their names")],
    config: ProjectConfig = None,
    brokers: Brokers = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the partitions of topics, how many offsets each holds, and the properties that were set."""

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.log_reader import LogReader
        from loom.streaming.kafka.topic_admin import TopicAdmin

        settings = reading_settings(config, brokers)
        admin = TopicAdmin(settings.to_confluent_config())
        found = admin.existing(topics)
        properties = admin.configs(found)
        with LogReader(settings) as reader:
            logs = reader.ranges(TopicPartition(t.name, p.number) for t in found.values() for p in t.partitions)
        documents = [
            {
                "topic": topic.name,
                "config": properties[topic.name],
                "partitions": [
                    {
                        "partition": one.number,
                        "leader": one.leader,
                        "replicas": one.replicas,
                        "in_sync": one.in_sync,
                        "begin": logs[TopicPartition(topic.name, one.number)].low,
                        "end": logs[TopicPartition(topic.name, one.number)].high,
                    }
                    for one in topic.partitions
                ],
            }
            for topic in found.values()
        ]
        if as_json:
            print_json(documents)
            return
        for document in documents:
            _print_description(document)

    end_guarded(work, debug)


def _print_description(document: dict[str, Any]) -> None:
    typer.echo(document["topic"])
    for name, value in document["config"].items():
        typer.echo(f"  {name}={value}")
    columns = ("partition", "leader", "replicas", "in sync", "begin", "end", "offsets")
    rows = [
        (
            one["partition"],
            one["leader"],
            ",".join(map(str, one["replicas"])),
            ",".join(map(str, one["in_sync"])),
            one["begin"],
            one["end"],
            one["end"] - one["begin"],
        )
        for one in document["partitions"]
    ]
    print_table(columns, rows, right=(0, 1, 4, 5, 6))


@command.command("create")
def create_topics(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE:FLOW | TOPIC...]", help="a flow, or names; by default the project's flow"),
    ] = None,
    config: ProjectConfig = None,
    brokers: Brokers = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="partitions of each; by default what the broker says")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="copies of each; by default what the broker says")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a property of each topic; may be repeated")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would be created, and ask the broker")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Create the topics that a flow needs and that are missing. Those that exist stay as they are.

    Topics of dead letters take records that are 2 kB larger than those of the source, so that each dead letter fits.
    """

    def work() -> None:
        log_to_stderr(debug)
        names = what or []
        if brokers is not None or (names and not any(":" in name for name in names)):
            if not names:
                raise InputError("--brokers needs the names of topics: a flow says where its topics are in its config")
            from loom.streaming.kafka.client_properties import ClientProperties

            cluster = ClientProperties(reading_settings(config, brokers).to_confluent_config())
            needed = named_topics(names, cluster)
        elif len(names) > 1:
            raise InputError("write one MODULE:FLOW, or names of topics, not both")
        else:
            from loom.cli.project import project_flow

            flow = load_flow(project_flow(names[0] if names else None))
            needed = needed_topics(compile_flow(flow, config=ConfigContext.from_yaml(project_config(config))))
        planned = plan_topics(
            needed, partitions=partitions or -1, replication=replication or -1, config=properties_of(settings or [])
        )
        create_planned(planned, dry_run=dry_run)
        done = "would be created" if dry_run else "created"
        rows = [(*row[:2], done if row[2] == "missing" else row[2], *row[3:]) for row in map(described, planned)]
        if as_json:
            keys = ("topic", "uses", "state", "partitions x replication", "config")
            print_json([dict(zip(keys, row, strict=True)) for row in rows])
        else:
            print_table(("topic", "use", "state", "partitions x copies", "properties"), rows)

    end_guarded(work, debug)


@command.command("tail")
def tail_topic(
    topic: Annotated[str, typer.Argument(help="its name")],
    config: ProjectConfig = None,
    brokers: Brokers = None,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, help="how many of the last offsets of each partition")
    ] = 10,
    whole: Annotated[bool, typer.Option("--all", help="from the beginning of the log")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what is written, until Ctrl+C")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="show the headers too")] = False,
    flow: DecodeAs = None,
    raw: Raw = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the last records of a topic, decoded as the flow decodes them. With --json, one line of JSON for each."""

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.log_reader import LogReader
        from loom.streaming.kafka.topic_admin import TopicAdmin

        settings = reading_settings(config, brokers)
        found = TopicAdmin(settings.to_confluent_config()).existing([topic])[topic]
        decode = decoder_for(topic, flow, config, raw=raw or brokers is not None)
        with LogReader(settings) as reader:
            logs = reader.ranges(TopicPartition(topic, one.number) for one in found.partitions)
            start = {p: log.low if whole else max(log.low, log.high - last) for p, log in logs.items()}
            ends = {partition: log.high for partition, log in logs.items()}
            records: Iterator[KafkaRecord] = (
                iter(sorted(reader.read(start, ends), key=_by_time)) if not whole else iter(())
            )
            if whole:
                records = reader.read(start, ends)
            if follow:
                records = itertools.chain(records, reader.follow(ends, lambda: True))
            for record in records:
                shown = decode(record)
                if as_json:
                    print_json_line(record_document(record, shown))
                else:
                    typer.echo(record_line(record, shown, headers=headers))

    end_guarded(work, debug)


def _by_time(record: KafkaRecord) -> tuple[int, int, int]:
    return record.timestamp_ms or 0, record.partition or 0, record.offset or 0


@command.command("produce")
def produce_records(
    topic: Annotated[str, typer.Argument(help="its name")],
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="JSONL, CSV with a header line, or Parquet; - is standard input")
    ] = "-",
    config: ProjectConfig = None,
    brokers: Brokers = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD", help="the field that becomes the record key")
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="each line is a whole record, as `tail --json` and `dlq export` print it")
    ] = False,
    flow: DecodeAs = None,
    raw: Annotated[bool, typer.Option("--raw", help="write each line as it is, whatever type the flow reads")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the lines of a file to a topic. Lines that do not fit the type that the flow reads are refused before any is written.

    From standard input each line is written as it comes.
    """

    def work() -> None:
        log_to_stderr(debug)
        from loom.streaming.kafka.clients import KafkaProducer
        from loom.streaming.kafka.topic_admin import TopicAdmin

        settings = writing_settings(config, brokers)
        TopicAdmin(settings.to_confluent_config()).existing([topic])
        lines = LineReader(topic, key=key, whole=records)
        make = encoder_for(lines, topic, flow, config, raw=raw or records or brokers is not None)
        if file != "-":
            for line in input_lines(file):
                make(line)
        written = 0
        with KafkaProducer(settings, topic, dict) as producer:
            try:
                for line in input_lines(file):
                    producer.send_record(make(line))
                    written += 1
            except InputError as error:
                producer.flush()
                raise InputError(f"{error}. {_before_it(written)}") from None
        if as_json:
            print_json({"topic": topic, "written": written})
        else:
            typer.echo(f"{counted(written, 'record')} written to {topic}")

    end_guarded(work, debug)


def _before_it(written: int) -> str:
    return (
        "The record before it was written" if written == 1 else f"{counted(written, 'record')} before it were written"
    )
