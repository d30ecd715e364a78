"""The shapes of design section 3 in JSON. Fields may be added, never renamed.

What comes in is strict: no unknown field, no string where a number belongs. Rules of the domain (a box that fits, a class name)
are the domain's to check.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.domain.detection import Detection, Detections, Tiles
from app.domain.values import Answer, Box, Candidate, ClassState, Evidence, ExampleWarning, Outcome, Reason, Verified, WarningCode
from app.errors import Limit
from app.service.classes import MAX_METADATA_BYTES, ClassPage, ExamplePage, ListedExample
from app.service.enrol import EnrolledExample, EnrolmentReport, NearestClass

MAX_TOP_K = 100
MAX_DETECTIONS = 100
MAX_PAGE = 500
MAX_CURSOR_CHARS = 2048  # a class name of 200 characters, encoded twice, is shorter


class Incoming(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """A query string: text, so that numbers have to be read from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Outgoing(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


ClassName = Annotated[str, Field(alias="class", description="Class name, NFC-normalised.")]
Similarity = Annotated[float, Field(ge=-1, le=1)]


class BoxShape(BaseModel):
    """A rectangle in whole pixels of the upright picture."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    x: int = Field(description="Left edge.")
    y: int = Field(description="Top edge.")
    width: int
    height: int

    @classmethod
    def of(cls, box: Box) -> BoxShape:
        return cls(x=box.x, y=box.y, width=box.width, height=box.height)


class PictureIn(Incoming):
    data: str = Field(description="The bytes of the picture file in base64.", repr=False)
    box: BoxShape | None = None


class PicturesIn(Incoming):
    images: list[PictureIn] = Field(min_length=1)


class OnePictureIn(Incoming):
    image: PictureIn


class ClassPatch(Incoming):
    """Fields that are left out stay as they are."""

    name: str | None = Field(default=None, description="A new name.")
    threshold: float | None = Field(
        default=None, description="Similarity from which a picture is accepted; null returns to the computed one."
    )
    metadata: dict[str, Any] | None = Field(
        default=None, description=f"A JSON object of up to {MAX_METADATA_BYTES} bytes; replaces what was there."
    )

    @field_validator("name", "metadata")
    @classmethod
    def _is_not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null: leave it out to keep it as it is")
        return value

    @field_validator("metadata")
    @classmethod
    def _is_json(cls, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        json.dumps(
            metadata, allow_nan=False
        )  # ValueError for NaN and infinity, which Python's parsers read although JSON has none
        return metadata


class EnrolParameters(Parameters):
    dry_run: bool = Field(default=False, description="Report what would happen, and store nothing.")
    box: str | None = Field(default=None, description="For a raw picture: x,y,width,height in pixels of the upright picture.")


class BatchParameters(Parameters):
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K, description="How many candidates to show.")
    classes: list[str] = Field(default_factory=list, description="Consider these classes only.")


class ClassifyParameters(BatchParameters):
    box: str | None = Field(default=None, description="For a raw picture: x,y,width,height in pixels of the upright picture.")


class DetectParameters(Parameters):
    max_detections: int = Field(default=MAX_DETECTIONS, ge=1, le=MAX_DETECTIONS, description="How many detections to show.")
    classes: list[str] = Field(default_factory=list, description="Look for these classes only.")
    tiles: Tiles = Field(
        default="auto",
        description="How finely to look: `off`, at the whole only; `auto`, at up to 4 tiles too if it is larger than 768 pixels; "
        "`on`, at up to 9 tiles in any case, for small things.",
    )
    box: str | None = Field(
        default=None, description="For a raw picture: look in x,y,width,height only, in pixels of the upright picture."
    )


class PageParameters(Parameters):
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(default=None, max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the page before.")


class WarningOut(Outgoing):
    """Something a person should know about an example, with the number and the limit that it passed."""

    code: WarningCode
    detail: str
    value: float
    limit: float
    class_name: str | None = Field(alias="class", description="The other class that this is about.")
    example: str | None = Field(description="The other example that this is about.")

    @classmethod
    def of(cls, warning: ExampleWarning) -> WarningOut:
        return cls(
            code=warning.code,
            detail=warning.detail,
            value=warning.value,
            limit=warning.limit,
            class_name=warning.class_name,
            example=warning.example_id,
        )


class EnrolledExampleOut(Outgoing):
    id: str
    box: BoxShape
    warnings: list[WarningOut]

    @classmethod
    def of(cls, example: EnrolledExample) -> EnrolledExampleOut:
        return cls(id=example.id, box=BoxShape.of(example.box), warnings=[WarningOut.of(warning) for warning in example.warnings])


class NearestClassOut(Outgoing):
    class_name: ClassName
    similarity: Similarity

    @classmethod
    def of(cls, nearest: NearestClass) -> NearestClassOut:
        return cls(class_name=nearest.class_name, similarity=nearest.similarity)


class EnrolmentReportOut(Outgoing):
    class_name: ClassName
    version: int = Field(description="Of the class, after this.")
    dry_run: bool
    threshold: Similarity = Field(description="Similarity from which a picture is accepted, as it came out.")
    examples: list[EnrolledExampleOut] = Field(description="In the order of the pictures.")
    nearest: list[NearestClassOut] = Field(description="The other classes that look most alike.")

    @classmethod
    def of(cls, report: EnrolmentReport) -> EnrolmentReportOut:
        return cls(
            class_name=report.class_name,
            version=report.version,
            dry_run=report.dry_run,
            threshold=report.threshold,
            examples=[EnrolledExampleOut.of(example) for example in report.examples],
            nearest=[NearestClassOut.of(nearest) for nearest in report.nearest],
        )


class VerifiedOut(Outgoing):
    """Geometric proof that the picture shows the print of an example."""

    points: int = Field(description="Points of the example that were found where they belong.")
    coverage: float = Field(ge=0, le=1, description="Share of the example that they are spread over.")
    quad: list[tuple[float, float]] = Field(
        description="Where the example's corners land, in pixels of the upright picture, the top left one first, clockwise."
    )

    @classmethod
    def of(cls, verified: Verified) -> VerifiedOut:
        return cls(points=verified.points, coverage=verified.coverage, quad=list(verified.quad))


class EvidenceOut(Outgoing):
    example: str = Field(description="Id of an example that decided.")
    similarity: Similarity
    verified: VerifiedOut | None = Field(description="null where the print of the example was not found.")

    @classmethod
    def of(cls, evidence: Evidence) -> EvidenceOut:
        verified = None if evidence.verified is None else VerifiedOut.of(evidence.verified)
        return cls(example=evidence.example_id, similarity=evidence.similarity, verified=verified)


class CandidateOut(Outgoing):
    class_name: ClassName
    similarity: Similarity
    probability: float = Field(ge=0, le=1, description="That the picture is of this class, in a world of other things too.")
    accepted: bool
    threshold: Similarity
    evidence: list[EvidenceOut]

    @classmethod
    def of(cls, candidate: Candidate) -> CandidateOut:
        return cls(
            class_name=candidate.class_name,
            similarity=candidate.similarity,
            probability=candidate.probability,
            accepted=candidate.accepted,
            threshold=candidate.threshold,
            evidence=[EvidenceOut.of(evidence) for evidence in candidate.evidence],
        )


class AnswerOut(Outgoing):
    outcome: Outcome
    decision: str | None = Field(description="A class exactly when the outcome is a match.")
    reason: Reason | None = Field(description="Why the outcome is no match.")
    version: int = Field(description="Of the gallery that was asked.")
    model: str = Field(description="Id of the model set: the version of what a similarity means.")
    candidates: list[CandidateOut] = Field(description="Most probable first, accepted or not.")

    @classmethod
    def of(cls, answer: Answer) -> Self:
        return cls(
            outcome=answer.outcome,
            decision=answer.decision,
            reason=answer.reason,
            version=answer.version,
            model=answer.model,
            candidates=[CandidateOut.of(candidate) for candidate in answer.candidates],
        )


class SizeOut(Outgoing):
    """Of the whole upright picture, in pixels."""

    width: int
    height: int


class DetectionOut(Outgoing):
    class_name: ClassName
    box: BoxShape = Field(description="Upright hull of the quad, or what a detector sees; clipped to the picture.")
    similarity: Similarity = Field(description="Of what is in the box.")
    probability: float = Field(ge=0, le=1, description="That this is a thing of this class.")
    outcome: Outcome = Field(description="match or doubtful.")
    reason: Reason | None = Field(description="Why the outcome is no match.")
    accepted: bool
    threshold: Similarity
    quad: list[tuple[float, float]] | None = Field(
        description="Where the corners of the first example in `evidence` land, the top left one first, clockwise; it may reach "
        "outside of the picture. Null where nothing is proved, and a detector sees the thing."
    )
    evidence: list[EvidenceOut]

    @classmethod
    def of(cls, detection: Detection) -> DetectionOut:
        return cls(
            class_name=detection.class_name,
            box=BoxShape.of(detection.box),
            similarity=detection.similarity,
            probability=detection.probability,
            outcome=detection.outcome,
            reason=detection.reason,
            accepted=detection.accepted,
            threshold=detection.threshold,
            quad=None if detection.quad is None else list(detection.quad),
            evidence=[EvidenceOut.of(evidence) for evidence in detection.evidence],
        )


class DetectionsOut(Outgoing):
    image: SizeOut
    version: int = Field(description="Of the gallery that was asked.")
    model: str = Field(description="Id of the model set: the version of what a similarity means.")
    detections: list[DetectionOut] = Field(description="Most probable first.")

    @classmethod
    def of(cls, found: Detections) -> DetectionsOut:
        return cls(
            image=SizeOut(width=found.width, height=found.height),
            version=found.version,
            model=found.model,
            detections=[DetectionOut.of(detection) for detection in found.detections],
        )


def _is_none(value: object) -> bool:
    return value is None


class Problem(Outgoing):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="Stable name of the kind of problem, for programs.")
    title: str
    status: int
    detail: str = Field(description="What is wrong here, and what to change.")
    field: str | None = Field(default=None, description="The field or parameter it is about.", exclude_if=_is_none)
    limit: Limit | None = Field(default=None, description="The limit that was passed.", exclude_if=_is_none)


class AnsweredItem(AnswerOut):
    status: Literal[200] = 200


class RefusedItem(Outgoing):
    status: int
    problem: Problem


class BatchOut(Outgoing):
    results: list[AnsweredItem | RefusedItem] = Field(description="In the order of the pictures.")


class ClassOut(Outgoing):
    class_name: ClassName
    examples: int
    threshold: Similarity | None = Field(description="null while the class has no examples.")
    version: int = Field(description="Of the last change to this class; its ETag.")
    metadata: dict[str, Any]

    @classmethod
    def of(cls, state: ClassState) -> ClassOut:
        return cls(
            class_name=state.name,
            examples=len(state.examples),
            threshold=state.threshold,
            version=state.version,
            metadata=dict(state.metadata),
        )


class ClassPageOut(Outgoing):
    classes: list[ClassOut]
    next_cursor: str | None

    @classmethod
    def of(cls, page: ClassPage) -> ClassPageOut:
        return cls(classes=[ClassOut.of(state) for state in page.classes], next_cursor=page.next_cursor)


class ExampleOut(Outgoing):
    id: str
    box: BoxShape
    similarity: Similarity | None = Field(description="To its class without it; null if it is alone.")

    @classmethod
    def of(cls, listed: ListedExample) -> ExampleOut:
        return cls(id=listed.example.id, box=BoxShape.of(listed.example.box), similarity=listed.similarity)


class ExamplePageOut(Outgoing):
    examples: list[ExampleOut]
    next_cursor: str | None

    @classmethod
    def of(cls, page: ExamplePage) -> ExamplePageOut:
        return cls(examples=[ExampleOut.of(listed) for listed in page.examples], next_cursor=page.next_cursor)


class RemovedOut(Outgoing):
    version: int = Field(description="Of the change that removed it.")


class LimitsOut(Outgoing):
    max_body_bytes: int
    max_json_bytes: int
    max_image_megapixels: float
    max_images_per_request: int
    max_examples_per_class: int
    max_concurrent_requests: int
    request_timeout_s: float


class InfoOut(Outgoing):
    name: Literal["firstsight"] = "firstsight"
    version: str = Field(description="Of the software.")
    model: str = Field(description="Id of the model set.")
    networks: str = Field(description="SHA-256 over the network files.")
    calibration: str = Field(description="SHA-256 over calibration and synthesis.")
    store: str = Field(description="Kind of store: sqlite or memory.")
    store_images: Literal["crop", "none"]
    device: str
    classes: int
    gallery_version: int
    limits: LimitsOut


class AliveOut(Outgoing):
    status: Literal["alive"] = "alive"


class ReadyOut(Outgoing):
    ready: bool
    waiting_for: str | None = Field(description="What the service still waits for.")
