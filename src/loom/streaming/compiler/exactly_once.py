"""What exactly-once needs and a flow or its run may not give: checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loom.streaming.compiler.catalogue import Code, CompilationError
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import (
    CompiledNode,
    CompiledProducer,
    CompiledSource,
    CompiledTopic,
    NodePath,
    StorageSink,
    walk_nodes,
)
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.group_settings import instance_name
from loom.streaming.kafka.settings import MEMBER_TRANSACTION_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS
from loom.streaming.nodes.scope import Ordering

__all__ = [
    "check_exactly_once",
    "check_exactly_once_run",
    "check_waits",
    "longest_wait_ms",
    "transaction_timeout_ms",
    "warn_unordered",
]

#: An epoch ends later than its interval by whatever one batch and the commit take, so a transaction gets this many.
_EPOCHS_PER_TIMEOUT = 4
#: of that time, a record may be kept for one part in so many
_WAITS_PER_TIMEOUT = 2


def check_exactly_once(
    source: CompiledSource,
    outputs: Iterable[CompiledTopic],
    storage: Mapping[NodePath, StorageSink],
    issues: Issues,
) -> None:
    """One transaction is one producer on one cluster: everything that is written must fit it, and the source too."""
    for path, sink in storage.items():
        issues.error(
            Code.DELIVERY_UNKEPT,
            f"exactly_once cannot be kept: the sink {type(sink.sink).__qualname__} is no topic and takes part in no transaction",
            path=path,
            remedy="write to a topic, or set delivery: at_least_once and let the sink overwrite what is repeated",
        )
    first: CompiledTopic | None = None
    for output in outputs:
        if output.producer.cluster != source.cluster:
            issues.error(
                Code.DELIVERY_UNKEPT,
                f"exactly_once cannot be kept: {output.name!r} is written to another cluster, or as another user, than the "
                "source is read from",
                where=output.where,
                path=output.path,
                remedy=f"give kafka.producers.{output.name} the brokers and security of the consumer, or set "
                "delivery: at_least_once",
            )
            continue
        first = first or output
        if output.producer != first.producer:
            issues.error(
                Code.DELIVERY_UNKEPT,
                f"exactly_once cannot be kept: the producers of {first.name!r} and {output.name!r} differ, and a "
                "transaction has one",
                where=output.where,
                path=output.path,
                expected="producers that differ in topic, format and headers only",
                remedy=f"move what kafka.producers.{output.name} sets to kafka.producer",
            )


def check_waits(
    source: CompiledSource, nodes: tuple[CompiledNode, ...], outputs: Iterable[CompiledTopic], issues: Issues
) -> None:
    """The results behind a record that waits are held back with it: that must not take longer than a transaction may."""
    first = next(iter(outputs), None)
    most = _timeout_ms(source, first.producer) / _WAITS_PER_TIMEOUT if first is not None else float("inf")
    for node in walk_nodes(nodes):
        longest = node.longest_wait_ms
        if longest is not None and longest > most:
            issues.error(
                Code.DELIVERY_UNKEPT,
                f"exactly_once cannot be kept: {node.step_id} may keep a record longer than a transaction may take",
                path=node.path,
                expected=f"waits of at most {most:g} ms together, half of transaction.timeout.ms",
                found=f"{longest:g} ms",
                remedy="lower attempts or wait_max_ms of its Retry, set its timeout_ms, or raise transaction.timeout.ms in "
                "kafka.producer.extra",
            )


def warn_unordered(nodes: Iterable[CompiledNode], issues: Issues) -> None:
    """Warn of scopes whose results would leave in any order: a transaction holds the position behind what it holds."""
    for node in nodes:
        if getattr(node, "ordering", None) is Ordering.NONE:
            issues.warn(
                Code.SCOPE_ORDERING,
                f"under exactly_once the results of {node.step_id} leave in the order of their records, whatever ordering says",
                path=node.path,
                remedy="leave ordering at its default, or set delivery: at_least_once",
            )


def check_exactly_once_run(plan: CompiledPlan, *, epoch_ms: int, foreign_sinks: bool) -> None:
    """Refuse a run that could not keep what the plan promises. Raises `CompilationError`."""
    issues = Issues()
    if foreign_sinks:
        issues.error(
            Code.DELIVERY_UNKEPT,
            "exactly_once cannot be kept: a sink that is no topic takes part in no transaction",
            where="config",
            remedy="remove error_sinks and streaming.sinks, or set delivery: at_least_once",
        )
    timeout_ms = transaction_timeout_ms(plan)
    if epoch_ms * _EPOCHS_PER_TIMEOUT > timeout_ms:
        issues.error(
            Code.DELIVERY_UNKEPT,
            "exactly_once cannot be kept: the broker would abort transactions as long as these epochs",
            where="config",
            expected=f"epoch_interval_ms of at most {timeout_ms // _EPOCHS_PER_TIMEOUT}, a quarter of transaction_timeout_ms",
            found=epoch_ms,
            remedy="shorten streaming.runtime.epoch_interval_ms, or raise kafka.producer.transaction_timeout_ms",
        )
    if issues.errors:
        raise CompilationError(plan.name, issues.errors)


def transaction_timeout_ms(plan: CompiledPlan) -> int:
    """After how long the broker aborts a transaction of this plan."""
    return _timeout_ms(plan.source, plan.producers[0])


def longest_wait_ms(plan: CompiledPlan) -> float:
    """How long a node of this plan may keep a record, whatever its policy says."""
    return transaction_timeout_ms(plan) / _WAITS_PER_TIMEOUT


def _timeout_ms(source: CompiledSource, producer: CompiledProducer) -> int:
    settings = source.settings
    is_dynamic = settings.shares_group and instance_name(settings.group_instance_id) is None
    default = MEMBER_TRANSACTION_TIMEOUT_MS if is_dynamic else TRANSACTION_TIMEOUT_MS
    return int(producer.properties.get("transaction.timeout.ms", default))
