"""From what an author wrote to something that can be called: a class, an instance, a function or a config binding."""

from __future__ import annotations

import inspect
from typing import Any

from loom.core.config import ConfigBinding, ConfigContext, ConfigError, ConfigProblem
from loom.core.config.refusal import raised_by_user_code
from loom.core.expr import Expression
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import BoundStep
from loom.streaming.nodes.step import Step, StepFunction

__all__ = ["bind_step", "code_of_problem", "required_arguments"]


def bind_step(node: Any, config: ConfigContext, issues: Issues, path: tuple[int, ...]) -> BoundStep | None:
    """Make the one instance that serves the plan; what is wrong with its arguments becomes an issue."""
    if isinstance(node, StepFunction):
        if isinstance(node.function, Expression) or not callable(node.function):
            issues.error(
                Code.NODE_UNKNOWN,
                f"{node.function!r}, which @step was given, is no function",
                path=path,
                remedy="decorate a function of the payload with @step",
            )
            return None
        return BoundStep(node.function, {}, node.function)
    if isinstance(node, Step):
        return BoundStep(node, {}, node)
    target = node.target if isinstance(node, ConfigBinding) else node
    named = getattr(target, "__qualname__", repr(target))
    if not (isinstance(target, type) and issubclass(target, Step)):
        issues.error(
            Code.NODE_UNKNOWN,
            f"{named}, the target of a binding, is no step class",
            path=path,
            expected="a subclass of RecordStep, ExpandStep or BatchStep",
            remedy=f"let {named} inherit from one of them",
        )
        return None
    arguments: dict[str, Any] = {}
    if isinstance(node, ConfigBinding):
        try:
            arguments = config.arguments(node)
        except ConfigError as error:
            for problem in error.problems:
                code = code_of_problem(problem, node, config)
                issues.config(code, ConfigError([problem]), subject=named, where="process", path=path)
            return None
    elif missing := required_arguments(target):
        issues.error(
            Code.STEP_ARGUMENTS,
            f"{named} cannot be made without arguments",
            path=path,
            expected=f"values for {', '.join(missing)}",
            remedy=f'name a section, {named}.from_config("…"), or give an instance, {named}(…)',
        )
        return None
    try:
        return BoundStep(target, arguments, target(**arguments))
    except Exception as error:  # noqa: BLE001  an author's constructor may raise anything, and may quote a secret
        said = raised_by_user_code(error, str(error), arguments)
    from_section = isinstance(node, ConfigBinding) and bool(node.config_path)
    issues.error(
        Code.CONFIG_INVALID if from_section else Code.STEP_ARGUMENTS,
        f"{named}() failed: {said}",
        path=path,
        remedy=f"fix the arguments, or {named}.__init__",
    )
    return None


def code_of_problem(problem: ConfigProblem, node: ConfigBinding[Any], config: ConfigContext) -> Code:
    """Whether a problem lies in the config, or in what the declaration itself says."""
    if _is_missing(config, node.config_path):
        return Code.CONFIG_MISSING
    key = problem.key.removeprefix(f"{node.config_path}.")
    of_declaration = not node.config_path or any(
        key == name or key.startswith((f"{name}.", f"{name}[")) for name in node.overrides
    )
    return Code.STEP_ARGUMENTS if of_declaration else Code.CONFIG_INVALID


def _is_missing(config: ConfigContext, section: str) -> bool:
    try:
        return bool(section) and not config.has(section)
    except ConfigError:  # it is there, and broken
        return False


def required_arguments(target: type) -> list[str]:
    """The arguments without which a class cannot be made."""
    if target.__init__ is object.__init__:  # type: ignore[misc]
        return []
    parameters = list(inspect.signature(target.__init__).parameters.values())[1:]  # type: ignore[misc]
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
