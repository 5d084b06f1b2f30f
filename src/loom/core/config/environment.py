"""Keys that the environment gives: `LOOM__KAFKA__CONSUMER__GROUP_ID`, and `…_FILE` for a file that holds the value.

Called when a configuration is loaded, whose own keys they are laid over. Sections and keys are found whatever their case, and
with `_` for what a variable's name cannot hold, so that a name of the user's that is there already can be meant too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loom.core.config.problems import ConfigError, ConfigProblem

__all__ = ["environment_overlay"]

_PREFIX = "LOOM__"
_BETWEEN = "__"
_FILE = "_FILE"
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


def environment_overlay(
    loaded: Mapping[Any, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys that variables give, as a mapping to lay over what was loaded, and the variable of each by its dotted path.

    >>> environment_overlay({"kafka": {}}, {"LOOM__KAFKA__CONSUMER__GROUP_ID": "orders"})
    ({'kafka': {'consumer': {'group_id': 'orders'}}}, {'kafka.consumer.group_id': 'LOOM__KAFKA__CONSUMER__GROUP_ID'})

    Args:
        loaded: what the configuration holds, unresolved.
        environment: the variables.

    Raises:
        ConfigError: for a variable that names no key, a file that cannot be read, or a key that is given twice.
    """
    overlay: dict[str, Any] = {}
    given: dict[str, str] = {}
    problems: list[ConfigProblem] = []
    for variable in sorted(name for name in environment if name.startswith(_PREFIX)):
        from_file = variable.endswith(_FILE)
        segments = variable.removeprefix(_PREFIX).removesuffix(_FILE if from_file else "").split(_BETWEEN)
        if len(segments) < 2 or not all(segments):
            problems.append(
                ConfigProblem(None, variable, "names no key", remedy="as in LOOM__KAFKA__CONSUMER__GROUP_ID")
            )
            continue
        path = _path(loaded, segments)
        dotted = ".".join(path)
        if dotted in given:
            problems.append(
                ConfigProblem(
                    None, variable, f"gives {dotted}, which {given[dotted]} gives too", remedy="remove one of the two"
                )
            )
            continue
        given[dotted] = variable
        try:
            value = _content(environment[variable]) if from_file else _value(environment[variable])
        except (OSError, ValueError) as error:
            problems.append(ConfigProblem(None, variable, _why(error)))
            continue
        place = overlay
        for segment in path[:-1]:
            below = place.setdefault(segment, {})
            place = below if isinstance(below, dict) else {}
        place[path[-1]] = value
    if problems:
        raise ConfigError(problems)
    return overlay, given


def _path(loaded: Any, segments: list[str]) -> list[str]:
    """The keys that a variable means: those that are there, else its own words in lower case."""
    path = []
    for segment in segments:
        wanted = segment.lower()
        keys = [str(key) for key in loaded] if isinstance(loaded, Mapping) else []
        found = wanted if wanted in keys else next((key for key in keys if _plain(key) == wanted), wanted)
        path.append(found)
        loaded = loaded.get(found) if isinstance(loaded, Mapping) else None
    return path


def _plain(key: str) -> str:
    return _NOT_IN_A_NAME.sub("_", key.lower())


def _value(text: str) -> Any:
    """A text, or the list or mapping that it writes down in YAML."""
    if not text.lstrip().startswith(("[", "{")):
        return _literal(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("begins like a list or a mapping, and is not YAML") from None


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return _literal(file.read().removesuffix("\n").removesuffix("\r"))


def _literal(text: str) -> str:
    # A secret may hold anything; nothing in it is to be resolved.
    return text.replace("${", "\\${")


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "names a file that is not UTF-8"
    if isinstance(error, OSError):
        return f"names a file that cannot be read: {error.filename}: {error.strerror}"
    return str(error)
