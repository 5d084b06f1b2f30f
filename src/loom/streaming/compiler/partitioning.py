"""Key policies of outputs, checked: a strategy is an object that names the key of each message at once."""

from __future__ import annotations

from typing import Any

from loom.core.expr import Expression
from loom.streaming.compiler.callables import is_async, is_generator
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import NodePath
from loom.streaming.nodes.boundary import IntoTopic, PartitionPolicy, PartitionStrategy

__all__ = ["check_policy"]


def check_policy(node: IntoTopic[Any], where: str, path: NodePath, issues: Issues) -> None:
    """Report a key policy that cannot choose a key for each message."""
    policy: Any = node.partitioning
    if where == "errors":
        issues.error(
            Code.NOT_SUPPORTED,
            f"IntoTopic({node.name!r}, partitioning=…) as an error route is not supported",
            where=where,
            path=path,
            remedy="remove partitioning=…: a dead letter keeps the key of the record that it was",
        )
    elif (
        not isinstance(policy, PartitionPolicy)
        or isinstance(policy.strategy, type | Expression)
        or not isinstance(policy.strategy, PartitionStrategy)
    ):
        issues.error(
            Code.NODE_UNKNOWN,
            f"IntoTopic({node.name!r}, partitioning=…) has no strategy with partition_key(message)",
            where=where,
            path=path,
            expected="PartitionPolicy(strategy, guarantee), the strategy an object with partition_key(message)",
            remedy="give an instance of a class that has partition_key(self, message) -> bytes | str | None",
        )
    elif is_async(policy.strategy.partition_key) or is_generator(policy.strategy.partition_key):
        issues.error(
            Code.STEP_SIGNATURE,
            f"IntoTopic({node.name!r}, partitioning=…): partition_key has to answer at once",
            where=where,
            path=path,
            remedy="make it a plain method that returns the key",
        )
