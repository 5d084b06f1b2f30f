"""A plan as the Python that its stage runs, for `plan.explain("code")`.

Builds a stage for the client's records, and opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from loom.core.importable import qualified_name
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.registry import builder_of
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import Generated, generated
from loom.streaming.runtime.stages.decode import build_head
from loom.streaming.runtime.stages.stage import Stage

__all__ = ["as_code"]


def as_code(plan: CompiledPlan) -> str:
    """The loop over a batch, and the function of each node that is written into it, for records that leave the loop."""

    def log_drop(envelope: ErrorEnvelope[Any]) -> None:
        """Nothing is run, so nothing is dropped."""

    slots = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None).slots
    view, counts = CLIENT_RECORDS, Counts()
    stage = Stage(counts, slots.names, view)
    build = StageBuilder(builder_of, plan, slots, view, counts, stage, log_drop, ErrorLog())
    entry, inside, undecoded = build.build()
    head = generated(build_head(plan.source, view, entry, undecoded, inside))
    parts = [f"# flow {_plain(plan.name)}: "]
    if head is None:
        parts[0] += "each record is decoded by itself and handed to the first node"
    else:
        parts[0] += "the loop over one batch of records"
        parts += _shown(head)
    for node in walk_nodes(plan.nodes):
        function = generated(build.functions.get(node.path))
        if function is None:
            parts.append(f"\n# [{'.'.join(map(str, node.path))}] {_plain(node.step_id)}: not generated")
        else:
            parts.append(
                f"\n# [{'.'.join(map(str, node.path))}] {_plain(node.step_id)}: for a record that left the loop"
            )
            parts += _shown(function)
    return "\n".join(parts)


def _shown(made: Generated) -> Iterator[str]:
    for name, value in made.names.items():
        told = _told(value)
        if told is not None:
            yield f"# {name}: {told}"
    yield made.source


def _plain(name: str) -> str:
    """A name of the author's, on one line."""
    return repr(name)[1:-1]


def _told(value: Any) -> str | None:
    """The object of the author behind a name; a value may be a secret, so none is shown."""
    if isinstance(value, frozenset):
        return " | ".join(sorted(qualified_name(found) for found in value)) or "any"
    if isinstance(value, type) and not value.__module__.startswith("loom."):
        return qualified_name(value)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.startswith("loom.") or "<locals>" in name:
        return None
    owner = getattr(value, "__self__", None)
    if owner is None or isinstance(owner, type | ModuleType):
        return f"{module}.{name}"
    return f"{qualified_name(type(owner))}.{value.__name__}"
