"""Error kinds without a route, as a warning of the plan: by the compiler, and by code that adds sinks to a plan."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from loom.streaming.compiler.catalogue import Code, Issue
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.flow import Unrouted

__all__ = ["routed_to_sinks", "warn_unrouted"]


def warn_unrouted(routed: Iterable[ErrorKind], unrouted: Unrouted, issues: Issues) -> None:
    """Note the kinds that have no route, and what becomes of such a record."""
    there = frozenset(routed)
    kinds = [kind.value for kind in ErrorKind if kind not in there]
    if kinds:
        consequence = "stops the run" if unrouted == "fail" else "is dropped, counted and logged"
        issues.warn(
            Code.ERRORS_UNROUTED,
            f"no route for {', '.join(kinds)} errors: such a record {consequence}",
            where="errors",
            remedy=_remedy(kinds),
        )


def _remedy(kinds: list[str]) -> str:
    if len(kinds) == len(ErrorKind):
        return "give the flow errors=IntoTopic(…)"
    named = ", ".join(f"ErrorKind.{kind.upper()}" for kind in kinds)
    if len(kinds) == 1:
        return f"add a route for it: ErrorRoute({named}, IntoTopic(…))"
    return f"add a route for them: ErrorRoute([{named}], IntoTopic(…))"


def routed_to_sinks(plan: CompiledPlan, kinds: Iterable[ErrorKind]) -> CompiledPlan:
    """The plan with sinks for these kinds: a kind that has one is not unrouted."""
    routed = {kind for route in plan.error_routes for kind in route.kinds} | set(kinds)
    issues = Issues()
    warn_unrouted(routed, plan.unrouted, issues)
    still = iter(issues.warnings)
    warnings: list[Issue] = []
    for warning in plan.warnings:
        warnings += [warning] if warning.code is not Code.ERRORS_UNROUTED else still
    return replace(plan, warnings=tuple(warnings))
