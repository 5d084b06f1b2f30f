"""From a YAML file to a tree that nothing has been resolved in yet.

Called by `ConfigContext.from_yaml`. A file that means the same to every reader of YAML, and refers to nothing, becomes a plain
tree; whatever is in doubt is left to OmegaConf, which is loaded only then.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loom.core.config.keys import nearest
from loom.core.config.literals import is_literal
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.config.tree import ConfigTree, Resolvers
from loom.core.config.yaml_mistakes import yaml_mistake

__all__ = ["load_yaml"]

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"0|[-+]?[1-9][0-9]*")
_DECIMAL = re.compile(r"[-+]?[0-9]+\.[0-9]+")
#: a plain text that begins like this may be a number, or a date, to another reader
_PERHAPS_A_NUMBER = frozenset("-+.0123456789")


class _NotLiteral(Exception):
    """Aliases, tags, merged or repeated keys, numbers and dates of unusual forms, or something to be resolved."""


def load_yaml(path: str, resolvers: Resolvers) -> ConfigTree:
    """Read a file; an empty one is an empty configuration.

    Raises:
        ConfigError: when it cannot be read, is not YAML (with line and column), or holds no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error.__class__.__name__
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    else:
        return _parse(text, path, resolvers)
    raise ConfigError([ConfigProblem(path, "", f"the file cannot be read: {reason}", remedy=_another_file(Path(path)))])


def _another_file(path: Path) -> str | None:
    """Which file may be meant, where this one is not there."""
    if path.exists() or not path.parent.is_dir():
        return None
    there = sorted(file.name for file in path.parent.iterdir() if file.suffix in {".yaml", ".yml"})
    near = nearest(path.name, there)
    return f"did you mean {path.parent / near}?" if near is not None else None


def _parse(text: str, path: str, resolvers: Resolvers) -> ConfigTree:
    # Errors are raised outside of the `except` blocks: a chained cause would print what the file holds.
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or root.tag == f"{_TAG}null":
            return ConfigTree({}, path, resolvers)
        if isinstance(root, yaml.MappingNode):
            literal = _literal_of(root)
            found = ConfigTree(literal, path, resolvers) if literal is not None else _loaded(text, path, resolvers)
            if isinstance(found, ConfigTree):
                return found
            problem = found
        else:
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
            remedy = "write `section:` and its keys below it; a colon needs a space after it"
            message = f"the top level is {kind}, expected a mapping of sections"
            problem = ConfigProblem(path, "", message, remedy=remedy)
    except yaml.YAMLError as error:
        problem = ConfigProblem(path, "", yaml_mistake(error, text))
    except Exception as error:  # noqa: BLE001  YAML's own constructors let anything through: `!!int x`
        problem = ConfigProblem(path, "", f"not valid YAML: a tagged value cannot be read ({type(error).__name__})")
    raise ConfigError([problem])


def _loaded(text: str, path: str, resolvers: Resolvers) -> ConfigTree | ConfigProblem:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from loom.core.config.interpolated_tree import InterpolatedTree, broken

    try:
        return InterpolatedTree(OmegaConf.load(io.StringIO(text)), path, resolvers)
    except OmegaConfBaseException as error:
        return broken(error, path)


def _literal_of(root: yaml.MappingNode) -> Mapping[str, Any] | None:
    """What a document says, where it is all literal."""
    try:
        found: Mapping[str, Any] = _literal(root, set())
    except _NotLiteral:
        return None
    return found


def _literal(node: yaml.Node, seen: set[int]) -> Any:
    if id(node) in seen:
        raise _NotLiteral("an alias")
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_literal(item, seen) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        found: dict[str, Any] = {}
        for key_node, item in node.value:
            key = _literal(key_node, seen)
            if type(key) is not str or key in found:
                raise _NotLiteral("an unusual key")
            found[key] = _literal(item, seen)
        return found
    raise _NotLiteral("a tag")


def _scalar(node: yaml.ScalarNode) -> Any:
    tag, text = node.tag.removeprefix(_TAG), node.value
    if tag == "str" and (node.style is not None or text[:1] not in _PERHAPS_A_NUMBER) and is_literal(text):
        return text
    if node.style is None:
        if tag == "null":
            return None
        if tag == "bool":
            return yaml.constructor.SafeConstructor.bool_values[text.lower()]
        if tag == "int" and _INTEGER.fullmatch(text):
            return int(text)
        if tag == "float" and _DECIMAL.fullmatch(text):
            return float(text)
    raise _NotLiteral("a scalar of an unusual form")
