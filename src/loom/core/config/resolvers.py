"""A user's own `${name:...}` interpolations, each seen only by the contexts that were given it.

Used by `tree.py` while it resolves. OmegaConf keeps one registry per process, so what is registered there is a
dispatcher that looks up the resolver of the context at work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from loom.core.model import LoomFrozenStruct

__all__ = ["ConfigResolver", "index_resolvers", "resolving_with"]


class ConfigResolver(LoomFrozenStruct):
    """An interpolation of one's own: `${name:a,b}` in the configuration calls `callable("a", "b")`.

    A resolver belongs to the contexts it is given to; two contexts may use one name for different callables, in any
    order and from several threads. The name itself is taken in OmegaConf's process-wide registry: a resolver that was
    registered there directly under the same name is replaced.

    >>> from loom.core.config import ConfigContext
    >>> upper = ConfigResolver("upper", str.upper)
    >>> ConfigContext.from_dict({"a": {"b": "${upper:eur}"}}, resolvers=[upper]).raw("a.b")
    'EUR'

    Args:
        name: the text before the colon; `oc.` names are OmegaConf's own and refused.
        callable: called with the arguments as OmegaConf parsed them, each time a value is resolved.
    """

    name: str
    callable: Callable[..., Any]


_active: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("loom_config_resolvers")


def index_resolvers(resolvers: Iterable[ConfigResolver]) -> dict[str, Callable[..., Any]]:
    """Make each name known to OmegaConf, and return the callables by name.

    Raises:
        TypeError: when one is no `ConfigResolver`.
        ValueError: when a name is empty, is OmegaConf's own, or appears twice.
    """
    index: dict[str, Callable[..., Any]] = {}
    given: Iterable[object] = resolvers
    for resolver in given:
        if not isinstance(resolver, ConfigResolver):
            raise TypeError(f"resolvers takes ConfigResolver(name, callable), not {resolver!r}")
        if not resolver.name or resolver.name.startswith("oc."):
            raise ValueError(f"a config resolver cannot be called {resolver.name!r}")
        if resolver.name in index:
            raise ValueError(f"the config resolver {resolver.name!r} is given twice")
        index[resolver.name] = resolver.callable
        _register_dispatcher(resolver.name)
    return index


@contextmanager
def resolving_with(index: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Within this block, in this thread, the dispatchers call these resolvers."""
    token = _active.set(index)
    try:
        yield
    finally:
        _active.reset(token)


def _register_dispatcher(name: str) -> None:
    from omegaconf import OmegaConf

    def dispatch(*arguments: Any) -> Any:
        index = _active.get({})
        if name not in index:
            # The wording of OmegaConf itself, so both cases are reported alike.
            raise LookupError(f"Unsupported interpolation type {name}")
        return index[name](*arguments)

    # OmegaConf 2.4 gave `register_resolver` the meaning that 2.3 has under the other name.
    if "replace" in inspect.signature(OmegaConf.register_resolver).parameters:
        OmegaConf.register_resolver(name, dispatch, replace=True)
    else:
        OmegaConf.register_new_resolver(name, dispatch, replace=True)
