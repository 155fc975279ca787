"""The mechanism of tests/support/needs.py, in pytest runs of its own."""

from __future__ import annotations

import re

import pytest

from tests.support import needs

TESTS = """
    import pytest

    @pytest.fixture
    def with_program():
        raise AssertionError("set up although the program is missing")

    @pytest.mark.needs("absent", "also-absent")
    def test_program(with_program):
        raise AssertionError("ran although the program is missing")

    @pytest.mark.needs_module("absent_module")
    def test_module():
        raise AssertionError("ran although the module is missing")

    @pytest.mark.needs("present")
    @pytest.mark.needs_module("sys")
    def test_all_there():
        pass

    def test_plain():
        pass
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with TESTS, and a PATH that holds one program, called `present`."""
    present = pytester.mkdir("bin") / "present"
    present.write_text("#!/bin/sh\n")
    present.chmod(0o755)
    monkeypatch.setenv("PATH", str(present.parent))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(needs, "PROGRAMS", {"absent": "absent-package", "also-absent": "other", "present": "present"})
    monkeypatch.setattr(needs, "MODULES", {"absent_module": "some-extra", "sys": "none"})
    pytester.makepyfile(TESTS)
    return pytester


def run(inner: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return inner.runpytest_inprocess("-p", "tests.support.needs", "--strict-markers", *arguments)


def test_missing_is_skipped_and_named(inner: pytest.Pytester) -> None:
    result = run(inner)
    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "*skipped: something is not installed*",
            ".venv/bin/python -m pip install -c constraints.txt -e '.[[]some-extra]'   # runs 1 more",
            "    *::test_module (needs absent_module)",
            "apt-get install absent-package other   # runs 1 more",
            "    *::test_program (needs absent, also-absent)",
        ],
        consecutive=True,
    )


def test_closing_line_stays_last(inner: pytest.Pytester) -> None:
    result = run(inner)
    assert re.search(r"2 passed, 2 skipped in ", [line for line in result.outlines if line][-1])


def test_missing_fails_in_ci(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run(inner)
    result.assert_outcomes(passed=2, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*needs absent, also-absent, and CI=true*apt-get install absent-package other"])


def test_what_no_machine_of_this_kind_has_is_skipped_in_ci(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(needs, "PLATFORMS", {"absent_module": [("Plan 9", "vax")]})
    result = run(inner, "-k", "test_module")
    result.assert_outcomes(skipped=1, deselected=3)
    result.stdout.fnmatch_lines(["not available on *", "    *::test_module (needs absent_module)"])


def test_nothing_missing_prints_no_section(inner: pytest.Pytester) -> None:
    result = run(inner, "-k", "all_there or plain")
    result.assert_outcomes(passed=2, deselected=2)
    result.stdout.no_fnmatch_line("*not installed*")


def test_unknown_name_stops_the_run(inner: pytest.Pytester) -> None:
    inner.makepyfile("import pytest\n@pytest.mark.needs('sh')\ndef test_it(): pass\n")
    result = run(inner)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs(sh): not in tests/support/needs.py"])
