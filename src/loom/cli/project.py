"""What a project says of itself, so that commands in its folder need no arguments: `[tool.loom]` in `pyproject.toml`.

[tool.loom]
flow = "shop.flow:flow"
config = "config.yaml"
input = "data/orders.jsonl"     # what `loom dev` reads
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from loom.cli.exit_codes import FlowNotFoundError
from loom.core.config import ConfigError, ConfigProblem, convert_section
from loom.core.model import LoomFrozenStruct

__all__ = ["Project", "find_project", "project_config", "project_flow"]

_FILE = "pyproject.toml"
_CONFIG = Path("config.yaml")


class Project(LoomFrozenStruct):
    """The section `[tool.loom]`."""

    flow: str | None = None
    config: str | None = None
    input: str | None = None


def find_project() -> Project:
    """The project of the working directory; an empty one where there is none.

    Raises `ConfigError` for a file that cannot be read, and for unknown keys.
    """
    try:
        text = Path(_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Project()
    except (OSError, UnicodeError) as error:
        raise ConfigError([ConfigProblem(_FILE, "", f"cannot be read: {error}")]) from None
    try:
        found: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([ConfigProblem(_FILE, "", f"is no TOML: {error}")]) from None
    return convert_section(found.get("tool", {}).get("loom", {}), Project, key="tool.loom", file=_FILE)


def project_flow(given: str | None) -> str:
    """The flow that was named, else that of the project. Raises `FlowNotFoundError` if there is none."""
    found = given or find_project().flow
    if found is None:
        raise FlowNotFoundError(
            f"no flow is named: write MODULE:FLOW, for example orders.main:flow, or set flow under [tool.loom] in {_FILE}"
        )
    return found


def project_config(given: Path | None) -> Path:
    """The config that was named, else that of the project, else `config.yaml`.

    Raises `FlowNotFoundError` if there is none.
    """
    if given is not None:
        return given
    named = find_project().config
    if named is not None:
        return Path(named)
    if not _CONFIG.is_file():
        raise FlowNotFoundError(
            f"no config is named: write --config FILE, or set config under [tool.loom] in {_FILE}; there is no {_CONFIG} here"
        )
    return _CONFIG
