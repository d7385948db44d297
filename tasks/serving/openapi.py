"""The OpenAPI description of a serving process, and the same as a page."""

import html
import importlib.metadata
from typing import Any

from tasks.serving.bodies import BATCHES, BODY_BYTES, ROWS
from tasks.serving.champion import Champion, Manifest
from tasks.serving.inference import HEADER, NUMBERS, outputs
from tasks.serving.outcomes import NAME
from tasks.serving.protocols import STREAM
from tasks.sources.hook import ID, SIGNATURE, TIMESTAMP

JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}
STYLE = (
    "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "td{padding:.1em 1em .1em 0}h2{font-size:1.1em;margin-top:2em}"
)
PLAIN_ROUTES = {
    "/projects": ("Released projects and the version that answers for each", ()),
    "/healthz": ("200 as long as the process answers", ()),
    "/readyz": ("200 when somebody answers for every released project, else 503 and for which not", ()),
    "/metrics": ("Counters in Prometheus' text format", ()),
    "/openapi.json": ("This description", ()),
    "/docs": ("This description as a page", ()),
    "/v2": ("Open Inference Protocol: this server", ()),
    "/v2/health/live": ("Open Inference Protocol: 200 as long as the process answers", ()),
    "/v2/health/ready": ("Open Inference Protocol: as /readyz", ()),
}
READY = {"type": "object", "required": ["ready"], "properties": {"ready": {"type": "boolean"}}}
EXPLAIN = "With true every prediction has what each column adds to it, for a few rows at once"
BINARY = {"type": "string", "format": "binary"}
COLUMNS = (
    f"An Arrow IPC stream with a column a feature: integers, floats, booleans, strings, timestamps; null where something is missing. "
    f"At most {ROWS:,} rows in {BATCHES} record batches, without compression and dictionaries"
)
ANSWERED = "With this type in Accept: the columns id, prediction, and probabilities, interval or score; project and version in the metadata"
OCTETS = "application/octet-stream"
PARTED = "Where the JSON ends, in bytes, and the tensors begin"
TENSORS = (
    f"The same JSON, as long as {HEADER} says, then the bytes of each input that has, instead of data, "
    'parameters {"binary_data_size": bytes}: little-endian, a byte a truth, each text behind its size in four bytes, NaN for what is missing'
)
BEHIND = 'Where parameters {"binary_data_output": true}, or {"binary_data": true} of an output, want it: JSON and bytes, as they are sent'
REFUSALS = {
    "400": "No JSON, or no Arrow stream under its type, or a Host header of another machine",
    "401": "No token, where this server wants one, or a message that its hook's secret has not signed just now",
    "403": "Called from a page of another site, or with a token that does not open this",
    "404": "No champion, project, hook or order under this name",
    "408": "The body came too slowly",
    "413": f"More than {BODY_BYTES >> 20} MiB or {ROWS:,} rows",
    "415": "A compressed body, or dictionaries or compressed buffers in an Arrow stream",
    "422": "A row does not fit; the sentence names its place and the feature",
    "429": "Too many requests at once; try again after Retry-After seconds",
    "503": "The champion is not loaded yet",
}
ALWAYS = ("400", "401", "403")  # the guard's
NAMED = ("404", "503")  # of a project
ASKED = ("404", "408", "413", "415", "422", "429", "503")
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
SCALAR = {"type": ["string", "number", "boolean", "null"]}


