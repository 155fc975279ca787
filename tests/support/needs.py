"""A pytest plugin for tests that need a program or a module which not every machine has.

    @pytest.mark.needs("node", "npm")    # programs on PATH
    @pytest.mark.needs_module("atheris")  # Python modules

Where one is missing the test is skipped, and the end of the run names it under the command that would make it run.
Where `CI=true` it fails instead: a check that silently stopped running is worse than one that fails.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = {  # program: Debian package; `.ci/run` installs the same
    "caddy": "caddy",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "shellcheck": "shellcheck",
    "systemd-analyze": "systemd",
}
MODULES = {  # module: extra of ours in pyproject.toml
    "atheris": "fuzz",
    "nats": "cluster",  # and with it the program nats-server
}
# The platforms on which a module can be had at all, as pyproject.toml marks it. Elsewhere even the CI only skips.
PLATFORMS = {"atheris": [("Linux", "x86_64")]}

_PROPERTY = "needs"  # reports carry (install line, what is missing) under this name, so that it survives pytest-xdist


def missing_programs(names: Sequence[str]) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


def missing_modules(names: Sequence[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def install_line(programs: Sequence[str], modules: Sequence[str]) -> str:
    """The command that installs these programs and modules.

    Raises KeyError for a name that the registry above does not have.
    """
    packages = list(dict.fromkeys(PROGRAMS[name] for name in programs))
    extras = list(dict.fromkeys(MODULES[name] for name in modules))
    lines = []
    if packages:
        lines.append("apt-get install " + " ".join(packages))
    if extras:
        lines.append(f".venv/bin/python -m pip install -c constraints.txt -e '.[{','.join(extras)}]'")
    return " && ".join(lines)


def _wanted(item: pytest.Item, mark: str) -> list[str]:
    return list(dict.fromkeys(name for marker in item.iter_markers(mark) for name in marker.args))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip, or fail where CI=true, unless these are on PATH")
    config.addinivalue_line("markers", "needs_module(*modules): the same for Python modules")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Finds an unknown name before anything runs, also on a machine that has the program."""
    for item in items:
        for mark, registry in (("needs", PROGRAMS), ("needs_module", MODULES)):
            unknown = [name for name in _wanted(item, mark) if name not in registry]
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: {mark}({', '.join(unknown)}): not in tests/support/needs.py")


@pytest.hookimpl(tryfirst=True)  # before any fixture that would use what is missing
def pytest_runtest_setup(item: pytest.Item) -> None:
    programs = missing_programs(_wanted(item, "needs"))
    modules = missing_modules(_wanted(item, "needs_module"))
    if not programs and not modules:
        return
    names = ", ".join([*programs, *modules])
    here = (platform.system(), platform.machine())
    if any(here not in PLATFORMS.get(name, [here]) for name in modules):
        line = f"not available on {here[0]} {here[1]}"
    else:
        line = install_line(programs, modules)
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs {names}, and CI=true allows no skipping: {line}", pytrace=False)
    item.user_properties.append((_PROPERTY, (line, names)))
    pytest.skip(f"needs {names}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    by_line: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        for key, value in getattr(report, "user_properties", ()):
            if key == _PROPERTY:
                line, names = value
                by_line[line].append(f"{report.nodeid} (needs {names})")
    if not by_line:
        return
    terminalreporter.write_sep("=", "skipped: something is not installed")
    for line, tests in sorted(by_line.items()):
        terminalreporter.write_line(f"{line}   # runs {len(tests)} more")
        for test in tests:
            terminalreporter.write_line(f"    {test}")
