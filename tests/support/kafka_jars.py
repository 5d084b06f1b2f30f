"""Where the broker's jars come from: Maven fetches them once per checkout. Called by `apache_kafka`."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tests.support.waiting import LONG_S

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / ".cache"
OLDEST_JAVA = 17

#: Seconds for Maven to fetch some fifty jars; measured: 10 with an empty local repository.
FETCH_TIMEOUT = 300.0


@functools.cache
def kafka_version() -> str:
    """The version that `pom.xml` names."""
    version = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    if not version:
        raise RuntimeError(f"{POM.name} names no kafka.version")
    return version


def why_unavailable() -> str | None:
    """Why no Apache Kafka can be started here, as one sentence, or None when it can."""
    if (problem := _java_problem()) is not None:
        return problem
    if not jars_directory().is_dir() and shutil.which("mvn") is None:
        return "Apache Kafka's jars are not there yet and `mvn` (Maven), which fetches them, is not on the PATH"
    return None


def jars_directory() -> Path:
    """Where the jars are once they have been fetched; a directory of this name is always complete."""
    return CACHE / f"kafka-{kafka_version()}"


def fetch_jars() -> Path:
    """The directory with the jars, fetched first when need be.

    Safe when several test runs start at once: one fetches while the others wait for its lock, and the directory gets
    its name only when it is complete, so a run that was killed half-way leaves nothing that looks finished.
    """
    target = jars_directory()
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="ascii")
    with _locked(CACHE / f"{target.name}.lock"):
        if not target.is_dir():
            partial = CACHE / f"{target.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _copy_dependencies(partial)
            partial.rename(target)
    return target


@functools.cache
def _java_problem() -> str | None:
    java = shutil.which("java")
    if java is None:
        return f"Apache Kafka needs Java {OLDEST_JAVA} or newer and `java` is not on the PATH"
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=LONG_S, check=False)
    found = re.search(r'version "(\d+)', answer.stderr)
    if found is None:
        return f"`java -version` did not name its version (exit code {answer.returncode})"
    if int(found.group(1)) < OLDEST_JAVA:
        return f"Apache Kafka needs Java {OLDEST_JAVA} or newer, found Java {found.group(1)}"
    return None


def _copy_dependencies(directory: Path) -> None:
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={directory}"]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0 or not any(directory.glob("kafka_*.jar")):
        output = (answer.stdout + answer.stderr)[-4000:]
        raise RuntimeError(f"Maven did not fetch Apache Kafka (exit code {answer.returncode}):\n{output}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go by the kernel when this process ends, however it ends
        yield
    finally:
        os.close(descriptor)
