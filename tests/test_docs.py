"""What the README and the pages under docs/ show is run as it stands there.

Each block is what a reader copies: a file of its own, with the name that its first line says (`# name.py`, `# name.yaml`), in a
folder with the other files of the page. Python files are imported, and tests in them are called, with fixtures. A block marked
`python no-run: reason` is not run; one marked `python theirs` is code of another library. The files of a tutorial are saved and
used by its commands, in `tests/cli/test_cli_page.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from loom.core.config import ConfigContext
from loom.streaming import ErrorEnvelope, ErrorKind, IntoSink, Process, StreamFlow
from loom.streaming.bytewax import BytewaxRuntimeConfig, SinkRegistry
from loom.streaming.compiler import Code
from loom.streaming.kafka import ConsumerSettings, KafkaRecord, KafkaSecuritySettings, KafkaSettings, ProducerSettings
from loom.streaming.runtime.settings import SupervisionSettings
from loom.streaming.testing import StreamingTestRunner

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: pages whose files and commands are typed in order
TUTORIALS = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial-kafka.md"]
#: blocks that may stand there without being run, in all pages together
MOST_NOT_RUN = 2

_BLOCK = re.compile(r"^```(\w+)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NO_RUN = re.compile(r"no-run: \S.+")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    info: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, when its first line says so."""
        named = re.match(r"# ([\w.-]+\.\w+)\n", self.text)
        return named[1] if named else None


def _blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    found = (
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2].strip(), match[3])
        for match in _BLOCK.finditer(text)
    )
    return [block for block in found if block.language == language]


def _ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Page:
    """The examples of a page as a reader copies them: each in a file of its own, all in one folder."""

    def __init__(self, path: Path, directory: Path) -> None:
        self._directory = directory
        self._before = dict(sys.modules)
        self.modules: dict[str, ModuleType] = {}
        named: dict[str, Block] = {}
        for block in [*_blocks(path, "python"), *_blocks(path, "yaml")]:
            if block.info or (block.file is None and block.language != "python"):
                continue
            name = block.file or f"{path.stem.lower()}_{block.line}.py"
            assert name not in named, f"{_ids(path)}:{block.line} and {named[name].line} are both {name}"
            named[name] = block
            (directory / name).write_text(block.text)
        sys.path.insert(0, str(directory))
        try:
            for name, block in named.items():
                if block.language == "python":
                    self.modules[name] = self._imported(name.removesuffix(".py"))
        except BaseException:
            self.close()
            raise

    def _imported(self, name: str) -> ModuleType:
        found = sys.modules.get(name)
        if found is None or Path(found.__file__ or "").parent != self._directory:
            # A module of that name that the tests themselves have loaded is another one.
            sys.modules.pop(name, None)
            importlib.invalidate_caches()
            found = importlib.import_module(name)
        assert Path(found.__file__ or "").parent == self._directory, f"the name {name} is taken"
        return found

    def tests(self) -> Iterator[Any]:
        """The tests that the page holds."""
        for module in self.modules.values():
            for name, value in list(vars(module).items()):
                if name.startswith("test_") and inspect.isfunction(value) and value.__module__ == module.__name__:
                    yield value

    def close(self) -> None:
        sys.path.remove(str(self._directory))
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").parent == self._directory:
                del sys.modules[name]
                if name in self._before:
                    sys.modules[name] = self._before[name]


@pytest.mark.parametrize("path", [page for page in PAGES if page not in TUTORIALS], ids=_ids)
def test_every_python_block_runs(path: Path, in_directory: Path, request: pytest.FixtureRequest) -> None:
    page = Page(path, in_directory)
    try:
        for test in page.tests():
            test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})
    finally:
        page.close()


def test_blocks_that_do_not_run_are_few_and_say_why() -> None:
    marked = [block for page in PAGES for block in _blocks(page, "python") if block.info]
    theirs = [block for block in marked if block.info == "theirs"]
    assert [block for block in theirs if block.page.parent.name != "coming-from"] == []
    marked = [block for block in marked if block not in theirs]
    assert [block for block in marked if not _NO_RUN.fullmatch(block.info)] == []
    assert len(marked) <= MOST_NOT_RUN, [f"{_ids(block.page)}:{block.line}" for block in marked]


def test_every_language_of_a_block_is_one_that_is_looked_at() -> None:
    languages = {match[1] for page in PAGES for match in _BLOCK.finditer(page.read_text())}
    assert languages <= {"python", "yaml", "sh", "console", "toml", "pycon", "pyi", "java", "diff"}
    fences = sum(line.startswith("```") for page in PAGES for line in page.read_text().splitlines())
    assert fences == 2 * sum(len(_BLOCK.findall(page.read_text())) for page in PAGES)


@pytest.mark.parametrize("path", [page for page in PAGES if _blocks(page, "yaml")], ids=_ids)
def test_every_yaml_block_is_a_config(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for block in _blocks(path, "python"):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text)  # which a config may name
    for block in _blocks(path, "yaml"):
        file = tmp_path / "config.yaml"
        file.write_text(block.text)
        kafka = ConfigContext.from_yaml(file).section_or_default("kafka", KafkaSettings, KafkaSettings())
        for name in kafka.consumers or (["any"] if kafka.consumer else []):
            kafka.consumer_for(name)
        for name in kafka.producers or (["any"] if kafka.producer else []):
            kafka.producer_for(name)


@pytest.mark.parametrize("path", PAGES, ids=_ids)
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=_ids)
def test_every_link_to_a_heading_leads_to_one(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text())
    wrong = [
        f"{file}#{anchor}" for file, anchor in links if anchor not in _anchors(path.parent / file if file else path)
    ]
    assert wrong == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        queue += [(page.parent / link).resolve() for link in links if (page.parent / link).is_file()]
    decisions = {page for page in PAGES if page.parent.name == "decisions"}
    assert [page for page in PAGES if page not in reached | decisions] == []


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets


