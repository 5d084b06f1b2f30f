"""The sink classes that a config may name from the command line: those of `--sink`, and those that installed packages offer.

A package offers a class as an entry point of the group `loom.streaming.sinks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from loom.cli.exit_codes import FlowNotFoundError
from loom.cli.load_flow import load_module
from loom.core.config import ConfigContext
from loom.core.entry_points import EntryPointError, Offer, offers

__all__ = ["ENTRY_POINTS", "register_sinks"]

ENTRY_POINTS = "loom.streaming.sinks"


def register_sinks(register: Callable[[Any], None], names: Iterable[str], config: ConfigContext) -> None:
    """Register every class of `names` (`module:Class`) and of the entry points; a given one wins over an installed one.

    A config without sinks asks for no class, so what is installed is not even loaded. Raises `FlowNotFoundError` for a
    class that cannot be loaded or is no `RegisteredSink`, naming who offers it.
    """
    if config.has("streaming.sinks"):
        offered: dict[str, str] = {}
        for offer in offers(ENTRY_POINTS):
            found, who = _loaded(offer), str(offer)
            _register(register, found, who)
            other = offered.setdefault(found.sink_type, who)
            if other != who:
                raise FlowNotFoundError(
                    f"{other} and {who} both offer the type {found.sink_type!r}; uninstall one of the packages"
                )
    for name in names:
        _register(register, _named(name), f"--sink {name}")


def _register(register: Callable[[Any], None], found: Any, who: str) -> None:
    try:
        register(found)
    except TypeError as error:
        raise FlowNotFoundError(f"{who}: {error}") from None


def _loaded(offer: Offer) -> Any:
    try:
        return offer.load()
    except EntryPointError as error:
        raise FlowNotFoundError(str(error)) from error


def _named(name: str) -> Any:
    module_name, separator, class_name = name.rpartition(":")
    if not separator or not module_name or not class_name:
        raise FlowNotFoundError(f"--sink {name}: write MODULE:CLASS or FILE.py:CLASS")
    try:
        return getattr(load_module(module_name), class_name)
    except (FlowNotFoundError, ImportError, AttributeError) as error:
        raise FlowNotFoundError(f"--sink {name}: {error}; write MODULE:CLASS or FILE.py:CLASS") from None
