"""Seals: a bundle is loaded only when somebody who is trusted has signed it."""

import shutil
from pathlib import Path

import pytest

from tasks.config.errors import ArtifactError
from tasks.config.signing import KeyFileError
from tasks.stores import bundles
from tasks.stores.seals import SEAL, Seals
from tests.serving.test_champion import fitted, manifest


@pytest.fixture(scope="module")
def model():
    """One fitted pipeline for all tests."""
    return fitted()


@pytest.fixture
def seals(tmp_path: Path) -> Seals:
    """Keys of a home of their own; none is made yet."""
    return Seals(tmp_path / "keys" / "bundle.pem", tmp_path / "keys" / "bundles")


@pytest.fixture
def signed(tmp_path, model, seals):
    """The folder of a signed bundle, and its digest."""
    return tmp_path / "1", bundles.write(tmp_path / "1", model, manifest(), seals=seals)


def test_r_03_a_signed_bundle_is_read_by_whoever_has_the_public_key_alone(tmp_path, signed, seals):
    """The private key is its owner's alone; a server without it verifies by the public half (R-03)."""
    folder, digest = signed
    assert seals.key.stat().st_mode & 0o777 == 0o600
    elsewhere = Seals(tmp_path / "no key here.pem", tmp_path / "server")
    with pytest.raises(ArtifactError, match="nobody here trusts"):
        bundles.opened(folder, digest, seals=elsewhere)
    shutil.copytree(seals.trusted, elsewhere.trusted)
    assert bundles.opened(folder, digest, seals=elsewhere).manifest["project"] == "flights"
    assert not elsewhere.key.exists()


def test_r_03_an_unsigned_bundle_is_refused(signed, seals):
    """A bundle whose signature is gone, empty or no signature is not loaded, though its digest is the released one (R-03)."""
    folder, digest = signed
    for content in (b"", b"{}", b"\xff\xfe", b'{"key":"00","signature":1}'):
        (folder / SEAL).write_bytes(content)
        with pytest.raises(ArtifactError, match="no signature"):
            bundles.read(folder, digest, seals=seals)
    (folder / SEAL).unlink()
    with pytest.raises(ArtifactError, match="nobody has signed the model"):
        bundles.read(folder, digest, seals=seals)
    (folder / SEAL).write_bytes(bytes(bundles.SEAL_BYTES + 1))
    with pytest.raises(ArtifactError, match="at most"):
        bundles.read(folder, digest, seals=seals)


def test_r_03_a_signature_of_something_else_is_refused(tmp_path, signed, seals, model):
    """Neither another bundle's signature by the same key counts, nor an altered one, nor a stranger's (R-03)."""
    folder, digest = signed
    own = (folder / SEAL).read_bytes()
    other = bundles.write(tmp_path / "2", model, manifest(2), seals=seals)
    assert other != digest
    (folder / SEAL).write_bytes((tmp_path / "2" / SEAL).read_bytes())
    with pytest.raises(ArtifactError, match="is not what the key"):
        bundles.read(folder, digest, seals=seals)
    (folder / SEAL).write_bytes(own.replace(b'"signature":"', b'"signature":"00')[:-4] + b'"}')
    with pytest.raises(ArtifactError, match="is not what the key"):
        bundles.read(folder, digest, seals=seals)
    stranger = Seals(tmp_path / "stranger" / "bundle.pem", tmp_path / "stranger" / "bundles")
    (folder / SEAL).write_bytes(stranger.sign(digest))
    with pytest.raises(ArtifactError, match="nobody here trusts"):
        bundles.read(folder, digest, seals=seals)


def test_r_03_a_retired_keys_signatures_count_until_its_public_half_is_taken_away(tmp_path, signed, seals, model):
    """After a new key was made the old one's bundles are read; when its file is removed they are not (R-03)."""
    folder, digest = signed
    seals.key.rename(tmp_path / "retired.pem")
    newer = bundles.write(tmp_path / "2", model, manifest(2), seals=seals)
    assert len(list(seals.trusted.glob("*.pub"))) == 2
    old = bundles.opened(folder, digest, seals=seals)
    new = bundles.opened(tmp_path / "2", newer, seals=seals)
    assert old.files[SEAL][:30] != new.files[SEAL][:30]
    named = next(path for path in seals.trusted.glob("*.pub") if path.read_text().strip() in old.files[SEAL].decode())
    named.unlink()
    with pytest.raises(ArtifactError, match="nobody here trusts"):
        bundles.opened(folder, digest, seals=seals)
    bundles.opened(tmp_path / "2", newer, seals=seals)


def test_keys_that_others_may_write_or_read_are_not_used(signed, seals, tmp_path, model):
    """A public key that others may write, and a private one that they may read, could be anybody's."""
    folder, digest = signed
    (public,) = seals.trusted.glob("*.pub")
    public.chmod(0o666)
    with pytest.raises(KeyFileError, match="mode 0666"):
        bundles.opened(folder, digest, seals=seals)
    public.chmod(0o644)
    seals.key.chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        bundles.write(tmp_path / "3", model, manifest(3), seals=seals)
    assert not (tmp_path / "3").exists()


@pytest.mark.parametrize("content", ["a key".encode("utf-16"), None])
def test_a_public_key_that_cannot_be_read_is_named(signed, seals, content, monkeypatch):
    """It is UTF-16, or the disk does not give it: the error is one of keys, with the file's name."""
    folder, digest = signed
    (seals.trusted / "00.pub").write_bytes(content or b"00")
    (seals.trusted / "00.pub").chmod(0o644)
    read = Path.read_text

    def text(path, *what, **how):
        if content is None and path.name == "00.pub":
            raise OSError(5, "Input/output error")
        return read(path, *what, **how)

    monkeypatch.setattr(Path, "read_text", text)
    with pytest.raises(KeyFileError, match=r"00\.pub cannot be read"):
        bundles.opened(folder, digest, seals=seals)


def test_a_public_key_that_is_taken_away_meanwhile_does_not_count(signed, seals, monkeypatch):
    """The folder was listed before: the others count as they did."""
    folder, digest = signed
    (seals.trusted / "00.pub").write_text("00")
    listed = list(seals.trusted.glob("*.pub"))
    (seals.trusted / "00.pub").unlink()
    monkeypatch.setattr(Path, "glob", lambda *_: listed)
    assert bundles.opened(folder, digest, seals=seals).manifest["project"] == "flights"


def test_signing_again_changes_nothing(signed, seals, model):
    """The same bundle written again has the same signature: a repeated step leaves no trace."""
    folder, digest = signed
    before = (folder / SEAL).read_bytes()
    assert bundles.write(folder, model, manifest(), seals=seals) == digest
    assert (folder / SEAL).read_bytes() == before == seals.sign(digest)
