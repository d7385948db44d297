"""The OpenAPI document and the running server agree: schemathesis asks what the document allows, and what it does not."""

import asyncio
import re

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error, status_code_conformance
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.stage import Stage, door, released, until

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15  # of each operation and each way; 200 in the long sweep


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process with a champion, and the project that its uploads are for."""
    home = tmp_path_factory.mktemp("openapi")
    (home / "projects" / "flights").mkdir(parents=True)
    (home / "projects" / "flights" / "project.yaml").write_text("project: flights\n")
    stage = Stage(home / "state")
    stage.write(1, 0.2)
    stage.release(1)
    stage.start(PROJECTS=home / "projects")
    until(stage.version, 60)
    yield stage
    stage.stop()


def asked(stage, examples):
    """Sends what schemathesis makes of the document, and gives the statuses that came by operation and way of making."""
    schema = schemathesis.openapi.from_dict(httpx.get(f"{stage.url}/openapi.json").json())
    operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    return {
        (operation.label, mode): statuses(stage, operation, mode, examples)
        for operation in operations
        for mode in GenerationMode
    }


def statuses(stage, operation, mode, examples):
    """The statuses that requests of one operation got, each answer checked against the document."""
    met = set()

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call(base_url=stage.url)
        case.validate_response(answer, checks=CHECKS)
        met.add(answer.status_code)

    try:
        ask()
    except Unsatisfiable:  # nothing can be wrong about a request that takes nothing
        assert mode is GenerationMode.NEGATIVE
    return met


UNSAID = (
    "/infer",
    "/{id}",
    "/hooks/{name}",
)  # a schema cannot say that shape and data fit, what was ordered, a signature


def judged(stage, examples):
    """Every operation was asked, the good way was answered where there is one, and the server is as it was."""
    found = asked(stage, examples)
    document = httpx.get(f"{stage.url}/openapi.json").json()["paths"]
    assert {label for label, _ in found} == {
        f"{verb.upper()} {path}" for path, verbs in document.items() for verb in verbs
    }
    for (label, mode), statuses in found.items():
        if mode is GenerationMode.POSITIVE and not label.endswith(UNSAID):
            assert statuses & {200, 202}, label
    assert stage.predict().status_code == 200
    assert "Traceback" not in stage.log()


def test_an_unready_server_keeps_to_its_document_and_every_route_is_in_it(tmp_path):
    """What /readyz says while nobody answers is what the document says of its 503; no route takes what the document does not name."""

    async def scene():
        opened, client = door(released(tmp_path).home)
        answers = [await client.get(path) for path in ("/readyz", "/v2/health/ready")]
        opened.succession.look()
        return opened, answers, (await client.get("/openapi.json")).json()["paths"]

    opened, answers, document = asyncio.run(scene())
    for answer in answers:
        told = document[answer.request.url.path]["get"]["responses"][str(answer.status_code)]
        assert answer.status_code == 503
        jsonschema.validate(answer.json(), told["content"]["application/json"]["schema"])
    routes = {
        (verb.lower(), re.sub(r"{project}", "flights", re.sub(":int", "", route.path)))
        for route in opened.routes()
        for verb in route.methods - {"HEAD"}
    }
    assert routes == {(verb, path) for path, verbs in document.items() for verb in verbs}


def test_v_04_the_server_keeps_to_its_document(stage):
    """No 5xx, no status and no content that the document does not name, for good and for bad requests of a fixed seed (V-04)."""
    judged(stage, EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_v_04_the_server_keeps_to_its_document_for_long(stage):
    """The same with many more requests (V-04)."""
    judged(stage, 200)
