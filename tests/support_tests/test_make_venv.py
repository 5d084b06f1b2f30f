"""The environment script on machines that lack something: what it says brings it, or uv where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import LONG_S

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make-venv.sh"
TOOLS = ("sh", "cat", "dirname", "echo", "grep", "mkdir", "rm", "touch", "chmod")
#: what `python3 -` prints of itself, asked by the script
NEWER = "echo is Python 3.15"
NO_VENV = "echo lacks the module ensurepip"
#: answers everything and installs nothing
ANY = "exit 0"
UV = """
[ "$1" = venv ] || exit 2
for venv; do :; done
mkdir -p "$venv/bin"
printf '#!/bin/sh\\nexit 0\\n' > "$venv/bin/python"
chmod +x "$venv/bin/python"
"""
DEBIAN_12 = {"python3": "3.11.2-1+b1", "pipx": "1.1.0-1", "make": "4.3"}
DEBIAN_13 = {"python3": "3.13.5-1", "pipx": "1.7.1-1", "make": "4.4"}
LATER = {"python3": "3.15.0-1", "pipx": "1.7.1-1", "make": "4.4"}
UBUNTU_22 = {"python3": "3.10.6-1", "python3.11": "3.11.0~rc1-1", "pipx": "1.0.0-1"}


class Machine:
    """A PATH with a few tools and what a test puts there."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bin"
        self.path.mkdir()
        self.venv = directory / "venv"
        self.home = directory / "home"
        self.home.mkdir()
        self.has("id", "echo 1000")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.path / tool).symlink_to(found)

    def has(self, name: str, script: str = ANY, directory: Path | None = None) -> None:
        """Install a program, on the PATH unless a directory is named."""
        file = (directory or self.path) / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def knows_packages(self, versions: dict[str, str]) -> None:
        """Let apt know packages."""
        self.has("apt-get")
        cases = "\n".join(f'{name}) echo "  Candidate: {version}" ;;' for name, version in versions.items())
        self.has("apt-cache", f'case "$2" in\n{cases}\n*) echo "  Candidate: (none)" ;;\nesac')

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        return subprocess.run(
            ["/bin/sh", SCRIPT, *(arguments or (str(self.venv),))],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG_S,
            env={"PATH": str(self.path), "HOME": str(self.home)} | environment,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_that_is_missing_is_named_at_once(machine: Machine) -> None:
    machine.knows_packages(DEBIAN_12)
    told = machine.make()
    assert told.returncode == 1
    assert "sudo apt-get install make python3 python3-venv" in told.stderr


def test_a_package_that_brings_venv_is_the_one_of_this_machine(machine: Machine) -> None:
    machine.has("python3", NO_VENV)
    machine.has("make")
    machine.knows_packages(DEBIAN_12)
    told = machine.make()
    assert "python3: lacks the module ensurepip" in told.stderr
    assert "sudo apt-get install python3 python3-venv" in told.stderr


def test_no_package_is_named_whose_interpreter_would_be_refused(machine: Machine) -> None:
    machine.has("python3", NEWER)
    machine.has("make")
    machine.knows_packages(LATER)
    told = machine.make()
    assert told.returncode == 1
    assert "python3: is Python 3.15" in told.stderr
    assert "sudo apt-get install pipx && pipx install uv" in told.stderr
    assert "python3-venv" not in told.stderr
    assert machine.make("--packages").stdout == ""


def test_the_package_of_a_newer_machine_fits_too(machine: Machine) -> None:
    machine.has("make")
    machine.knows_packages(DEBIAN_13)
    assert machine.make("--packages").stdout.split() == ["python3", "python3-venv"]


def test_an_older_machine_with_a_fitting_package_is_told_of_it(machine: Machine) -> None:
    machine.has("make")
    machine.knows_packages(UBUNTU_22)
    assert machine.make("--packages").stdout.split() == ["python3.11", "python3.11-venv"]
    assert "sudo apt-get install python3.11 python3.11-venv" in machine.make().stderr


def test_a_machine_whose_lists_are_empty_is_told_to_fetch_them(machine: Machine) -> None:
    machine.has("make")
    machine.knows_packages({})
    assert "sudo apt-get update" in machine.make().stderr


def test_a_machine_without_apt_is_told_of_uv(machine: Machine) -> None:
    machine.has("make")
    told = machine.make()
    assert "Install uv, which brings an interpreter of its own" in told.stderr
    assert "apt-get" not in told.stderr


def test_uv_is_used_where_no_interpreter_fits(machine: Machine) -> None:
    machine.has("python3", NEWER)
    machine.has("uv", UV)
    told = machine.make()
    assert told.returncode == 0, told.stderr
    assert (machine.venv / ".ready").exists()
    assert "uv" in machine.make("--find").stdout


def test_an_interpreter_that_fits_goes_before_uv(machine: Machine) -> None:
    machine.has("python3", ANY)
    machine.has("uv", "exit 3")
    assert machine.make("--find").stdout.strip() == str(machine.path / "python3")


def test_uv_that_fails_is_among_what_was_tried(machine: Machine) -> None:
    machine.has("make")
    machine.has("uv", "echo no network >&2; exit 2")
    told = machine.make()
    assert told.returncode == 1
    assert "no network" in told.stderr
    assert "uv: could not make a virtual environment" in told.stderr
    assert "uv fetches an interpreter from github.com" in told.stderr
    assert "Install uv" not in told.stderr


def test_uv_is_found_where_pipx_puts_it(machine: Machine) -> None:
    machine.has("python3", NEWER)
    directory = machine.home / ".local" / "bin"
    directory.mkdir(parents=True)
    machine.has("uv", UV, directory)
    told = machine.make()
    assert told.returncode == 0, told.stderr
    assert (machine.venv / ".ready").exists()


def test_uv_may_take_an_older_interpreter_that_it_has(machine: Machine) -> None:
    machine.has("uv", f"""case " $* " in *" --python cpython>=3.11,<3.13 "*) ;; *) exit 2 ;; esac{UV}""")
    told = machine.make()
    assert told.returncode == 0, told.stderr


def test_pipx_that_is_there_is_not_asked_for(machine: Machine) -> None:
    machine.has("make")
    machine.has("pipx")
    machine.knows_packages(LATER)
    told = machine.make()
    assert "which brings its own:  pipx install uv\n" in told.stderr
    assert "apt-get" not in told.stderr


def test_an_interpreter_that_was_named_and_does_not_fit_leaves_uv_as_the_other_way(machine: Machine) -> None:
    machine.has("make")
    machine.has("python3", NEWER)
    machine.has("uv", UV)
    told = machine.make(PYTHON="python3")
    assert told.returncode == 1
    assert "python3: is Python 3.15" in told.stderr
    assert "leave PYTHON out: uv" in told.stderr


def test_root_is_told_of_no_sudo(machine: Machine) -> None:
    machine.has("id", "echo 0")
    machine.knows_packages(DEBIAN_12)
    told = machine.make()
    assert "Install what is missing:  apt-get install make python3 python3-venv" in told.stderr
    assert "sudo" not in told.stderr


def test_an_interpreter_is_told_once_where_bin_is_a_link(machine: Machine) -> None:
    machine.has("make")
    machine.has("python3", NEWER)
    link = machine.path.parent / "link"
    link.symlink_to(machine.path)
    told = machine.make(PATH=f"{machine.path}:{link}")
    assert told.stderr.count("is Python 3.15") == 1


def test_packages_that_cannot_be_fetched_leave_a_remedy_and_no_environment(machine: Machine) -> None:
    machine.has("python3", NEWER)
    machine.has("uv", UV.replace("exit 0", "echo no route >&2; exit 1"))
    told = machine.make()
    assert told.returncode == 1
    assert "no route" in told.stderr
    assert "PIP_INDEX_URL" in told.stderr
    assert not machine.venv.exists()


@pytest.mark.parametrize(
    ("dependencies", "installed"), [("locked", "requirements/dev.txt"), ("lowest", "requirements.txt")]
)
def test_the_environment_has_the_dependencies_that_are_asked_for(
    machine: Machine, dependencies: str, installed: str
) -> None:
    machine.has("uv", UV.replace("exit 0", 'echo "$@" >> "$HOME/said"'))
    made = machine.make(DEPENDENCIES=dependencies)
    assert made.returncode == 0, made.stderr
    said = (machine.home / "said").read_text()
    assert f"{installed}\n" in said
    assert ("--require-hashes" in said) == (dependencies == "locked")


def test_other_dependencies_are_refused_by_name(machine: Machine) -> None:
    machine.has("uv", UV)
    made = machine.make(DEPENDENCIES="some")
    assert made.returncode == 1
    assert "DEPENDENCIES is locked, lowest or newest, not some" in made.stderr
