"""`make release` prepares a release from one version and stops before publishing."""

from __future__ import annotations

import datetime
import importlib.util
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAY = datetime.date(2026, 1, 2)


def loaded(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


release: Any = loaded("release")
dependencies: Any = loaded("dependencies")


def test_what_is_unreleased_becomes_the_section_of_the_version() -> None:
    before = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A sink.\n\n## [0.1.0] - 2025-01-01\n\n- All.\n"
    assert release.cut(before, "0.2.0", DAY) == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-01-02\n\n### Added\n\n- A sink.\n\n"
        "## [0.1.0] - 2025-01-01\n\n- All.\n"
    )


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        ("## [Unreleased]\n\n## [0.1.0] - 2025-01-01\n\n- All.\n", "no entry under"),
        ("# Changelog\n", "no entry under"),
        ("## [Unreleased]\n\n- A sink.\n\n## [0.2.0] - 2025-01-01\n\n- All.\n", "has a section for 0.2.0 already"),
    ],
)
def test_a_changelog_that_does_not_fit_is_refused(changelog: str, said: str) -> None:
    with pytest.raises(release.RefusedError, match=said):
        release.cut(changelog, "0.2.0", DAY)


def test_the_changelog_of_the_project_can_be_cut() -> None:
    assert "## [99.0.0] - 2026-01-02" in release.cut((ROOT / "CHANGELOG.md").read_text(), "99.0.0", DAY)


@pytest.mark.parametrize("version", ["1.2", "1.2.3.dev1", "v1.2.3", "next"])
def test_a_version_that_is_no_release_is_refused(version: str) -> None:
    with pytest.raises(release.RefusedError, match="is no release"):
        release.version_of(f'[project]\nversion = "{version}"\n')


def test_the_version_has_one_place() -> None:
    version = release.version_of((ROOT / "pyproject.toml").read_text())
    assert [path.name for path in (ROOT / "src").rglob("*.py") if f'"{version}"' in path.read_text()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist of this checkout."""
    return {path.suffix: path for path in release.build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist")}


def test_wheel_and_sdist_pass_their_checks(built: dict[str, Path]) -> None:
    release.check_wheel(built[".whl"], release.version_of((ROOT / "pyproject.toml").read_text()))
    release.check_sdist(built[".gz"])


def test_a_wheel_of_another_version_is_refused(built: dict[str, Path]) -> None:
    with pytest.raises(release.RefusedError, match="has the version"):
        release.check_wheel(built[".whl"], "99.0.0")


def test_a_package_that_lacks_a_file_is_refused(built: dict[str, Path], tmp_path: Path) -> None:
    poorer = tmp_path / built[".whl"].name
    with zipfile.ZipFile(built[".whl"]) as whole, zipfile.ZipFile(poorer, "w") as part:
        for name in whole.namelist():
            if not name.endswith("py.typed"):
                part.writestr(name, whole.read(name))
    with pytest.raises(release.RefusedError, match=r"lacks \['loom/py.typed'\]"):
        release.check_wheel(poorer, "0.1.0")
    empty = tmp_path / "empty.tar.gz"
    tarfile.open(empty, "w:gz").close()
    with pytest.raises(release.RefusedError, match=r"/pyproject\.toml"):
        release.check_sdist(empty)


def test_the_lowest_dependencies_are_the_bounds_of_the_project() -> None:
    wanted = ["anyio>=4.4,<5", "bytewax~=0.21.1", "uvloop>=0.20,<1; platform_system != 'Windows'"]
    assert list(dependencies.lowest(wanted)) == [
        "anyio==4.4",
        "bytewax==0.21.1",
        "uvloop==0.20; platform_system != 'Windows'",
    ]
    with pytest.raises(ValueError, match="'rich' has no lower bound"):
        list(dependencies.lowest(["rich"]))
