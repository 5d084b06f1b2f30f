"""From a YAML file or a mapping to an OmegaConf tree that nothing has been resolved in yet.

Called by `ConfigContext.from_yaml` and `.from_dict`. It imports omegaconf, so it is itself imported only then.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, KeyValidationError, OmegaConfBaseException

from loom.core.config.interpolation import INTERPOLATIONS
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.config.yaml_mistakes import yaml_mistake

__all__ = ["load_mapping", "load_yaml"]


def load_yaml(path: str) -> DictConfig:
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
        return _parse(text, path)
    raise _refused(path, f"the file cannot be read: {reason}")


def load_mapping(mapping: Mapping[Any, Any], file: str | None = None) -> DictConfig:
    """Copy a mapping. Values that are neither containers nor scalars are kept as they are.

    Raises:
        ConfigError: when a key cannot be one, or a text is no valid interpolation.
    """
    try:
        created = OmegaConf.create(_plain(mapping), flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        problem = _broken(error, file)
    else:
        assert isinstance(created, DictConfig)
        return created
    raise ConfigError([problem])


def _parse(text: str, path: str) -> DictConfig:
    # Errors are raised outside of the `except` blocks: a chained cause would print what the file holds.
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return OmegaConf.create({})
        if isinstance(root, yaml.MappingNode):
            loaded = OmegaConf.load(io.StringIO(text))
            assert isinstance(loaded, DictConfig)
            return loaded
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        remedy = "write `section:` and its keys below it; a colon needs a space behind it"
        problem = ConfigProblem(path, "", f"the top level is {kind}, expected a mapping of sections", remedy=remedy)
    except OmegaConfBaseException as error:
        problem = _broken(error, path)
    except yaml.YAMLError as error:
        problem = ConfigProblem(path, "", yaml_mistake(error, text))
    except Exception as error:  # noqa: BLE001  YAML's own constructors let anything through: `!!int x`
        problem = ConfigProblem(path, "", f"not valid YAML: a tagged value cannot be read ({type(error).__name__})")
    raise ConfigError([problem])


def _broken(error: OmegaConfBaseException, file: str | None) -> ConfigProblem:
    key = error.full_key or ""
    if isinstance(error, GrammarParseError):
        return ConfigProblem(file, key, "not a valid interpolation", remedy=INTERPOLATIONS)
    if isinstance(error, KeyValidationError):
        return ConfigProblem(file, key, "a key here is not a string", remedy="write it in quotes")
    return ConfigProblem(file, key, f"a value here cannot be held ({type(error).__name__})")


def _refused(path: str, message: str) -> ConfigError:
    return ConfigError([ConfigProblem(path, "", message)])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
