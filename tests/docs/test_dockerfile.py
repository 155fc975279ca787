"""The Dockerfile, as far as it can be held to its word without a container engine.

Not covered: the base image, what the package index serves, and the RUN steps of the last stage. Covered by doing it:
the wheel is built from exactly the files that COPY names and .dockerignore lets through, and must hold every module.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    """One FROM and what follows it, as (instruction, rest of the line) with continuations joined."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (rest,) = self.all(instruction)
        return rest

    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for rest in self.all("ENV") for word in shlex.split(rest))


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        else:
            found[-1].steps.append((instruction, rest))
    return found


BUILD, FINAL = stages()


def copies(stage: Stage) -> list[tuple[list[str], str]]:
    """(sources, destination) of every COPY out of the build context."""
    found = []
    for rest in stage.all("COPY"):
        if not rest.startswith("--from="):
            *sources, destination = rest.split()
            found.append((sources, destination))
    return found


def in_context(path: str) -> bool:
    """Whether .dockerignore lets this path through: the last pattern decides that matches it or a directory above."""
    candidates = [path, *(str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")]
    included = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        exception = line.startswith("!")
        pattern = line.removeprefix("!").strip("/")
        # The subset of the syntax that is used here: `**/` any directories, `*` within a name, `[…]`.
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        regex = regex.replace(r"\[", "[").replace(r"\]", "]")
        if any(re.fullmatch(regex, candidate) for candidate in candidates):
            included = exception
    return included


def context(target: Path) -> None:
    """Copies into `target` what an engine would be sent of what the Dockerfile copies."""
    for sources, destination in copies(BUILD):
        for source in sources:
            path = ROOT / source
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                name = file.relative_to(ROOT).as_posix()
                if file.is_file() and in_context(name):
                    inside = file.relative_to(path) if path.is_dir() else Path(file.name)
                    copied = target / destination / inside
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copied)


def test_ignore_file_keeps_out_what_is_private_or_local() -> None:
    for name in (
        ".git/config",
        ".venv/bin/python",
        "data/relay.keys",
        "keys/mine.keys",
        "relay/data.keys",
        "keys/__pycache__/errors.cpython-313.pyc",
        "tests/conftest.py",
        ".env",
    ):
        assert not in_context(name), name


def test_every_copied_source_exists_and_is_sent() -> None:
    sources = [source for names, _ in copies(BUILD) for source in names]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert in_context(source.rstrip("/")), source
    assert copies(FINAL) == []  # the last stage takes the environment alone


def test_every_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = [source.rstrip("/") for names, _ in copies(BUILD) for source in names]
    for package in project["tool"]["setuptools"]["packages"]:
        assert package.partition(".")[0] in sources


def test_dependencies_are_installed_as_pinned() -> None:
    copied: set[str] = set()
    for instruction, rest in BUILD.steps:
        if instruction == "COPY":
            copied.update(rest.split()[:-1])
        elif instruction == "RUN":
            for command in rest.split("&&"):
                words = shlex.split(command)
                if words[0] == "pip" and "install" in words and "--no-index" not in words:
                    assert words[words.index("--constraint") + 1] in copied, command


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the build stage, by the Dockerfile's own command, with setuptools of this environment."""
    target = tmp_path_factory.mktemp("context")
    context(target)
    (command,) = [
        words
        for rest in BUILD.all("RUN")
        for words in map(shlex.split, rest.split("&&"))
        if words[:2] == ["pip", "wheel"]
    ]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=target, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (target / command[command.index("--wheel-dir") + 1]).glob("*.whl")
    return built


def test_wheel_holds_every_module(wheel: Path) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("keys", "wire", "relay")
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_entry_point_and_health_check_are_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    health = FINAL.one("HEALTHCHECK")
    for command in (FINAL.one("ENTRYPOINT"), health[health.index(" CMD ") + 5 :]):
        python, option, module = json.loads(command)  # the exec form: a shell would swallow SIGTERM
        assert (python, option) == ("python", "-m")
        path = module.replace(".", "/")
        assert f"{path}.py" in names or f"{path}/__main__.py" in names


def test_runs_as_nobody_in_particular() -> None:
    user, _, group = FINAL.one("USER").partition(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert any(f"groupadd --gid {group} " in rest and f"useradd --uid {user} " in rest for rest in FINAL.all("RUN"))
    after = FINAL.steps[FINAL.steps.index(("USER", FINAL.one("USER"))) :]
    assert "RUN" not in dict(after)  # nothing is written as that user, so it owns nothing but the data


def test_data_directory_is_the_volume() -> None:
    assert FINAL.environment()["RELAY_DATA_DIR"] == FINAL.one("VOLUME") == "/data"


def test_stages_share_a_base() -> None:
    # /venv/bin/python is a link to the base image's interpreter.
    assert BUILD.base == FINAL.base
    assert FINAL.one("COPY") == f"--from={BUILD.name} /venv /venv"


def test_stops_by_the_signal_that_drains() -> None:
    assert FINAL.one("STOPSIGNAL") == "SIGTERM"


def test_port_is_the_default_port() -> None:
    from relay.settings import Settings

    assert int(FINAL.one("EXPOSE")) == Settings.model_fields["port"].default
