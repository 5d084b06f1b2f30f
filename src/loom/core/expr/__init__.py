"""Expressions over records, written with operators and compiled once to plain functions. They know nothing of streams.

Used by `loom.streaming.nodes.expressions`, which has the roots that an author writes; names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.core.expr.checking import ExpressionProblem, ProblemKind, check_expression
    from loom.core.expr.compiling import CompiledExpression, Reading, compile_expression
    from loom.core.expr.expression import Condition, Expression, PathExpression, root, same_expression, structure

__all__ = [
    "CompiledExpression",
    "Condition",
    "Expression",
    "ExpressionProblem",
    "PathExpression",
    "ProblemKind",
    "Reading",
    "check_expression",
    "compile_expression",
    "root",
    "same_expression",
    "structure",
]

__getattr__, __dir__ = lazy_exports(__name__)