def describe(champions: dict[str, Champion]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this process, with the paths of each champion."""
    paths: dict[str, Any] = {path: {"get": _operation(summary, more)} for path, (summary, more) in PLAIN_ROUTES.items()}
    for path in ("/readyz", "/v2/health/ready"):
        paths[path]["get"]["responses"] |= _readiness()
    for name, champion in sorted(champions.items()):
        paths |= _paths(name, champion)
    paths["/hooks/{name}"] = {"post": _hook()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "keepfit", "version": importlib.metadata.version("keepfit")},
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _readiness() -> dict[str, Any]:
    """Ready or not, both say so in one shape: an unready server refuses nothing."""
    content = {"application/json": {"schema": READY}}
    return {
        "200": {"description": "Ready", "content": content},
        "503": {"description": "Not ready", "content": content},
    }


def _paths(name: str, champion: Champion) -> dict[str, Any]:
    """What can be asked about one project, and of its champion."""
    manifest, version = champion.manifest, champion.release.version
    asked = f"predictions of '{manifest.target}'" if manifest.target else "how odd rows are,"
    asked = f"{name}: {asked} by version {version}"
    prediction = {"type": "object", "required": ["id", "prediction"], "properties": {"id": {"type": "string"}}}
    own = {
        "type": "object",
        "required": ["project", "version", "predictions"],
        "properties": {"version": {"type": "integer"}, "predictions": {"type": "array", "items": prediction}},
    }
    tensors = {"type": "object", "required": ["model_name", "model_version", "outputs"]}
    bare = {"type": "object", "required": ["predictions", "ids"]}
    return {
        f"/projects/{name}": {"get": _operation(f"{name}: who answers, and what a row must hold", NAMED)},
        f"/projects/{name}/predict": {"post": _streamed(_operation(asked, ASKED, _rows_body(manifest), own))},
        f"/projects/{name}/outcomes": {
            "post": _operation(
                f"{name}: takes what came true of predictions; 200 when it is safe", ASKED, _outcomes_body(manifest)
            )
        },
        f"/projects/{name}/batches": {"post": _upload(name), "put": _upload(name)},
        f"/projects/{name}/trainings": {"post": _order(name)},
        f"/projects/{name}/trainings/{{id}}": {
            "get": _operation(f"{name}: what came of an order", NAMED) | {"parameters": [_in_path("id", "integer")]}
        },
        f"/v2/models/{name}": {"get": _operation(f"Open Inference Protocol: the tensors of {name}", NAMED)},
        f"/v2/models/{name}/ready": {"get": _operation(f"Open Inference Protocol: whether {name} answers", NAMED)},
        f"/v2/models/{name}/infer": {
            "post": _binary(_operation(f"Open Inference Protocol: {asked}", ASKED, _inference_body(manifest), tensors))
        },
        f"/invocations/{name}": {"post": _operation(f"MLflow: {asked}", ASKED, _invocation_body(manifest), bare)},
    }


def _operation(
    summary: str, refusals: tuple[str, ...], body: dict[str, Any] | None = None, answer: dict[str, Any] | None = None
) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if answer:
        done["content"] = {"application/json": {"schema": answer}}
    responses = {"200": done} | {status: _refusal(status) for status in sorted({*ALWAYS, *refusals})}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _streamed(operation: dict[str, Any]) -> dict[str, Any]:
    """The same operation, with rows and answers by column, too."""
    operation["requestBody"]["content"][STREAM] = {"schema": BINARY | {"description": COLUMNS}}
    operation["responses"]["200"]["content"][STREAM] = {"schema": BINARY | {"description": ANSWERED}}
    return operation


def _binary(operation: dict[str, Any]) -> dict[str, Any]:
    """The same operation, with tensors as bytes behind the JSON, too."""
    length = {"name": HEADER, "in": "header", "schema": {"type": "integer", "minimum": 0}, "description": PARTED}
    operation["parameters"] = [length]
    operation["requestBody"]["content"][OCTETS] = {"schema": BINARY | {"description": TENSORS}}
    operation["responses"]["200"]["content"][OCTETS] = {"schema": BINARY | {"description": BEHIND}}
    return operation


def _refusal(status: str) -> dict[str, Any]:
    return {"description": REFUSALS[status], "content": {"application/json": {"schema": ERROR}}}


def _upload(name: str) -> dict[str, Any]:
    operation = _operation(f"{name}: takes a file of rows, as the body; 202 when it is safe", ASKED)
    operation["responses"]["202"] = operation["responses"].pop("200")
    operation["parameters"] = [
        {"name": "name", "in": "query", "required": True, "schema": {"type": "string", "example": "rows.csv"}}
    ]
    operation["requestBody"] = {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/octet-stream": {"schema": {"type": "string"}},
        },
    }
    return operation


def _order(name: str) -> dict[str, Any]:
    reason = {"type": "string", "maxLength": 200}
    body = {"type": "object", "additionalProperties": False, "properties": {"reason": reason}}
    operation = _recorded(
        _operation(f"{name}: orders a training; 202 when it is on record", ASKED, body), "id", "project", "state"
    )
    operation["requestBody"]["required"] = False
    key = "the same order when it is sent again"
    operation["parameters"] = [
        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 100}, "description": key}
    ]
    return operation


def _hook() -> dict[str, Any]:
    """A hook of any project: signed as https://www.standardwebhooks.com says."""
    summary = "Takes a CloudEvent, a notification of S3 or any JSON from another program; 202 when it is on record"
    operation = _recorded(_operation(summary, ASKED, {"type": "object"}), "hook", "project", "state", "orders")
    operation["parameters"] = [_in_path("name", "string")] + [
        {"name": name, "in": "header", "schema": {"type": "string"}} for name in (ID, TIMESTAMP, SIGNATURE)
    ]
    return operation


def _recorded(operation: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "required": list(required)}
    operation["responses"].pop("200")
    operation["responses"]["202"] = {
        "description": "On record",
        "content": {"application/json": {"schema": schema}},
    }
    return operation


def _in_path(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _row(manifest: Manifest) -> dict[str, Any]:
    """What a row of the project must hold; columns that the model ignores may be there."""
    features = manifest.features
    properties = dict.fromkeys(manifest.ignored, SCALAR) | {
        feature.name: _schema(feature.type, feature.nullable) for feature in features
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [feature.name for feature in features if not feature.nullable],
        "additionalProperties": False,
    }


def _rows_body(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "maxItems": ROWS, "items": _row(manifest)},
            "explain": {"type": "boolean", "default": False, "description": EXPLAIN},
        },
    }


