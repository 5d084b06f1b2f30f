"""What a member of a group cannot be combined with: refused before anything starts, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator

from loom.core.config import ConfigError, ConfigProblem
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.group_settings import INSTANCE_ID
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig, StreamingSection

__all__ = ["check_member_build", "check_member_run"]

_FIXED = "set kafka.consumer.membership: fixed, or remove it"


def check_member_run(
    plan: CompiledPlan,
    runtime: BytewaxRuntimeConfig,
    layout: Layout,
    section: StreamingSection | None,
    file: str | None = None,
) -> None:
    """Raise `ConfigError` for a run that cannot share its partitions with other members as the config says."""
    problems = list(_problems(plan, runtime, layout, section, file))
    if problems:
        raise ConfigError(problems)


def _problems(
    plan: CompiledPlan,
    runtime: BytewaxRuntimeConfig,
    layout: Layout,
    section: StreamingSection | None,
    file: str | None,
) -> Iterator[ConfigProblem]:
    if not plan.source.settings.shares_group:
        if os.environ.get(INSTANCE_ID):
            yield ConfigProblem(
                file, INSTANCE_ID, "names a member of a group, and membership is fixed", remedy="set membership: group"
            )
        return
    if runtime.recovery is not None:
        yield ConfigProblem(
            file,
            "streaming.runtime.recovery",
            "cannot be kept with membership: group: a store keeps what belongs to partitions, and another process may have "
            "them next time",
            remedy=_FIXED,
        )
    if layout.is_cluster or runtime.process_id is not None:
        yield ConfigProblem(
            file,
            "streaming.runtime.process_id",
            "and addresses belong to a fixed assignment; with membership: group the members share the partitions by themselves",
            remedy=_FIXED,
        )
    if section is not None and section.supervision.on_poison == "dead_letter":
        yield ConfigProblem(
            file,
            "streaming.supervision.on_poison",
            "dead_letter cannot be kept with membership: group: a record that has killed one member goes to another",
            remedy="set on_poison: fail, or membership: fixed",
        )


def check_member_build(plan: CompiledPlan, *, has_tracker: bool, by_snapshots: bool) -> None:
    """Raise `ValueError` for a dataflow that cannot share its partitions with other members."""
    if not plan.source.settings.shares_group:
        return
    if has_tracker:
        raise ValueError(
            "a commit_tracker cannot be kept with membership: group: the next owner of a partition begins at the group's "
            "offset. Set membership: fixed"
        )
    if by_snapshots:
        raise ValueError(
            "a FixedPartitionedSink that is resumed cannot be kept with membership: group: its state belongs to partitions "
            "that another process may have next time. Set membership: fixed"
        )
