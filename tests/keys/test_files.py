import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys import primitives as p
from keys.errors import BadInvite, KeyFileError, OpenError
from keys.files import (
    ClientKeys,
    ServerKeys,
    read_identity,
    read_keys,
    read_server_keys,
    write_identity,
    write_server_keys,
)
from keys.identity import Identity
from keys.passphrase import DEFAULT_COST
from tests.keys.known import ALICE, CHEAP, NOTIFIER, SERVER, VECTORS, drawn

X = VECTORS["server"]["x_seed"]
ED = VECTORS["server"]["ed_seed"]
PAIR = f'x25519_secret = "{X}"\ned25519_secret = "{ED}"\n'
PASSPHRASE = b"correct horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.keys"


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def never() -> bytes:
    raise AssertionError("asked for a passphrase")


# --- Servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notifier_id", [None, NOTIFIER.id])
def test_server_round_trip(path: Path, notifier_id: bytes | None) -> None:
    write_server_keys(path, ServerKeys(SERVER, notifier_id))
    for keys in (read_server_keys(path), read_keys(path, never)):
        assert isinstance(keys, ServerKeys)
        assert keys.identity.seeds == SERVER.seeds
        assert keys.notifier_id == notifier_id
    fields = {"x25519_secret": X, "ed25519_secret": ED}
    assert tomllib.loads(path.read_text()) == fields | ({"notifier_id": notifier_id.hex()} if notifier_id else {})


