"""Where no broker can be started its tests skip with the reason, and with `LOOM_REQUIRE_KAFKA=1` they fail instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import LONG_S

ROOT = Path(__file__).resolve().parents[2]
ONE_TEST = "tests/kafka/test_harness.py::test_a_misspelled_topic_is_not_created"


def run_without_java(empty: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LOOM_", "PYTEST_", "COV_", "COVERAGE_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", ONE_TEST],
        capture_output=True,
        text=True,
        timeout=3 * LONG_S,
        check=False,
        cwd=ROOT,
        env={**inherited, "PATH": str(empty), **environment},
    )


def test_without_java_the_tests_skip_and_say_why(tmp_path: Path) -> None:
    run = run_without_java(tmp_path)

    assert run.returncode == 0
    assert "1 skipped" in run.stdout
    assert "needs Java 17 or newer and `java` is not on the PATH" in run.stdout


def test_when_kafka_is_required_a_skip_is_a_failure(tmp_path: Path) -> None:
    run = run_without_java(tmp_path, LOOM_REQUIRE_KAFKA="1")

    assert run.returncode == 1
    assert "LOOM_REQUIRE_KAFKA=1 allows no skip here: Skipped: Apache Kafka needs Java" in run.stdout
