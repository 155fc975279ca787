"""Which certificates and keys are taken, and what is said of the others."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from relay.tls import BadCertificate, Certificate
from tests.support.certificates import Files, make_certificate


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_certificate(tmp_path)


def refused(files: Files) -> str:
    with pytest.raises(BadCertificate) as caught:
        Certificate(*files)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_what_a_server_speaks(files: Files) -> None:
    context = Certificate(*files).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_a_key_of_user_and_group(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    Certificate(*files)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601])
def test_a_key_that_everybody_may_read(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    error = refused(files)
    assert f"mode {mode:04o}" in error
    assert f"chmod o= {files.key}" in error


@pytest.mark.parametrize("which", ["chain", "key"])
def test_a_file_that_is_not_there(files: Files, which: str) -> None:
    path: Path = getattr(files, which)
    path.unlink()
    assert refused(files) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize("which", ["chain", "key"])
def test_a_file_that_is_not_pem(files: Files, which: str) -> None:
    path: Path = getattr(files, which)
    path.write_text("")
    error = refused(files)
    assert str(files.chain) in error
    assert str(files.key) in error
    assert "PEM" in error


def test_a_key_of_another_certificate(files: Files, tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "other")
    assert "is not the key of the certificate" in refused(Files(files.chain, other.key))


@pytest.mark.needs("openssl")
def test_a_key_under_a_passphrase_is_refused_and_nobody_is_asked(files: Files, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed.key"
    command = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:secret", "-out", str(sealed)]
    subprocess.run(command, check=True, capture_output=True)
    sealed.chmod(0o600)
    assert "without a passphrase" in refused(Files(files.chain, sealed))


def test_what_cannot_be_used_leaves_the_old_one_in_force(files: Files, tmp_path: Path) -> None:
    certificate = Certificate(*files)
    before = certificate.context
    other = make_certificate(tmp_path, "other")
    shutil.copy(other.chain, files.chain)
    with pytest.raises(BadCertificate):
        certificate.reload()
    assert certificate.context is before
    files.key.write_bytes(other.key.read_bytes())
    certificate.reload()
    assert certificate.context is not before
