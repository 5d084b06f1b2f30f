"""What `loom topics` does: which topics a flow needs, and how those that are missing are created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loom.cli.exit_codes import InputError
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.client_properties import ClientProperties
from loom.streaming.kafka.topic_admin import TopicAdmin, TopicInfo, TopicRequest

__all__ = [
    "NeededTopic",
    "PlannedTopic",
    "create_planned",
    "described",
    "named_topics",
    "needed_topics",
    "plan_topics",
    "properties_of",
]

_LIMIT = "max.message.bytes"
#: what Kafka sets for a topic, and what a dead letter needs beyond its record
_DEFAULT_LIMIT = 1_048_588
_DEAD_LETTER_ROOM = 2048


class NeededTopic(LoomFrozenStruct):
    """A topic that a flow reads or writes, and what for."""

    name: str
    uses: tuple[str, ...]
    #: the client properties of its cluster
    cluster: ClientProperties
    #: it takes dead letters, which are larger than the records that they hold
    dead_letters: bool = False


class PlannedTopic(LoomFrozenStruct):
    """A topic that a flow needs, and what is to be done: it exists, or it is to be created as requested."""

    needed: NeededTopic
    existing: TopicInfo | None = None
    request: TopicRequest | None = None


def needed_topics(plan: CompiledPlan) -> list[NeededTopic]:
    """Every topic of a flow, each once, in the order in which a record passes them."""
    found: dict[tuple[int, str], NeededTopic] = {}

    def need(name: str, use: str, index: int, cluster: ClientProperties, dead_letters: bool) -> None:
        had = found.get((index, name))
        uses = (*(had.uses if had is not None else ()), use)
        kept = had is not None and had.dead_letters
        found[index, name] = NeededTopic(name, tuple(dict.fromkeys(uses)), cluster, dead_letters or kept)

    source = plan.source
    for name in source.topics:
        need(name, "source", source.cluster.index, source.cluster.properties, False)
    routes = {id(route.output): route for route in plan.error_routes}
    refused = {id(one.dlq) for one in plan.topics() if one.dlq is not None}
    for output in plan.topics():
        route = routes.get(id(output))
        if route is not None:
            use, dead = f"errors ({', '.join(kind.value for kind in route.kinds)})", True
        elif id(output) in refused:
            use, dead = "dlq", True
        else:
            use, dead = "output", False
        cluster = output.producer.cluster
        need(output.topic, use, cluster.index, cluster.properties, dead)
    return list(found.values())


def plan_topics(
    needed: Iterable[NeededTopic], *, partitions: int, replication: int, config: Mapping[str, str]
) -> list[PlannedTopic]:
    """What is missing, and how to create it; asks the clusters.

    A topic of dead letters takes records that are 2 kB larger than those of the source, so that each fits with its headers.
    """
    wanted = list(needed)
    existing: dict[int, Mapping[str, TopicInfo]] = {}
    for one in wanted:
        if id(one.cluster) not in existing:
            existing[id(one.cluster)] = TopicAdmin(one.cluster).topics()
    sources = [one for one in wanted if "source" in one.uses and one.name in existing[id(one.cluster)]]
    limits = [
        int(properties[_LIMIT])
        for one in sources
        for properties in TopicAdmin(one.cluster).configs([one.name], only_set=False).values()
        if _LIMIT in properties
    ]
    largest = max([*limits, int(config.get(_LIMIT, _DEFAULT_LIMIT))])
    planned = []
    for one in wanted:
        found = existing[id(one.cluster)].get(one.name)
        if found is not None:
            planned.append(PlannedTopic(one, existing=found))
            continue
        own = {**config, _LIMIT: str(largest + _DEAD_LETTER_ROOM)} if one.dead_letters else dict(config)
        planned.append(PlannedTopic(one, request=TopicRequest(one.name, partitions, replication, own)))
    return planned


def create_planned(planned: Iterable[PlannedTopic], *, dry_run: bool) -> None:
    """Create what is missing, all of it or an error; a dry run asks the clusters whether they would."""
    by_cluster: dict[int, tuple[ClientProperties, list[TopicRequest]]] = {}
    for one in planned:
        if one.request is not None:
            by_cluster.setdefault(id(one.needed.cluster), (one.needed.cluster, []))[1].append(one.request)
    for check in (True, False):
        if dry_run and not check:
            return
        for properties, requests in by_cluster.values():
            TopicAdmin(properties).create(requests, validate_only=check)


def properties_of(settings: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` of `--set` as properties of a topic.

    >>> properties_of(["cleanup.policy=compact", "retention.ms=-1"])
    {'cleanup.policy': 'compact', 'retention.ms': '-1'}
    """
    found = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator or not name.strip():
            raise InputError(f"--set takes NAME=VALUE, for example cleanup.policy=compact, not {setting!r}")
        found[name.strip()] = value.strip()
    return found


def described(planned: PlannedTopic) -> tuple[str, str, str, str, str]:
    """The row of a table: topic, use, state, partitions and replication, properties."""
    needed, request = planned.needed, planned.request
    if planned.existing is not None:
        size = f"{len(planned.existing.partitions)} x {planned.existing.replication}"
        return needed.name, ", ".join(needed.uses), "exists", size, ""
    assert request is not None
    size = " x ".join("default" if number < 0 else str(number) for number in (request.partitions, request.replication))
    properties = ", ".join(f"{name}={value}" for name, value in request.config.items())
    return needed.name, ", ".join(needed.uses), "missing", size, properties


def named_topics(names: Iterable[str], cluster: ClientProperties) -> list[NeededTopic]:
    """Topics that are named on the command line."""
    return [NeededTopic(name, ("named",), cluster) for name in dict.fromkeys(names)]
