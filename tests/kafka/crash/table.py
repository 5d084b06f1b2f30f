"""Renders the results into docs/crash-matrix.md and, summed up, docs/delivery.md: `python -m tests.kafka.crash.table`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from tests.kafka.crash.broker_faults import ALL_FAULTS
from tests.kafka.crash.faults import Delivery
from tests.kafka.crash.results import ROOT, Result, load
from tests.kafka.crash.summary import render_summary

DOCUMENT = ROOT / "docs" / "crash-matrix.md"
SUMMARY = ROOT / "docs" / "delivery.md"
#: what is rendered stands between these in a document
BEGIN, END = "<!-- crash matrix: begin -->", "<!-- crash matrix: end -->"

_WORDS = {Delivery.AUTO_COMMIT: "auto-commit"}


def render(results: Iterable[Result]) -> str:
    """A row for each fault and number of workers, in each cell repetitions and what they found in sum; the long loads below."""
    results = list(results)
    by_row: dict[tuple[str, int, str], dict[str, list[Result]]] = {}
    for result in results:
        if result.figures:
            continue
        by_row.setdefault((result.fault, result.workers, result.engine), {}).setdefault(result.delivery, []).append(
            result
        )
    order = {fault.name: number for number, fault in enumerate(ALL_FAULTS)}
    lines = [
        "| fault | " + " | ".join(_WORDS.get(delivery, f"`{delivery}`") for delivery in Delivery) + " |",
        "| --- " * (len(Delivery) + 1) + "|",
    ]
    for row in sorted(by_row, key=lambda row: (order.get(row[0], len(order)), row)):
        fault, workers, engine = row
        cells = [_cell(by_row[row].get(delivery, ())) for delivery in Delivery]
        told = fault + (", two workers" if workers > 1 else "") + (", on the loop" if engine == "loop" else "")
        lines.append(f"| {told} | " + " | ".join(cells) + " |")
    loads = [result for result in results if result.figures]
    return "\n".join(lines + (["", *_loads(loads)] if loads else []))


def _loads(results: Iterable[Result]) -> Iterator[str]:
    yield "| load | `delivery` | workers | records | lost | written more than once | out of order | measured |"
    yield "| --- " * 8 + "|"
    for result in sorted(results, key=lambda found: found.key):
        counts = (result.records, result.lost, result.duplicated, result.out_of_order)
        figures = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in result.figures.items())
        fault = result.fault + (", on the loop" if result.engine == "loop" else "")
        told = [fault, f"`{result.delivery}`", str(result.workers), *(f"{count:,}" for count in counts), figures]
        yield f"| {' | '.join(told)} |"


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return ""
    if reasons := {result.impossible for result in results if result.impossible is not None}:
        return "not possible here: " + "; ".join(sorted(reasons))
    times = [result.seconds_to_resume for result in results if result.seconds_to_resume is not None]
    resumed = f"{median(times):.1f} s (≤ {max(times):.1f})" if times else "-"
    lost, duplicated = sum(result.lost for result in results), sum(result.duplicated for result in results)
    overdue = sum(result.overdue is not None for result in results)
    found = f"{len(results)}: {lost:,} / {duplicated:,} / {resumed}" + (f", **{overdue} overdue**" if overdue else "")
    stalls = [result.longest_stall for result in results if result.longest_stall is not None]
    if stalls:
        ended = sum(result.members_ended for result in results)
        found += f"; liveness {ended} ended, stall ≤ {max(stalls):.1f} s"
    return found


def between_marks(text: str) -> str:
    """What a document says between the two marks."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def rendered_into(text: str, table: str) -> str:
    """A document with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    results = load()
    for document, table in ((DOCUMENT, render(results)), (SUMMARY, render_summary(results))):
        document.write_text(rendered_into(document.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
