"""Listing, reading, changing and deleting classes. A class's ETag is its version."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.auth import Scope, needs
from app.api.dependencies import CallDep, ClassNameDep, ExpectedDep, MayBeSentAgain, NoParameters
from app.api.idempotency import Write
from app.api.openapi import CLASS_PATCH
from app.api.problems import problem_responses
from app.api.schemas import ClassOut, ClassPageOut, ClassPatch, PageParameters, RemovedOut
from app.domain.values import class_name_of
from app.service.classes import UNCHANGED

router = APIRouter(tags=["classes"], responses=problem_responses(401, 403, 422, 503))


@router.get("/classes", dependencies=[needs(Scope.READ)])
async def list_classes(page: Annotated[PageParameters, Query()], call: CallDep) -> ClassPageOut:
    """Lists the classes by name."""
    return ClassPageOut.of(call.use_cases.classes.page(page.limit, page.cursor))


@router.get("/classes/{name}", dependencies=[needs(Scope.READ), NoParameters], responses=problem_responses(404))
async def read_class(name: ClassNameDep, call: CallDep, response: Response) -> ClassOut:
    """Reads one class."""
    state = call.use_cases.classes.get(name)
    if state.model is not None:
        response.headers["X-Class-Model"] = state.model.digest
    return _shown(ClassOut.of(state), response)


@router.patch(
    "/classes/{name}",
    dependencies=[needs(Scope.ENROL), NoParameters, MayBeSentAgain],
    openapi_extra=CLASS_PATCH,
    responses=problem_responses(400, 404, 409, 412, 413),
)
async def change_class(name: ClassNameDep, expected: ExpectedDep, call: CallDep, response: Response) -> ClassOut:
    """Renames a class, or sets its threshold or metadata, all in one change."""
    patch = await call.patch(ClassPatch)
    given = patch.model_fields_set
    deadline = call.deadline()

    async def changed(write: Write) -> ClassOut:
        state = await call.use_cases.classes.configure(
            name,
            new_name=UNCHANGED if patch.name is None else class_name_of(patch.name),
            threshold=patch.threshold if "threshold" in given else UNCHANGED,
            metadata=UNCHANGED if patch.metadata is None else patch.metadata,
            expected=expected,
            deadline=deadline,
            receipt_of=lambda state: write.receipt(ClassOut.of(state)),
        )
        return ClassOut.of(state)

    content = patch.model_dump_json(exclude_unset=True).encode()
    return _shown(await call.once(ClassOut, changed, content, deadline), response)


@router.delete(
    "/classes/{name}", dependencies=[needs(Scope.ADMIN), NoParameters, MayBeSentAgain], responses=problem_responses(404, 409, 412)
)
async def remove_class(name: ClassNameDep, expected: ExpectedDep, call: CallDep) -> RemovedOut:
    """Deletes a class with all its examples."""
    deadline = call.deadline()

    async def removed(write: Write) -> RemovedOut:
        receipt = write.receipt(RemovedOut(version=0))
        version = await call.use_cases.classes.remove(name, expected=expected, deadline=deadline, receipt=receipt)
        return RemovedOut(version=version)

    return await call.once(RemovedOut, removed, b"", deadline)


def _shown(told: ClassOut, response: Response) -> ClassOut:
    response.headers["ETag"] = f'"{told.version}"'
    return told
