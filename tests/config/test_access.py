"""Who may ask a server, and which settings are refused before it listens."""

import os

import pytest

from tasks.config import access, private
from tasks.config.access import ROLES, Tokens
from tasks.config.errors import StackError
from tasks.config.settings import Settings

OWN, OTHER = "a-token-of-the-settings", "5f0c91be5f0c91be"


def settings(home, **told):
    """Settings over a home of its own."""
    home.mkdir(exist_ok=True)
    return Settings(home=home, **told)


def tokens(use, text, mode=0o600):
    """Writes the file of tokens."""
    use.tokens_file.write_text(text)
    use.tokens_file.chmod(mode)


def test_a_token_opens_what_its_line_says(tmp_path):
    """The settings' token opens everything, one of the file its roles; what is not known opens nothing."""
    use = settings(tmp_path, token=OWN)
    tokens(use, f"# the shop\npredict,outcomes {OTHER}   # since May\n\n")
    known = Tokens.of(use)
    assert known.opens(OWN) == ROLES
    assert known.opens(OTHER) == {"predict", "outcomes"}
    for shown in ("", OWN[:-1], OWN + "x", OTHER.upper(), "predict,outcomes"):
        assert known.opens(shown) == frozenset()
    assert Tokens.of(settings(tmp_path / "other")).known == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("predict short", "shorter than 16"),
        (f"preddict {OTHER}", "'preddict' is no role"),
        (f"{OTHER}", "1 words"),
        (f"predict {OTHER} more", "3 words"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_not_understood_opens_nothing(tmp_path, text, complaint):
    """A mistake in the file ends the start with its place, and does not repeat a token."""
    use = settings(tmp_path)
    tokens(use, text)
    with pytest.raises(StackError, match=complaint) as refused:
        Tokens.of(use)
    assert OTHER not in str(refused.value)


def test_x_01_an_address_that_others_reach_wants_tokens_and_encryption(tmp_path):
    """Off loopback, or behind a proxy, both must be there, and the sentence names what is missing (X-01)."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    private.make(key, b"key")
    tls = {"tls_cert": cert, "tls_key": key}
    wide = {"host": "0.0.0.0"}  # noqa: S104
    for told, lacks in (
        (wide, "KEEPFIT_TOKEN and KEEPFIT_TLS_CERT"),
        (wide | tls, "KEEPFIT_TOKEN"),
        (wide | {"token": OWN}, "KEEPFIT_TLS_CERT"),
        ({"host": "192.0.2.7"}, "KEEPFIT_TOKEN"),
        ({"host": "example.org", "behind_proxy": True}, "KEEPFIT_TOKEN"),
        ({"behind_proxy": True}, "KEEPFIT_TOKEN"),
        ({"tls_cert": cert}, "one is set"),
        ({"tls_cert": cert, "tls_key": tmp_path / "none"}, "does not exist"),
    ):
        with pytest.raises(StackError, match=lacks):
            access.check(settings(tmp_path / "home", **told))
    for told in ({}, {"host": "localhost"}, {"host": "::1"}, wide | tls | {"token": OWN}, wide | {"behind_proxy": True, "token": OWN}):  # fmt: skip
        access.check(settings(tmp_path / "home", **told))


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
def test_x_06_a_home_that_everybody_may_write_into_is_refused(tmp_path, mode):
    """Whoever may write there could exchange the journal; the sentence says how to shut it (X-06)."""
    use = settings(tmp_path / "home")
    use.home.chmod(mode)
    with pytest.raises(StackError, match="chmod o-w"):
        access.check(use)
    use.home.chmod(0o750)
    access.check(use)


def test_x_06_a_home_of_somebody_else_is_refused(tmp_path, monkeypatch):
    """State that another user owns is not read as one's own (X-06)."""
    use = settings(tmp_path / "home")
    theirs = os.getuid() + 1
    monkeypatch.setattr(private.os, "getuid", lambda: theirs)
    with pytest.raises(StackError, match="not a folder of the current user"):
        access.check(use)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_x_06_a_secret_that_others_may_read_is_refused(tmp_path, mode):
    """The file of tokens and the key of the certificate are their owner's alone (X-06)."""
    use = settings(tmp_path / "one")
    tokens(use, f"predict {OTHER}", mode)
    with pytest.raises(StackError, match="0600"):
        access.check(use)
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(mode)
    with pytest.raises(StackError, match="0600"):
        access.check(settings(tmp_path / "two", tls_cert=tmp_path / "cert.pem", tls_key=key))
