"""The OpenAPI description of a serving process, and the same as a page."""

import html
from typing import Any

from tasks.serving.bodies import BODY_BYTES, ROWS
from tasks.serving.champion import Champion

JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}
STYLE = (
    "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "td{padding:.1em 1em .1em 0}h2{font-size:1.1em;margin-top:2em}"
)
PLAIN_ROUTES = {
    "/projects": "Released projects and the version that answers for each",
    "/healthz": "200 as long as the process answers",
    "/readyz": "200 when somebody answers for every released project, else 503 and for which not",
    "/metrics": "Counters in Prometheus' text format",
    "/openapi.json": "This description",
}
EXPLAIN = "With true every prediction has what each column adds to it, for a few rows at once"
REFUSALS = {
    "400": "No JSON, or a Host header of another machine",
    "403": "Called from a page of another site",
    "404": "No champion under this name",
    "413": f"More than {BODY_BYTES >> 20} MiB or {ROWS:,} rows",
    "415": "A compressed body",
    "422": "A row does not fit; the sentence names its place and the feature",
    "429": "Too many requests at once; try again after Retry-After seconds",
    "503": "The champion is not loaded yet",
}


def describe(champions: dict[str, Champion]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this process, with one predict path a champion."""
    paths: dict[str, Any] = {path: {"get": _operation(summary)} for path, summary in PLAIN_ROUTES.items()}
    paths["/projects/{project}/batches"] = {
        "post": _operation("Takes a file of rows, as the body, with ?name=rows.csv; 202 when it is safe")
    }
    for name, champion in sorted(champions.items()):
        paths[f"/projects/{name}"] = {"get": _operation(f"{name}: who answers, and what a row must hold")}
        paths[f"/projects/{name}/predict"] = {"post": _predicting(name, champion)}
    return {"openapi": "3.1.0", "info": {"title": "keepfit", "version": "1"}, "paths": paths}


def _operation(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "Done"}}}


def _predicting(name: str, champion: Champion) -> dict[str, Any]:
    features = champion.manifest.features
    row = {
        "type": "object",
        "properties": {feature.name: _schema(feature.type, feature.nullable) for feature in features},
        "required": [feature.name for feature in features if not feature.nullable],
    }
    body = {
        "type": "object",
        "required": ["rows"],
        "properties": {
            "rows": {"type": "array", "maxItems": ROWS, "items": row},
            "explain": {"type": "boolean", "default": False, "description": EXPLAIN},
        },
    }
    target = champion.manifest.target
    asked = f"predictions of '{target}'" if target else "how odd rows are,"
    operation = _operation(f"{name}: {asked} by version {champion.release.version}")
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    operation["responses"] |= {status: {"description": text} for status, text in REFUSALS.items()}
    return operation


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
    if "requestBody" not in operation:
        return ""
    row = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"]["items"]
    fields = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(str(schema.get('format') or schema['type']))}<td>"
        f"{'required' if name in row['required'] else 'may be null or left out'}"
        for name, schema in row["properties"].items()
    )
    answers = "".join(
        f"<tr><td>{status}<td>{html.escape(answer['description'])}" for status, answer in operation["responses"].items()
    )
    body = "<code>{&quot;rows&quot;: [{…}], &quot;explain&quot;: false}</code>"
    return f"<p>Body: {body}. {html.escape(EXPLAIN)}. Each row with</p><table>{fields}</table><p>Answers</p><table>{answers}</table>"
