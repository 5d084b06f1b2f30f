"""Whose a recovery directory is: what does not fit is refused by name, and nothing in the directory is changed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from loom.streaming.bytewax import BytewaxRecoverySettings, RecoveryDirectoryError
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.recovery_directory import check_recovery, opened_store

ALONE, FIRST, SECOND = Layout(), Layout(0, 2), Layout(1, 2)
CLUSTER = tuple(Layout(index, 2, ("a:1", "b:2")) for index in range(2))


@pytest.fixture
def settings(tmp_path: Path) -> BytewaxRecoverySettings:
    return BytewaxRecoverySettings(str(tmp_path / "state"))


def run(settings: BytewaxRecoverySettings, layout: Layout = ALONE, flow: str = "orders") -> Path:
    """One run, as the engine notes it."""
    with opened_store(settings, flow, layout, init_db_dir) as directory:
        for part in directory.glob(f"part-{layout.index}.sqlite3" if layout.is_cluster else "part-*.sqlite3"):
            with closing(sqlite3.connect(part)) as store, store:
                store.execute("INSERT INTO exs SELECT '', COALESCE(MAX(ex_num) + 1, 0), 1, 1 FROM exs")
    return directory


def content(settings: BytewaxRecoverySettings) -> dict[str, bytes]:
    root = Path(settings.db_dir)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def assert_refused(settings: BytewaxRecoverySettings, layout: Layout, told: str, flow: str = "orders") -> None:
    before = content(settings)
    with pytest.raises(RecoveryDirectoryError, match=told):
        check_recovery(settings, flow, layout)
    with pytest.raises(RecoveryDirectoryError, match=told):
        run(settings, layout, flow)
    after = content(settings)
    assert {name: after[name] for name in before} == before
    assert all(name.endswith(".lock") for name in after.keys() - before.keys())


def test_each_run_is_a_generation(settings: BytewaxRecoverySettings) -> None:
    for generation in (1, 2, 3):
        directory = run(settings)
        state = json.loads((directory / "loom-store-0.json").read_text())
        assert (state["flow"], state["processes"], state["generation"]) == ("orders", 1, generation)


def test_a_store_that_has_nothing_beside_it_is_taken_over(settings: BytewaxRecoverySettings) -> None:
    Path(settings.db_dir).mkdir()
    init_db_dir(Path(settings.db_dir), 3)
    assert {path.name for path in run(settings).glob("part-*")} == {f"part-{part}.sqlite3" for part in range(3)}


def test_another_flow_is_refused(settings: BytewaxRecoverySettings) -> None:
    run(settings)
    assert_refused(settings, ALONE, "holds the state of the flow 'orders', and this is 'prices'", "prices")


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (ALONE, FIRST, "was written by 1 process, and this flow runs as 2 processes"),
        (ALONE, SECOND, "was written by 1 process, and this flow runs as 2 processes"),
        (SECOND, ALONE, "was written by 2 processes, and this flow runs as 1 process"),
        (SECOND, Layout(0, 3), "was written by 2 processes, and this flow runs as 3 processes"),
        (CLUSTER[1], FIRST, "was written by a cluster of 2 processes, and this flow runs as 2 processes"),
        (FIRST, CLUSTER[0], "was written by 2 processes, and this flow runs as a cluster of 2 processes"),
    ],
)
def test_another_layout_is_refused(settings: BytewaxRecoverySettings, before: Layout, now: Layout, told: str) -> None:
    run(settings, before)
    assert_refused(settings, now, told)


def test_a_store_of_one_process_that_has_nothing_beside_it_is_no_store_of_several(
    settings: BytewaxRecoverySettings,
) -> None:
    Path(settings.db_dir).mkdir()
    init_db_dir(Path(settings.db_dir), 1)
    assert_refused(settings, FIRST, "was written by 1 process")


def test_independent_processes_have_a_store_each(settings: BytewaxRecoverySettings) -> None:
    with ExitStack() as both:
        found = [both.enter_context(opened_store(settings, "orders", one, init_db_dir)) for one in (FIRST, SECOND)]
    assert [directory.name for directory in found] == ["process-0", "process-1"]
    assert all((directory / "part-0.sqlite3").exists() for directory in found)


def test_each_process_of_a_cluster_makes_its_part_wherever_it_is(
    settings: BytewaxRecoverySettings, tmp_path: Path
) -> None:
    shared = [run(settings, one) for one in CLUSTER]
    apart = [run(BytewaxRecoverySettings(str(tmp_path / str(one.index))), one) for one in CLUSTER]
    assert {path.name for path in shared[0].glob("part-*")} == {"part-0.sqlite3", "part-1.sqlite3"}
    assert [[path.name for path in directory.glob("part-*")] for directory in apart] == [
        ["part-0.sqlite3"],
        ["part-1.sqlite3"],
    ]
    for part in (*shared[0].glob("part-*"), *(path for directory in apart for path in directory.glob("part-*"))):
        with closing(sqlite3.connect(part)) as store:
            assert store.execute("SELECT part_count FROM parts").fetchall() == [(2,)]


def test_a_store_in_use_is_refused(settings: BytewaxRecoverySettings) -> None:
    with (
        opened_store(settings, "orders", ALONE, init_db_dir),
        pytest.raises(RecoveryDirectoryError, match="is in use by"),
    ):
        run(settings)
    run(settings)


def test_files_that_are_gone_are_not_made_again(settings: BytewaxRecoverySettings) -> None:
    (run(settings) / "part-0.sqlite3").unlink()
    assert_refused(settings, ALONE, "has lost its files .* run 1 of the flow")


def test_files_of_an_older_backup_are_refused_unless_all_are(settings: BytewaxRecoverySettings, tmp_path: Path) -> None:
    directory = run(settings)
    shutil.copytree(directory, tmp_path / "backup")
    run(settings)
    run(settings)
    shutil.copy(tmp_path / "backup" / "part-0.sqlite3", directory)
    assert_refused(settings, ALONE, "older than loom-store-0.json beside them")
    shutil.copy(tmp_path / "backup" / "loom-store-0.json", directory)
    run(settings)


@pytest.mark.parametrize("name", ["part-0.sqlite3", "loom-store-0.json"])
def test_a_damaged_file_is_named(settings: BytewaxRecoverySettings, name: str) -> None:
    (run(settings) / name).write_bytes(b"damaged" * 100)
    assert_refused(settings, ALONE, name)
