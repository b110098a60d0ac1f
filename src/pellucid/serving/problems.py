"""Errors as problem details (RFC 9457): every error of the API has this form."""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What went wrong, for people and programs."""

    type: str = Field(default="about:blank", description="A URI of the kind of problem.")
    title: str = Field(description="The kind of problem, in a few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was found, what was expected, what to do.")
    request_id: str | None = Field(default=None, description="The X-Request-Id of the request, for the log.")


class Problem(Exception):  # noqa: N818  # the term of RFC 9457
    """An answer other than success. retry_after_s: when to try again, in seconds."""

    def __init__(self, status: int, title: str, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.retry_after_s = status, title, detail, retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After and WWW-Authenticate where they belong."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": 'Bearer realm="pellucid"'} if self.status == 401 else {})

    def to_response(self, request_id: str | None = None) -> JSONResponse:
        """The problem as a response."""
        content = ProblemDetails(title=self.title, status=self.status, detail=self.detail, request_id=request_id)
        return JSONResponse(content.model_dump(), self.status, self.headers, MEDIA_TYPE)


def document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, for its documentation."""
    meanings = {
        400: "Not a picture, or an option that is not possible",
        401: "The token is missing or wrong",
        403: "A page of another site, or a place that the operator does not allow",
        404: "Not found, or expired",
        408: "The request arrived too slowly",
        409: "Not in this state",
        413: "Too many bytes, files or pixels",
        415: "A type of content that is not a picture",
        421: "The request is for another host",
        422: "The picture cannot be read or restored",
        429: "The queue is full",
        431: "Too many headers",
        500: "A fault of pellucid",
        503: "Starting, or stopping",
        507: "The disk is full",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": meanings[status], "content": content} for status in statuses}
