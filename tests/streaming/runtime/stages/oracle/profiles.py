"""How many flows the oracle is asked about: `ci` in every run of the tests, `nightly` with `make oracle`.

`LOOM_ORACLE` names one of them, or is a number of flows for each property.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["ORACLE"]

#: a generated flow is a large value, and slow to make on a busy machine
_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

settings.register_profile("ci", max_examples=200, deadline=None, suppress_health_check=_CHECKS)
settings.register_profile("nightly", max_examples=2_500, deadline=None, suppress_health_check=_CHECKS, print_blob=True)


def _chosen(by: str) -> settings:
    if by.isdecimal():
        return settings(settings.get_profile("nightly"), max_examples=int(by))
    return settings(settings.get_profile(by))


#: the settings of every property of generated flows
ORACLE = _chosen(os.environ.get("LOOM_ORACLE", "ci"))