def test_the_flow_of_the_readme_does_what_it_says_once_its_mistake_is_corrected(in_directory: Path) -> None:
    page = Page(ROOT / "README.md", in_directory)
    try:
        shown: Any = page.modules["orders.py"]
        wrong = shown.flow
        corrected = StreamFlow(
            wrong.name, wrong.source, Process(shown.price, shown.discount), wrong.output, errors=wrong.errors
        )
        runner = StreamingTestRunner.from_yaml(corrected, "config.yaml")
        runner.with_payloads([shown.Order(1, 2, 1.5), shown.Order(2, 0, 1.5)]).run()
        assert [message.payload for message in runner.output] == [shown.Priced(1, 2.7)]
        assert [error.reason for error in runner.errors["business"]] == ["quantity must be at least 1"]
    finally:
        page.close()


def test_the_numbers_of_the_readme_are_those_that_were_measured() -> None:
    text = (ROOT / "README.md").read_text()
    cpu, latency = (
        {
            name: figures[key]
            for name, figures in json.loads((ROOT / "bench" / "results" / file).read_text())["figures"].items()
        }
        for file, key in (("kafka.json", "cpu"), ("latency.json", "p99"))
    )
    kills = json.loads((ROOT / "docs" / "results" / "random-kills.json").read_text())
    (exactly_once,) = (run for run in kills if run["delivery"] == "exactly_once")

    told = [f"**{cpu['loom']:.1f} µs** of CPU per record"]
    told += [f"{cpu[name]:.1f} µs" for name in ("loop", "quix", "bytewax_bundled")]
    told += [f"**{latency['loom']:.1f} ms** from produce to receipt", f"in {exactly_once['kills']} SIGKILLs"]
    told += [f"**{exactly_once['lost'] + exactly_once['duplicates']}** of {exactly_once['records']:,} records"]
    assert [one for one in told if one not in text] == []


def test_the_sink_of_errors_that_the_page_shows_is_named_in_a_config_and_keeps_errors(in_directory: Path) -> None:
    page = Page(ROOT / "docs" / "sinks.md", in_directory)
    try:
        registry = SinkRegistry()
        registry.register(page.modules["warehouse_errors.py"].WarehouseErrors)
        section = {"type": "warehouse_errors", "path": "errors.db", "kinds": ["task"]}
        config = ConfigContext.from_dict({"streaming": {"sinks": {"failures": section}}})
        (binding,) = registry.resolve(config)
        assert (binding.purpose, binding.kinds) == ("errors", (ErrorKind.TASK,))
        assert isinstance(binding.sink, IntoSink)
        rows = binding.sink.build_partition(None, 0, 1)
        source = KafkaRecord("orders", b"k", b"{}", partition=1, offset=7)
        rows.write_batch([ErrorEnvelope(ErrorKind.TASK, "no price", step_id="price", source=source)] * 2)
        rows.flush()
        rows.close()
    finally:
        page.close()
    kept = sqlite3.connect("errors.db").execute("SELECT * FROM errors").fetchall()
    assert kept == [("orders", 1, 7, "price", "", "task", "no price", b"{}")]


def test_the_code_of_other_libraries_is_python() -> None:
    theirs = [block for page in PAGES for block in _blocks(page, "python") if block.info == "theirs"]
    assert theirs
    for block in theirs:
        ast.parse(block.text)


def test_every_page_has_one_place_in_the_navigation_of_the_site() -> None:
    listed = list(_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert sorted(name for name in listed if not name.startswith("source/")) == sorted(pages)


def _pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(target, list):
            yield from _pages(target)
        else:
            yield target


def test_every_problem_that_the_compiler_finds_is_among_the_diagnostics() -> None:
    rows = re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs" / "diagnostics.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(code.value for code in Code)


def test_every_test_that_the_pitfalls_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "pitfalls.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    written = {name for file in files for name in re.findall(r"^ *def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert named
    assert named - written == set()


#: the structs of the config, by the heading under which the page lists their keys
_STRUCTS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "kafka": (ConsumerSettings, ProducerSettings),
    "streaming.runtime": (BytewaxRuntimeConfig,),
    "streaming.supervision": (SupervisionSettings,),
}


@pytest.mark.parametrize("heading", _STRUCTS)
def test_every_key_of_the_config_is_on_its_page_with_its_default(heading: str) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    section = re.split(r"^## ", page.partition(f"## `{heading}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    tables = [part for part in section.split("\n\n") if part.startswith("|")]
    for table, struct in zip(tables, _STRUCTS[heading], strict=False):
        told = {
            key: default
            for keys, default in re.findall(r"^\| (`.+?`(?:, `.+?`)*) \| (.*?) \|", table, re.MULTILINE)
            for key in re.findall(r"`([\w.]+)`", keys)
        }
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        assert set(fields) - {key.partition(".")[0] for key in told} == set(), struct.__name__
        assert {key.partition(".")[0] for key in told} - set(fields) - {heading} == set(), struct.__name__
        for key, default in told.items():
            if key in fields and re.fullmatch(r"`[a-z]+`|[\d,]+", default):
                kept = fields[key].default
                shown = str(kept.value if isinstance(kept, Enum) else kept).lower()
                assert default.strip("`").replace(",", "") == shown, f"{struct.__name__}.{key}"


def test_the_keys_of_security_are_on_the_page_of_the_config() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    keys = KafkaSecuritySettings.__struct_fields__
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_decisions_have_numbers_of_their_own() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))
    assert [page.read_text().split(".")[0] for page in pages] == [f"# {number}" for number in numbers]
