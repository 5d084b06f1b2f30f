"""What tells a process from others of the same flow, in its log."""

from __future__ import annotations

import os
import socket

from loom.core.config import ConfigContext

__all__ = ["instance_name"]

#: the name of an instance, from the environment and from the config
_ENVIRONMENT, _KEY = "LOOM_GROUP_INSTANCE_ID", "kafka.consumer.group_instance_id"


def instance_name(config: ConfigContext | None) -> str:
    """The name that the process was given as a member of its group, else its host and process id."""
    given = os.environ.get(_ENVIRONMENT)
    if not given and config is not None and config.has(_KEY):
        given = str(config.raw(_KEY))
    return given or f"{socket.gethostname()}-{os.getpid()}"