def _outcomes_body(manifest: Manifest) -> dict[str, Any]:
    of_kind: dict[str, dict[str, Any]] = {
        "binary": {"enum": list(dict.fromkeys([*manifest.classes, *manifest.own]))}, "multiclass": {"enum": list(manifest.classes)},
        "regression": {"type": "number"}, "anomaly": {"type": "boolean"}, "recommendation": {"type": "string"},
    }  # fmt: skip
    outcome = {
        "type": "object",
        "required": ["id", "value"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "pattern": NAME},
            "value": of_kind[manifest.kind],
            "at": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "when it became known; now by default",
            },
        },
    }
    return {
        "type": "object",
        "required": ["outcomes"],
        "additionalProperties": False,
        "properties": {"outcomes": {"type": "array", "maxItems": ROWS, "items": outcome}},
    }


def _inference_body(manifest: Manifest) -> dict[str, Any]:
    names = [feature.name for feature in manifest.features]
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],  # without data where it stands behind the JSON
        "properties": {
            "name": {"enum": names},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": ROWS},
                "minItems": 1,
                "maxItems": 2,
            },
            "datatype": {"enum": ["BOOL", *NUMBERS, "BYTES"]},
            "data": {"type": "array", "items": SCALAR},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"enum": list(outputs(manifest))}},
                },
            },
        },
    }


def _invocation_body(manifest: Manifest) -> dict[str, Any]:
    columns = {"type": "array", "items": {"enum": list(_row(manifest)["properties"])}}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "additionalProperties": False,
        "properties": {"columns": columns, "data": {"type": "array", "items": {"type": "array", "items": SCALAR}}},
    }
    records = {"type": "array", "maxItems": ROWS, "items": _row(manifest)}
    return {
        "oneOf": [
            {"type": "object", "required": [name], "properties": {name: schema}, "additionalProperties": False}
            for name, schema in (("dataframe_split", split), ("dataframe_records", records))
        ]
    }


def _schema(kind: str, nullable: bool) -> dict[str, Any]:
    named = JSON_TYPES.get(kind, "string")
    schema: dict[str, Any] = {"type": [named, "null"] if nullable else named}
    return {**schema, "format": "date-time"} if kind == "datetime" else schema


def page(description: dict[str, Any]) -> str:
    """An OpenAPI description as HTML, without scripts."""
    sections = [
        f"<h2>{verb.upper()} "
        f"<code>{html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>{_details(operation)}"
        for path, verbs in description["paths"].items()
        for verb, operation in verbs.items()
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>keepfit</title><style>{STYLE}</style>'
    return f"{head}<h1>keepfit</h1>{''.join(sections)}"


def _details(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    rows = content.get("application/json", {}).get("schema", {}).get("properties", {}).get("rows")
    if rows is None:
        return ""
    row = rows["items"]
    fields = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(str(schema.get('format') or schema['type']))}<td>"
        f"{'required' if name in row['required'] else 'may be null or left out'}"
        for name, schema in row["properties"].items()
    )
    answers = "".join(
        f"<tr><td>{status}<td>{html.escape(answer['description'])}" for status, answer in operation["responses"].items()
    )
    body = "<code>{&quot;rows&quot;: [{…}], &quot;explain&quot;: false}</code>"
    stream = (
        f"Or as <code>{STREAM}</code>: {html.escape(COLUMNS)}. {html.escape(ANSWERED)}." if STREAM in content else ""
    )
    return f"<p>Body: {body}. {html.escape(EXPLAIN)}. {stream} Each row with</p><table>{fields}</table><p>Answers</p><table>{answers}</table>"
