"""Runs a flow as somebody would who starts the engine himself: `plain_engine.py module:flow --config FILE`."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib import import_module

from bytewax.run import cli_main

from loom.core.config import ConfigContext
from loom.streaming.bytewax import build_dataflow
from loom.streaming.compiler import compile_flow

module, _, name = sys.argv[1].partition(":")
plan = compile_flow(getattr(import_module(module), name), config=ConfigContext.from_yaml(sys.argv[-1]))
cli_main(build_dataflow(plan), workers_per_process=1, epoch_interval=timedelta(seconds=1))
