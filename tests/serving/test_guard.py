"""Who gets in: tokens and their roles on every route, encryption, and a server that does not start where it should not."""

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import subprocess
import sys

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tasks.config import private
from tasks.config.settings import Settings
from tasks.serving.app import Door
from tests.stage import GOOD, Stage, until

TOKEN = "canary-of-the-server"
PREDICTS, MEASURES, REPORTS, ORDERS = (
    f"{role}-canary-0123456789" for role in ("predict", "metrics", "outcomes", "trainings")
)
OPEN = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
ROUTES = {
    ("POST", "/projects/flights/predict"): PREDICTS,
    ("POST", "/v2/models/flights/infer"): PREDICTS,
    ("POST", "/invocations/flights"): PREDICTS,
    ("GET", "/metrics"): MEASURES,
    ("POST", "/projects/flights/outcomes"): REPORTS,
    ("POST", "/projects/flights/batches"): TOKEN,
    ("POST", "/projects/flights/trainings"): ORDERS,
    ("GET", "/projects/flights/trainings/1"): ORDERS,
}  # which token, apart from the one that opens everything, opens a route; the others are open to every token


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a champion and a file of tokens."""
    stage = Stage(tmp_path_factory.mktemp("guard"))
    stage.write(1, 0.2)
    stage.release(1)
    private.make(
        stage.home / "serving.tokens",
        f"predict {PREDICTS}\nmetrics {MEASURES}\noutcomes {REPORTS}\ntrainings {ORDERS}\n".encode(),
    )
    return stage.home


def statuses(home, requests):
    """The answers to (method, path, headers) by a door that wants tokens."""

    async def scene():
        opened = Door(Settings(home=home, token=TOKEN))
        opened.succession.look()
        transport = httpx.ASGITransport(opened.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(scene())


def routes(home):
    """Every method and path of the door that a token opens, with a project put in."""
    return [
        (method, route.path.replace(":int", "").format(project="flights", id=1))
        for route in Door(Settings(home=home)).routes()
        if not route.path.startswith("/hooks/")
        for method in sorted(set(route.methods or ()) - {"HEAD"})
    ]


def shown(token, scheme="Bearer"):
    """The header that shows a token."""
    return {"Authorization": f"{scheme} {token}"}


def test_v_09_nothing_but_the_open_list_answers_without_a_token(home):
    """None, wrong, empty, longer, shorter, another scheme: 401 on every route but four, and on paths that look like those (V-09)."""
    wrong = [
        {},
        shown(""),
        shown("x"),
        shown(TOKEN + "x"),
        shown(TOKEN[:-1]),
        shown(TOKEN, "Basic"),
        {"Authorization": TOKEN},
    ]
    like = [f"{path}{end}" for path in OPEN for end in ("/", "/x", "x", "%00", "/../metrics", "//metrics")]
    asked = [(method, path) for method, path in routes(home) if path not in OPEN]
    asked += [("GET", path) for path in [*like, "/", "/SECRET", "//healthz", "/HEALTHZ"]]
    answers = statuses(home, [(method, path, headers) for method, path in asked for headers in wrong])
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert not [answer for answer in answers if TOKEN in answer.text or "SECRET" in answer.text]
    free = statuses(home, [("GET", path, headers) for path in sorted(OPEN) for headers in wrong])
    assert {answer.status_code for answer in free} == {200}
    assert "flights" not in "".join(answer.text for answer in free)


def test_v_09_a_token_opens_what_its_roles_say(home):
    """The settings' token is let in everywhere; another one where its role counts, and gets 403 elsewhere (V-09)."""
    asked = [(method, path) for method, path in routes(home) if path not in OPEN]
    for token in (TOKEN, PREDICTS, MEASURES, REPORTS, ORDERS):
        answers = statuses(home, [(method, path, shown(token)) for method, path in asked])
        for (method, path), answer in zip(asked, answers, strict=True):
            need = ROUTES.get((method, path)) or (TOKEN if path.endswith("/batches") else None)
            refused = need is not None and token not in {TOKEN, need}
            assert (answer.status_code == 403) == refused, (token, method, path)
            assert answer.status_code != 401
    (ready,) = statuses(home, [("GET", "/readyz", shown(MEASURES))])
    assert ready.json()["projects"] == {"flights": 1}


def started(home, **told):
    """A serving process that should end by itself."""
    settings = {f"KEEPFIT_{name}": str(value) for name, value in told.items()}
    return subprocess.run(
        [sys.executable, "-m", "tasks.serving.app"], env=os.environ | {"KEEPFIT_HOME": str(home)} | settings,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_x_01_the_server_does_not_start_open_to_the_network(tmp_path):
    """Told to listen beyond this machine without a token, it says what is missing and ends before it listens (X-01)."""
    done = started(tmp_path, HOST="0.0.0.0", SERVING_PORT=1)  # noqa: S104
    assert done.returncode == 1
    assert "KEEPFIT_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert "serving on" not in done.stderr


def test_x_06_the_server_does_not_start_over_a_home_of_everybody(tmp_path):
    """A home that everybody may write into is no state of its own (X-06)."""
    tmp_path.chmod(0o777)
    done = started(tmp_path, SERVING_PORT=1)
    assert done.returncode == 1
    assert "chmod o-w" in done.stderr


def certificate(folder):
    """A certificate for this machine's loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keepfit")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.make(secret, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert, secret


def test_the_server_encrypts(tmp_path):
    """With a certificate and a token it answers over TLS to who shows the token, and to nobody in the clear."""
    stage = Stage(tmp_path)
    stage.write(1, 0.2)
    stage.release(1)
    cert, key = certificate(tmp_path)
    client = httpx.Client(
        base_url=stage.url.replace("http", "https"), verify=ssl.create_default_context(cafile=str(cert))
    )

    def ready():
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    stage.start(TLS_CERT=cert, TLS_KEY=key, TOKEN=TOKEN)
    try:
        until(ready)
        path, body = "/projects/flights/predict", {"rows": [GOOD]}
        assert client.post(path, json=body).status_code == 401
        assert client.post(path, headers=shown(TOKEN), json=body).json()["version"] == 1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{stage.url}/healthz")
    finally:
        client.close()
        stage.stop()
    assert TOKEN not in stage.log()
