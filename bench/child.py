"""One run of one contender, in the fresh process that `measure.in_fresh_process` starts: `SUITE JOB ANSWER`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import msgspec


def main(suite: str, job: str, answer: str) -> None:
    module = import_module(f"bench.{suite}")
    sample = module.run_job(msgspec.json.decode(job, type=module.Job))
    Path(answer).write_bytes(msgspec.json.encode(sample))


if __name__ == "__main__":
    main(*sys.argv[1:])
