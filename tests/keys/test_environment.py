"""The keys of a relay as its environment gives them: keys.files.server_keys_from_environment."""

from pathlib import Path

import pytest

from keys import files
from keys.errors import KeyFileError
from tests.keys.known import SERVER, VECTORS

X = VECTORS["server"]["x_seed"]
ED = VECTORS["server"]["ed_seed"]
XV, EDV = files.X_VARIABLE, files.ED_VARIABLE


def test_variable_names() -> None:
    assert (XV, EDV, files.FILE_SUFFIX) == ("RELAY_X25519_SECRET", "RELAY_ED25519_SECRET", "_FILE")


def test_no_keys_in_the_environment() -> None:
    assert files.server_keys_from_environment({"PATH": "/bin", "RELAY_PORT": "8090"}) is None


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_keys_in_variables_and_files(tmp_path: Path, ending: str) -> None:
    x_file, ed_file = tmp_path / "x", tmp_path / "ed"
    x_file.write_text(X + ending, newline="")
    ed_file.write_text(ED.upper() + ending, newline="")
    for file in (x_file, ed_file):
        file.chmod(0o444)  # as container runtimes mount them
    for environ in (
        {XV: X, EDV: ED},
        {XV + "_FILE": str(x_file), EDV + "_FILE": str(ed_file)},
        {XV: X, EDV + "_FILE": str(ed_file)},
        {XV + "_FILE": str(x_file), EDV: ED},
    ):
        keys = files.server_keys_from_environment(environ)
        assert keys is not None
        assert keys.identity.seeds == SERVER.seeds
        assert keys.notifier_id is None


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({XV: X}, f"{XV} is given, so {EDV} .or {EDV}_FILE. is needed too"),
        ({EDV: ED}, f"{EDV} is given, so {XV} .or {XV}_FILE. is needed too"),
        ({XV + "_FILE": "good"}, f"{XV} is given, so {EDV}"),
        ({XV: X, EDV: ED, XV + "_FILE": "good"}, f"{XV} and {XV}_FILE are both given"),
        ({XV: X, EDV: ED, EDV + "_FILE": ""}, f"{EDV} and {EDV}_FILE are both given"),
        ({XV: "", EDV: ED}, f"{XV} is empty"),
        ({XV: "", EDV: ""}, f"{XV} is empty"),
        ({XV: X, EDV + "_FILE": ""}, f"{EDV}_FILE is empty"),
        ({XV: X[:-1], EDV: ED}, f"{XV} has 63 hex digits instead of 64"),
        ({XV: X, EDV: ED + "00"}, f"{EDV} has 66 hex digits instead of 64"),
        ({XV: X[:-1] + "g", EDV: ED}, f"{XV} must be 64 hex digits and nothing else"),
        ({XV: X + "\n", EDV: ED}, f"{XV} must be 64 hex digits and nothing else"),
        ({XV: f'"{X}"', EDV: ED}, f"{XV} must be 64 hex digits and nothing else"),
        ({XV + "_FILE": "absent", EDV: ED}, f"the file of {XV}_FILE cannot be read: No such file"),
        ({XV + "_FILE": ".", EDV: ED}, f"the file of {XV}_FILE cannot be read: Is a directory"),
        ({XV + "_FILE": X, EDV: ED}, f"the file of {XV}_FILE cannot be read: No such file"),
        ({XV + "_FILE": X + "\0", EDV: ED}, f"the file of {XV}_FILE cannot be read: not a file name"),
        ({XV + "_FILE": "empty", EDV: ED}, f"the file of {XV}_FILE has 0 hex digits instead of 64"),
        ({XV + "_FILE": "short", EDV: ED}, f"the file of {XV}_FILE has 62 hex digits instead of 64"),
        ({XV + "_FILE": "long", EDV: ED}, f"the file of {XV}_FILE has 16384 hex digits instead of 64"),
        ({XV + "_FILE": "spaced", EDV: ED}, f"the file of {XV}_FILE must be 64 hex digits"),
        ({XV + "_FILE": "binary", EDV: ED}, f"the file of {XV}_FILE must be 64 hex digits"),
    ],
)
def test_environments_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "good": X.encode(),
        "empty": b"",
        "short": X[:-2].encode(),
        "long": b"0" * 20000,
        "spaced": f" {X}".encode(),
        "binary": b"\xff" * 64,
    }.items():
        Path(name).write_bytes(content)
    with pytest.raises(KeyFileError, match=why) as caught:
        files.server_keys_from_environment(environ)
    assert X[:12] not in str(caught.value)
    assert ED[:12] not in str(caught.value)
