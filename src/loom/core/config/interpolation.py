"""Why an interpolation failed, without repeating any text that may come from a resolver or a variable.

Called by `tree.py` with the exception that OmegaConf raised. Only names are taken over: of a variable, of a key,
of a resolver, of an exception class.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from omegaconf.errors import GrammarParseError, MissingMandatoryValue

from loom.core.config.keys import KeyPath, nearest, render
from loom.core.config.problems import ConfigProblem

__all__ = ["INTERPOLATIONS", "explain_failure"]

# OmegaConf tells these cases apart by text alone once they are wrapped in one another.
_UNSET = re.compile(r"Environment variable '([^']*)' not found")
_NO_KEY = re.compile(r"Interpolation key '([^']*)' not found")
_NO_RESOLVER = re.compile(r"Unsupported interpolation type (\S+)")
_CIRCLE = re.compile(r"Recursive interpolation|Interpolation to parent node")
_RAISED = re.compile(r"(\w+) raised while resolving interpolation")
_MISSING = re.compile(r"[Mm]issing mandatory value|to a missing node|MissingMandatoryValue")
_RESOLVER_USED = re.compile(r"\$\{\s*([\w.]+)\s*:")


#: what one may write
INTERPOLATIONS = r"write `${oc.env:NAME}` or `${oc.env:NAME,default}` for the environment, `\${` for a literal `${`"


def explain_failure(
    error: Exception, raw: str, path: KeyPath, file: str | None, sections: Iterable[str]
) -> ConfigProblem:
    """Describe a failed interpolation.

    Args:
        error: what OmegaConf raised.
        raw: the text that holds the interpolation; only the names of its resolvers are taken from it.
        path: where that text is.
        file: the file that contains it.
        sections: the names of the top-level sections, to suggest one.
    """
    text = str(error)
    key = render(path)
    if isinstance(error, GrammarParseError):
        return ConfigProblem(file, key, "not a valid interpolation", remedy=INTERPOLATIONS)
    if isinstance(error, MissingMandatoryValue) or _MISSING.search(text):
        return ConfigProblem(file, key, "marked as mandatory (`???`) and not given")
    if match := _UNSET.search(text):
        name = match[1]
        remedy = f"set it, or write a default: `${{oc.env:{name},default}}`"
        return ConfigProblem(file, key, f"the environment variable `{name}` is not set", remedy=remedy)
    if match := _NO_RESOLVER.search(text):
        name = match[1]
        remedy = "pass it in `resolvers` when the config is loaded"
        if name == "env":
            remedy = "an environment variable is written `${oc.env:NAME}`"
        elif _is_variable(name):
            remedy = f"the environment variable with a default is written `${{oc.env:{name},default}}`"
        return ConfigProblem(file, key, f"no resolver is called `{name}`", remedy=remedy)
    if match := _NO_KEY.search(text):
        target = match[1]
        first = target.partition(".")[0]
        close = None if first in sections else nearest(first, sections)
        hint = f"the environment variable is written `${{oc.env:{target}}}`" if _is_variable(target) else None
        return ConfigProblem(file, key, f"refers to `{target}`, which does not exist", nearest=close, remedy=hint)
    if _CIRCLE.search(text):
        return ConfigProblem(file, key, "refers to itself")
    used = ", ".join(f"`{name}`" for name in dict.fromkeys(_RESOLVER_USED.findall(raw)))
    raised = _RAISED.search(text)
    kind = raised[1] if raised else type(error).__name__
    return ConfigProblem(file, key, f"the resolver {used} failed with {kind}" if used else f"cannot resolve ({kind})")


def _is_variable(name: str) -> bool:
    """Whether a name is that of an environment variable, to judge by its form or because there is one."""
    return name.isidentifier() and (name.isupper() or name in os.environ)