def test_what_people_may_write(path: Path) -> None:
    notifier_id = NOTIFIER.id.hex().upper()
    put(path, f"# ours\ned25519_secret='{ED.upper()}'\nnotifier_id = '{notifier_id}' # push\nx25519_secret=\"{X}\"\r\n")
    assert read_server_keys(path).identity.seeds == SERVER.seeds
    assert read_server_keys(path).notifier_id == NOTIFIER.id


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "x25519_secret is missing"),
        (f'x25519_secret = "{X}"\n', "has x25519_secret but no ed25519_secret: they are a pair"),
        (f'ed25519_secret = "{ED}"\n', "has ed25519_secret but no x25519_secret: they are a pair"),
        (f'x25519_secret = "{X[:-2]}"\ned25519_secret = "{ED}"\n', "x25519_secret has 62 hex digits instead of 64"),
        (f'x25519_secret = "{X[:-1]}"\ned25519_secret = "{ED}"\n', "x25519_secret has 63 hex digits instead of 64"),
        (f'x25519_secret = "{X}00"\ned25519_secret = "{ED}"\n', "x25519_secret has 66 hex digits instead of 64"),
        (f'x25519_secret = "{X}"\ned25519_secret = ""\n', "ed25519_secret has 0 hex digits instead of 64"),
        (f'x25519_secret = "{X[:-1]}g"\ned25519_secret = "{ED}"\n', "x25519_secret must be 64 hex digits"),
        (f'x25519_secret = "{X[:-1]} "\ned25519_secret = "{ED}"\n', "x25519_secret must be 64 hex digits"),
        (f'x25519_secret = "{X[:-1]}٣"\ned25519_secret = "{ED}"\n', "x25519_secret must be 64 hex digits"),
        (f'x25519_secret = "{X}\\n"\ned25519_secret = "{ED}"\n', "x25519_secret must be 64 hex digits"),
        (f'x25519_secret = {X}\ned25519_secret = "{ED}"\n', "x25519_secret must be a string"),
        (f'x25519_secret = ["{X}"]\ned25519_secret = "{ED}"\n', "x25519_secret must be a string"),
        (f'x25519_secret = true\ned25519_secret = "{ED}"\n', "x25519_secret must be a string"),
        (PAIR + 'notifier_id = "7a1a"\n', "notifier_id has 4 hex digits instead of 16"),
        (PAIR + "notifier_id = 7\n", "notifier_id must be a string"),
        (PAIR + 'notifier_id = "0000000000000000"\n', "notifier_id must not be all zeros"),
        (PAIR + 'x25519_public = "00"\n', "unknown key: x25519_public"),
        (PAIR + "[table]\n", "unknown key: table"),
        (PAIR + f'{X} = "x25519"\n', "unknown key: one with another name"),
        (PAIR + f'"{X[:20]} " = "x25519"\n', "unknown key: one with another name"),
        (PAIR + 'nickname = "Alice"\n', "key file of a client, not of a server"),
        ("[sealed]\n", "key file of a client, not of a server"),
        (PAIR + PAIR, r"not valid TOML \(line 3, column \d+\)"),
        (X, r"not valid TOML"),
        (f"x25519_secret = {X}g\n", r"not valid TOML \(line 1, column \d+\)"),
        (f'x25519_secret = "{X}', "not valid TOML"),
        (f"[{X}]\n[{X}]\n", "not valid TOML"),
        ("a = " + "[" * 8000, "nested too deeply|not valid TOML"),
        ("a = " + "9" * 8000, "not valid TOML"),
        ("a = 2000-13-45\n", "not valid TOML"),
        (b"\xff\xfe" + PAIR.encode("utf-16-le"), "not UTF-8"),
        (b"\0" * 64, "not valid TOML"),
    ],
)
def test_server_files_that_are_refused(path: Path, content: str | bytes, why: str) -> None:
    put(path, content)
    with pytest.raises(KeyFileError, match=why) as caught:
        read_server_keys(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert X[:12] not in text
    assert ED[:12] not in text


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_a_notifier_id_has_8_bytes(size: int) -> None:
    with pytest.raises(KeyFileError, match="8 bytes"):
        ServerKeys(SERVER, b"\x01" * size)


def test_no_overwriting_unless_asked_to(path: Path) -> None:
    write_server_keys(path, ServerKeys(SERVER))
    with pytest.raises(KeyFileError, match="exists"):
        write_server_keys(path, ServerKeys(ALICE))
    assert read_server_keys(path).identity.seeds == SERVER.seeds
    write_server_keys(path, ServerKeys(ALICE), overwrite=True)
    assert read_server_keys(path).identity.seeds == ALICE.seeds
    with pytest.raises(KeyFileError, match="exists"):
        write_identity(path, ClientKeys(ALICE))
    write_identity(path, ClientKeys(ALICE), overwrite=True)


@pytest.mark.parametrize("read", [read_server_keys, read_identity, read_keys])
def test_modes_are_checked_whatever_is_read(path: Path, read: Any) -> None:
    put(path, PAIR).chmod(0o640)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read(path)


def test_the_seed_whose_id_would_be_the_servers_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "x25519_public", lambda _: bytes(8) + b"\x05" * 24)
    with pytest.raises(KeyFileError, match="must not be used: the all-zero id"):
        read_server_keys(put(path, PAIR))


# --- Clients --------------------------------------------------------------------------------------------------------

NICKNAMES = ["", "Alice", "Алиса\u241finfo", 'quote " \\ \n \x7f \x00', "ü" * 128]


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_client_round_trip(path: Path, nickname: str) -> None:
    write_identity(path, ClientKeys(ALICE, nickname))
    keys = read_identity(path, never)
    assert keys.identity.seeds == ALICE.seeds
    assert keys.nickname == nickname
    assert keys.invite.nickname == nickname
    assert keys.invite.public == ALICE.public


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_sealed_round_trip(path: Path, nickname: str) -> None:
    write_identity(path, ClientKeys(ALICE, nickname), passphrase=PASSPHRASE, cost=CHEAP)
    keys = read_identity(path, lambda: PASSPHRASE)
    assert keys.identity.seeds == ALICE.seeds
    assert keys.nickname == nickname
    content = path.read_bytes()
    for hidden in (*ALICE.seeds, ALICE.public.x_pub, ALICE.public.ed_pub):
        assert hidden not in content
        assert hidden.hex().encode() not in content
    assert not nickname or nickname.encode() not in content


