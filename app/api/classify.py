"""Which class a picture shows, if any."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app import metrics
from app.api.auth import Scope, needs
from app.api.dependencies import CallDep, class_names
from app.api.openapi import ONE_PICTURE, SEVERAL_PICTURES
from app.api.problems import problem_of, problem_responses
from app.api.schemas import AnsweredItem, AnswerOut, BatchOut, BatchParameters, ClassifyParameters, RefusedItem
from app.domain.values import Answer
from app.errors import FirstsightError

router = APIRouter(
    tags=["classify"], dependencies=[needs(Scope.READ)], responses=problem_responses(400, 401, 403, 413, 415, 422, 503)
)


@router.post("/classify", openapi_extra=ONE_PICTURE)
async def classify(query: Annotated[ClassifyParameters, Query()], call: CallDep) -> AnswerOut:
    """Says what one picture shows: a class, or that it is doubtful or unknown, with the examples that decided."""
    upload = await call.picture(box=query.box)
    classes = class_names(query.classes)
    answer = await call.use_cases.classify(upload, top_k=query.top_k, classes=classes, deadline=call.deadline())
    metrics.count_outcome(answer.outcome)
    call.note_outcome(answer.outcome)
    return AnswerOut.of(answer)


@router.post("/classify/batch", openapi_extra=SEVERAL_PICTURES)
async def classify_batch(query: Annotated[BatchParameters, Query()], call: CallDep) -> BatchOut:
    """Says of several pictures what each shows; a picture that cannot be used is a problem of its own."""
    uploads = await call.pictures()
    classes = class_names(query.classes)
    results = await call.use_cases.classify.batch(uploads, top_k=query.top_k, classes=classes, deadline=call.deadline())
    return BatchOut(results=[_item_of(result) for result in results])


def _item_of(result: Answer | FirstsightError) -> AnsweredItem | RefusedItem:
    if isinstance(result, Answer):
        metrics.count_outcome(result.outcome)
        return AnsweredItem.of(result)
    problem = problem_of(result)
    return RefusedItem(status=problem.status, problem=problem)
