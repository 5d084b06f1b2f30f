"""`make release` prepares a release from one version and stops before publishing."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

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


def test_the_bill_of_materials_names_what_the_wheel_needs(built: dict[str, Path], tmp_path: Path) -> None:
    wheel = tmp_path / built[".whl"].name
    wheel.write_bytes(built[".whl"].read_bytes())
    version = release.version_of((ROOT / "pyproject.toml").read_text())
    path = release.write_sbom(wheel, version)
    text = path.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert found["metadata"]["component"]["purl"] == f"pkg:pypi/loom-streaming@{version}"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    components = {one["name"]: one for one in found["components"]}
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    for name, scope in {"confluent-kafka": "required", "anyio": "required", "pyarrow": "optional"}.items():
        assert f"{name}=={components[name]['version']} " in lock
        assert components[name]["scope"] == scope
        assert components[name]["licenses"]
        assert all(f"sha256:{one['value']}" in lock for one in components[name]["properties"])
    assert not {"pytest", "mypy", "cyclonedx-python-lib"} & set(components), "a tool of the development environment"
    (needs,) = [one["dependsOn"] for one in found["dependencies"] if one["ref"] == "loom-streaming"]
    assert f"confluent-kafka@{components['confluent-kafka']['version']}" in needs
    reached = {ref for one in found["dependencies"] for ref in one.get("dependsOn", ())}
    assert reached == {one["bom-ref"] for one in found["components"]}


def test_a_version_without_stored_state_is_refused() -> None:
    release.check_state(release.version_of((ROOT / "pyproject.toml").read_text()))
    with pytest.raises(release.RefusedError, match=r"tests/data/state/99\.0\.0 is not there"):
        release.check_state("99.0.0")
