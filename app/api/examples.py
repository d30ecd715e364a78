"""Enrolling pictures as examples of a class, and looking after them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.auth import Scope, needs
from app.api.dependencies import CallDep, ClassNameDep, ExampleId, ExpectedDep, MayBeSentAgain, NoIfMatch, NoParameters
from app.api.idempotency import Write, content_of
from app.api.openapi import SEVERAL_PICTURES
from app.api.problems import problem_responses
from app.api.schemas import EnrolmentReportOut, EnrolParameters, ExampleOut, ExamplePageOut, PageParameters, RemovedOut

router = APIRouter(tags=["examples"], responses=problem_responses(401, 403, 404, 422, 503))

CREATED = 201  # something was stored; 200 when not: a repeat, or a dry run


@router.post(
    "/classes/{name}/examples",
    status_code=CREATED,
    dependencies=[needs(Scope.ENROL), NoIfMatch, MayBeSentAgain],
    openapi_extra=SEVERAL_PICTURES,
    responses={200: {"model": EnrolmentReportOut, "description": "Nothing was stored"}, **problem_responses(400, 409, 413, 415)},
)
async def enrol(
    name: ClassNameDep, query: Annotated[EnrolParameters, Query()], call: CallDep, response: Response
) -> EnrolmentReportOut:
    """Adds pictures to a class, which is created when new. From the next request on, it is recognised."""
    uploads = await call.pictures(box=query.box)
    deadline = call.deadline()

    async def enrolled(write: Write) -> EnrolmentReportOut:
        report = await call.use_cases.enrol(
            name,
            uploads,
            dry_run=query.dry_run,
            deadline=deadline,
            receipt_of=lambda report: write.receipt(EnrolmentReportOut.of(report)),
        )
        write.stored = report.stored
        return EnrolmentReportOut.of(report)

    told = await call.once(EnrolmentReportOut, enrolled, content_of(uploads), deadline)
    response.status_code = CREATED if call.stored else 200
    return told


@router.get("/classes/{name}/examples", dependencies=[needs(Scope.READ)])
async def list_examples(name: ClassNameDep, page: Annotated[PageParameters, Query()], call: CallDep) -> ExamplePageOut:
    """Lists the examples of a class, each with its similarity to the others."""
    listed = await call.use_cases.classes.examples(name, page.limit, page.cursor, deadline=call.deadline())
    return ExamplePageOut.of(listed)


@router.get("/classes/{name}/examples/{id}", dependencies=[needs(Scope.READ), NoParameters])
async def read_example(name: ClassNameDep, id: ExampleId, call: CallDep) -> ExampleOut:  # noqa: A002  # the word of the API
    """Reads one example."""
    return ExampleOut.of(await call.use_cases.classes.example(name, id, deadline=call.deadline()))


@router.delete(
    "/classes/{name}/examples/{id}",
    dependencies=[needs(Scope.ENROL), NoParameters, MayBeSentAgain],
    responses=problem_responses(409, 412),
)
async def remove_example(name: ClassNameDep, id: ExampleId, expected: ExpectedDep, call: CallDep) -> RemovedOut:  # noqa: A002
    """Removes one example. A class with none left stays, and never answers."""
    deadline = call.deadline()

    async def removed(write: Write) -> RemovedOut:
        receipt = write.receipt(RemovedOut(version=0))
        version = await call.use_cases.classes.remove_example(name, id, expected=expected, deadline=deadline, receipt=receipt)
        return RemovedOut(version=version)

    return await call.once(RemovedOut, removed, b"", deadline)


@router.get(
    "/classes/{name}/examples/{id}/image",
    dependencies=[needs(Scope.READ), NoParameters],
    response_class=Response,
    responses={200: {"description": "The stored crop", "content": {"image/jpeg": {}}}},
)
async def read_example_image(name: ClassNameDep, id: ExampleId, call: CallDep) -> Response:  # noqa: A002
    """Returns the picture that is kept of an example."""
    crop = await call.use_cases.classes.crop(name, id, deadline=call.deadline())
    # As an attachment of a fixed type, so that no browser ever runs what somebody uploaded.
    headers = {"Content-Disposition": f'attachment; filename="{id}.jpg"'}
    return Response(crop, media_type="image/jpeg", headers=headers)