def test_sealed_with_the_default_cost(path: Path) -> None:
    write_identity(path, ClientKeys(ALICE, "Alice"), passphrase=PASSPHRASE)
    sealed = tomllib.loads(path.read_text())["sealed"]
    assert (sealed["opslimit"], sealed["memlimit"]) == (DEFAULT_COST.opslimit, DEFAULT_COST.memlimit)
    assert read_identity(path, lambda: PASSPHRASE).nickname == "Alice"


def test_a_wrong_passphrase(path: Path) -> None:
    write_identity(path, ClientKeys(ALICE), passphrase=PASSPHRASE, cost=CHEAP)
    for wrong in (b"", PASSPHRASE + b"\n", PASSPHRASE[:-1]):
        with pytest.raises(OpenError):
            read_identity(path, lambda wrong=wrong: wrong)  # type: ignore[misc]
    with pytest.raises(KeyFileError, match="sealed under a passphrase, and none is given"):
        read_identity(path)


def test_a_passphrase_that_cannot_be_had(path: Path) -> None:
    write_identity(path, ClientKeys(ALICE), passphrase=PASSPHRASE, cost=CHEAP)
    with pytest.raises(AssertionError, match="asked"):
        read_identity(path, never)


def test_an_empty_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(KeyFileError, match="passphrase is empty"):
        write_identity(path, ClientKeys(ALICE), passphrase=b"")
    assert not path.exists()


def sealed_fields(path: Path) -> dict[str, Any]:
    write_identity(
        path,
        ClientKeys(ALICE, "Alice"),
        passphrase=PASSPHRASE,
        cost=CHEAP,
        random_bytes=drawn(b"s" * 16, b"n" * 24),
        overwrite=True,
    )
    fields: dict[str, Any] = tomllib.loads(path.read_text())["sealed"]
    return fields


def test_every_part_that_is_sealed_is_bound(path: Path) -> None:
    fields = sealed_fields(path)
    box = bytes.fromhex(fields["box"])
    changes: list[dict[str, Any]] = [{"opslimit": 2}, {"memlimit": 16384}, {"salt": "00" * 16}]
    changes += [{"box": (box[:i] + bytes([box[i] ^ 1]) + box[i + 1 :]).hex()} for i in range(len(box))]
    changes += [{"box": box[:-1].hex()}, {"box": (box + b"\0").hex()}]
    for change in changes:
        put(path, tomli_w.dumps({"sealed": fields | change}))
        with pytest.raises(OpenError):
            read_identity(path, lambda: PASSPHRASE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"memlimit": 1 << 31}, "sealed: memlimit must be between"),
        ({"memlimit": 1 << 62}, "sealed: memlimit must be between"),
        ({"memlimit": 0}, "sealed: memlimit must be between"),
        ({"memlimit": -1}, "sealed: memlimit must be between"),
        ({"opslimit": 1 << 62}, "sealed: opslimit must be between"),
        ({"opslimit": 5, "memlimit": 1 << 30}, "sealed: opslimit must be between"),
        ({"opslimit": 0}, "sealed: opslimit must be between"),
        ({"opslimit": True}, "sealed.opslimit must be an integer"),
        ({"opslimit": 1.0}, "sealed.opslimit must be an integer"),
        ({"memlimit": "8192"}, "sealed.memlimit must be an integer"),
        ({"kdf": "scrypt"}, "sealed.kdf must be argon2id"),
        ({"kdf": 1}, "sealed.kdf must be a string"),
        ({"salt": "00" * 15}, "sealed.salt has 30 hex digits instead of 32"),
        ({"salt": "0g" * 16}, "sealed.salt must be 32 hex digits"),
        ({"box": ""}, "sealed.box has 0 hex digits instead of 208 to 720"),
        ({"box": "00" * 103}, "sealed.box has 206 hex digits instead of 208 to 720"),
        ({"box": "00" * 361}, "sealed.box has 722 hex digits instead of 208 to 720"),
        ({"box": "0" * 209}, "sealed.box has 209 hex digits instead of 208 to 720"),
        ({"parallelism": 4}, "unknown key: sealed.parallelism"),
    ],
)
def test_hostile_parameters_are_refused_before_any_work(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], why: str
) -> None:
    put(path, tomli_w.dumps({"sealed": sealed_fields(path) | change}))
    monkeypatch.setattr(p, "passphrase_key", lambda *_, **__: pytest.fail("derived a key"))
    with pytest.raises(KeyFileError, match=why):
        read_identity(path, never)


