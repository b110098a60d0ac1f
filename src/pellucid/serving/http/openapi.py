"""The description of the API, where FastAPI cannot derive it from the routes."""

import json
from typing import Any

from fastapi import FastAPI

from pellucid.serving.http.answers import JobInfo
from pellucid.serving.http.options import BatchOptions
from pellucid.serving.problems import ProblemDetails, document

FOR_ALL = (400, 401, 403, 421, 431, 500, 503)


UPLOADING = (408, 413, 415, 422, 429, 507)
VIEW: dict[int | str, dict[str, Any]] = {
    200: {"description": "A PNG", "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
    **document(404, 409, 413, 422, 507, *FOR_ALL),
}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
RESTORE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The restored file", "content": {"*/*": _BINARY}},
    202: {
        "description": "A job",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobInfo"}}},
        "headers": {"Location": {"description": "The place of the job", "schema": {"type": "string"}}},
    },
    **document(404, *UPLOADING, *FOR_ALL),
}
RESULT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"*/*": _BINARY}},
    **document(404, 409, 413, 422, 507, *FOR_ALL),
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **document(404, 429, *FOR_ALL),
}


BATCH: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "A batch",
        "headers": {"Location": {"description": "The place of the batch", "schema": {"type": "string"}}},
    },
    **document(408, 413, 415, 429, 507, *FOR_ALL),
}
REPORT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The report", "content": {"application/json": {"schema": {"type": "object"}}}},
    **document(404, 409, *FOR_ALL),
}
END_BATCH: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It was not finished, and ends soon",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BatchInfo"}}},
    },
    204: {"description": "It was finished, and is deleted from the list"},
    **document(404, *FOR_ALL),
}

METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Numbers", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **document(*FOR_ALL),
}


def describe_bodies(app: FastAPI) -> None:
    """Add what FastAPI cannot know to the schema: bodies that are read as streams, and the form of problems."""
    schema = app.openapi()
    body = {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
        },
    }
    for path in ("/v1/pictures", "/v1/advise", "/v1/restore"):
        schema["paths"][path]["post"]["requestBody"] = body | {"required": path != "/v1/restore"}
    options = BatchOptions.model_json_schema(ref_template="#/components/schemas/{model}")
    content = {"application/json": {"schema": options}}
    schema["paths"]["/v1/batches"]["post"]["requestBody"] = {"required": True, "content": content}
    components = schema["components"]["schemas"]
    components["ProblemDetails"] = ProblemDetails.model_json_schema()
    components["JobInfo"] = json.loads(
        json.dumps(JobInfo.model_json_schema(ref_template="#/components/schemas/{model}"))
    )
    components |= components["JobInfo"].pop("$defs", {})
    for methods in schema["paths"].values():
        for route in methods.values():
            route["responses"].pop("422", None) if "Problem" not in str(route["responses"].get("422")) else None
    app.openapi_schema = schema
