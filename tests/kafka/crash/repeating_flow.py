"""The retrying flow whose step is an async call, repeated by a policy of its scope."""

from __future__ import annotations

from retrying_flow import scoped_flow as flow

__all__ = ["flow"]
