"""What runs, whether it is alive and ready, and its metrics."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from app import metrics
from app.api.auth import Scope, needs
from app.api.dependencies import CallDep, NoParameters, UseCases
from app.api.problems import problem_responses
from app.api.readiness import Readiness
from app.api.schemas import AliveOut, InfoOut, ReadyOut

router = APIRouter(tags=["service"])

UNAVAILABLE = 503


@router.get("/info", dependencies=[needs(Scope.READ), NoParameters], responses=problem_responses(401, 403, 422, 503))
async def info(request: Request, call: CallDep) -> InfoOut:
    """Says what runs here: versions, networks, store, classes, limits."""
    describe: Callable[[UseCases], InfoOut] = request.app.state.describe
    return describe(call.use_cases)


@router.get("/healthz")
async def is_alive() -> AliveOut:
    """Answers while the process can answer at all."""
    return AliveOut()


@router.get("/readyz", responses={UNAVAILABLE: {"model": ReadyOut, "description": "Not yet ready"}})
async def is_ready(request: Request, response: Response) -> ReadyOut:
    """Says whether the service can recognise pictures, and what it waits for if not."""
    readiness: Readiness = request.app.state.readiness
    waiting_for = readiness.waiting_for
    if waiting_for is not None:
        response.status_code = UNAVAILABLE
        response.headers["Retry-After"] = "1"
    return ReadyOut(ready=waiting_for is None, waiting_for=waiting_for)


@router.get(
    "/metrics",
    dependencies=[needs(Scope.ADMIN)],
    response_class=Response,
    responses={200: {"description": "Prometheus text format", "content": {"text/plain": {}}}, **problem_responses(401, 403)},
)
async def read_metrics() -> Response:
    """All series in Prometheus' text format."""
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)
