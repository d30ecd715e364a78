"""Errors as RFC 9457 problems: the table from error class to status and title, the only place with status codes for errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app import errors, metrics
from app.api.schemas import Problem
from app.errors import FirstsightError, Limit, LimitReached

MEDIA_TYPE = "application/problem+json"

# The nearest class in an error's ancestry decides. The name in `type` is for programs and never changes.
PROBLEMS: Mapping[type[FirstsightError], tuple[int, str, str]] = {
    errors.MalformedRequest: (400, "malformed-request", "The request cannot be read"),
    errors.Unauthenticated: (401, "unauthenticated", "A valid API key is needed"),
    errors.Forbidden: (403, "forbidden", "The API key does not allow this"),
    errors.NotFound: (404, "not-found", "There is no such resource"),
    errors.UnknownClass: (404, "unknown-class", "There is no such class"),
    errors.UnknownExample: (404, "unknown-example", "There is no such example"),
    errors.MethodNotAllowed: (405, "method-not-allowed", "The resource does not offer this method"),
    errors.NameTaken: (409, "name-taken", "The name is taken"),
    errors.KeyInProgress: (409, "idempotency-key-in-progress", "The same request is still at work"),
    errors.VersionConflict: (412, "version-conflict", "The class has changed meanwhile"),
    errors.TooLarge: (413, "too-large", "The request or picture is too large"),
    errors.UnsupportedPicture: (415, "unsupported-picture", "This format is not supported"),
    errors.InvalidInput: (422, "invalid-input", "The input breaks a rule"),
    errors.InvalidPicture: (422, "invalid-picture", "The picture cannot be used"),
    errors.KeyReused: (422, "idempotency-key-reused", "The idempotency key stands for another request"),
    errors.RateExceeded: (429, "rate-exceeded", "The API key calls too often"),
    errors.UnknownKeys: (429, "unknown-keys", "Too many unknown API keys"),
    errors.ServiceFault: (500, "internal-error", "The service has a fault"),
    errors.Overloaded: (503, "overloaded", "The service is busy"),
    errors.Behind: (503, "behind", "The version asked for is not here yet"),
    errors.DeadlinePassed: (503, "deadline-passed", "The answer would have come too late"),
    errors.Starting: (503, "starting", "The service is starting"),
    errors.StoreUnavailable: (503, "store-unavailable", "The store cannot be reached"),
}

METHODS = ("DELETE", "GET", "PATCH", "POST")
UNEXPECTED = errors.ServiceFault("Something went wrong here. The request id is in the X-Request-Id header and in the log.")
STORE_AWAY = errors.StoreUnavailable(
    "The store cannot be used now; nothing is known to be stored. The request id is in the X-Request-Id header and in the log."
)
STORE_RETRY_AFTER_S = 5

MAX_FAULTS_TOLD = 10
MAX_ECHO_CHARS = 100


def problem_of(error: FirstsightError) -> Problem:
    """The JSON shape of an error, as it stands in a response or beside other results in a batch.

    Made once for each refusal, so this is where limits that were reached are counted.
    """
    if isinstance(error, LimitReached):
        metrics.count_refusal(type(error).__name__)
    status, name, title = _row(error)
    told = _told(error)
    return Problem(
        type=f"urn:firstsight:problem:{name}", title=title, status=status, detail=told.detail, field=told.field, limit=told.limit
    )


def problem_response(error: FirstsightError) -> JSONResponse:
    problem = problem_of(error)
    return JSONResponse(
        problem.model_dump(),
        status_code=problem.status,
        headers=_headers_of(error),
        media_type=MEDIA_TYPE,
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route that can answer with these statuses has as its `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles = {wanted: [title for status, _, title in PROBLEMS.values() if status == wanted] for wanted in statuses}
    return {status: {"description": "; ".join(titles[status]), "content": content} for status in statuses}


def install_problem_handlers(app: FastAPI) -> None:
    """Makes problems of our errors and of the framework's. Unexpected exceptions are left to the edge, which logs them."""
    for kind in (FirstsightError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)


def invalid_input_of(faults: Sequence[Any]) -> FirstsightError:
    """One error for what pydantic found, naming the first fields; `field` and `limit` are the first one's.

    MalformedRequest when the JSON could not be read at all.
    """
    first = faults[0]
    if first["type"] == "json_invalid":
        return errors.MalformedRequest(f"The body is not JSON: {first['ctx']['error']}.")
    detail = "; ".join(f"{_path(fault['loc'])}: {_sentence(fault)}" for fault in faults[:MAX_FAULTS_TOLD])
    if len(faults) > MAX_FAULTS_TOLD:
        detail += f"; and {len(faults) - MAX_FAULTS_TOLD} more"
    return errors.InvalidInput(f"{detail}.", field=_path(first["loc"]), limit=_limit_in(first.get("ctx", {})))


def shortened(text: str) -> str:
    """What a caller sent, as it may stand in a problem and in the log."""
    return text if len(text) <= MAX_ECHO_CHARS else text[:MAX_ECHO_CHARS] + "…"


async def _answer(request: Request, raised: Exception) -> JSONResponse:
    error = _error_of(request, raised)
    request.state.error = error  # for the line in the log
    return problem_response(error)


def _error_of(request: Request, raised: Exception) -> FirstsightError:
    match raised:
        case FirstsightError():
            return raised
        case RequestValidationError():
            return invalid_input_of(raised.errors())
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return errors.UnknownRoute(shortened(request.url.path))
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            return errors.MethodNotAllowed(request.method, allowed=", ".join(_offered_methods(request)))
        case _:  # the framework could not read the request
            return errors.MalformedRequest(str(getattr(raised, "detail", raised)))


def _offered_methods(request: Request) -> list[str]:
    """All that the path offers; the framework's own Allow names those of the first route only."""
    scope = dict(request.scope)
    return [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _row(error: FirstsightError) -> tuple[int, str, str]:
    for kind in type(error).__mro__:
        if kind in PROBLEMS:
            return PROBLEMS[kind]
    raise LookupError(f"{type(error).__name__} has no row in PROBLEMS")


def _told(error: FirstsightError) -> FirstsightError:
    """What faults of ours say is for operators, who find it in the log: it may name files and hosts."""
    match error:
        case errors.StoreUnavailable():
            return STORE_AWAY
        case errors.ServiceFault():
            return UNEXPECTED
        case _:
            return error


def _headers_of(error: FirstsightError) -> dict[str, str]:
    match error:
        case errors.LimitReached():
            return {"Retry-After": str(error.retry_after_s)}
        case errors.StoreUnavailable():
            return {"Retry-After": str(STORE_RETRY_AFTER_S)}
        case errors.Unauthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case errors.MethodNotAllowed():
            return {"Allow": str(error.limit)}
        case _:
            return {}


def _path(location: Sequence[str | int]) -> str:
    """("query", "top_k") -> "top_k"; ("images", 3, "box") -> "images[3].box"."""
    inside = location[1:] if len(location) > 1 and location[0] in ("query", "path", "header", "body") else location
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{shortened(step)}" for step in inside)
    return path.removeprefix(".") or "body"


def _sentence(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "there is no such field or parameter"
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").removesuffix(".")


def _limit_in(context: Mapping[str, Any]) -> Limit | None:
    for name in ("le", "lt", "ge", "gt", "max_length", "min_length"):
        if name in context:
            limit: Limit = context[name]
            return limit
    return None