@pytest.mark.parametrize("missing", ["kdf", "opslimit", "memlimit", "salt", "box"])
def test_sealed_fields_are_all_needed(path: Path, missing: str) -> None:
    fields = sealed_fields(path)
    del fields[missing]
    put(path, tomli_w.dumps({"sealed": fields}))
    with pytest.raises(KeyFileError, match=f"sealed.{missing} is missing"):
        read_identity(path, never)


def test_memory_that_cannot_be_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_identity(path, ClientKeys(ALICE), passphrase=PASSPHRASE, cost=CHEAP)

    def fail(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(p, "passphrase_key", fail)
    with pytest.raises(KeyFileError, match="MiB of memory, which cannot be had"):
        read_identity(path, lambda: PASSPHRASE)
    with pytest.raises(KeyFileError, match="256 MiB of memory, which cannot be had"):
        write_identity(path.with_name("b.keys"), ClientKeys(ALICE), passphrase=PASSPHRASE)


def test_a_sealed_nickname_that_is_no_text(path: Path) -> None:
    fields = sealed_fields(path)
    key = p.passphrase_key(PASSPHRASE, b"s" * 16, opslimit=1, memlimit=8192)
    box = p.secretbox_seal(key, b"n" * 24, b"".join(ALICE.seeds) + b"\xff")
    put(path, tomli_w.dumps({"sealed": fields | {"box": box.hex()}}))
    with pytest.raises(KeyFileError, match="nickname is not UTF-8"):
        read_identity(path, lambda: PASSPHRASE)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (PAIR, "key file of a server"),
        (PAIR + "nickname = 1\n", "nickname must be a string"),
        (PAIR + f'nickname = "{"a" * 257}"\n', "the nickname has 257 bytes"),
        ('nickname = "Alice"\n', "x25519_secret is missing"),
        (f'nickname = "Alice"\nx25519_secret = "{X}"\n', "no ed25519_secret: they are a pair"),
        (PAIR + 'nickname = "Alice"\nnotifier_id = "7a1a4e709bf085ac"\n', "unknown key: notifier_id"),
        ("sealed = 1\n", "sealed must be a table"),
        (PAIR + "[sealed]\n", "unknown key: x25519_secret"),
    ],
)
def test_client_files_that_are_refused(path: Path, content: str, why: str) -> None:
    with pytest.raises(KeyFileError, match=why) as caught:
        read_identity(put(path, content), never)
    assert X[:12] not in str(caught.value)


def test_a_nickname_is_bounded_where_it_is_made() -> None:
    with pytest.raises(BadInvite, match="257 bytes"):
        ClientKeys(ALICE, "a" * 257)


# --- Any bytes ------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["x25519_secret", "ed25519_secret", "notifier_id", "nickname", "sealed", "kdf", "box", "other"])
VALUES = st.one_of(
    st.sampled_from([X, ED, NOTIFIER.id.hex(), "argon2id", ""]),
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=9), max_size=3),
)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.text(st.characters(codec="utf-8"), max_size=300).map(str.encode),
    st.dictionaries(NAMES, VALUES, max_size=4).map(lambda fields: tomli_w.dumps(fields).encode()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(CONTENTS)
def test_any_bytes_give_keys_or_a_key_file_error(path: Path, content: bytes) -> None:
    put(path, content)
    try:
        keys = read_keys(path, lambda: b"")
    except KeyFileError as error:
        assert X[:12] not in str(error)
    else:
        assert isinstance(keys.identity, Identity)
