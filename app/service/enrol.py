"""Enrolment: pictures -> checks -> embeddings, points, regions -> class model -> report.

Nothing is stored unless every picture is usable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.domain.changes import ExamplesAdded, Receipt
from app.domain.checks import WarningLimits, picture_warnings, print_warnings, support_warnings
from app.domain.values import Box, ClassModel, Example, ExampleWarning, Picture, PixelArray, Upload
from app.domain.verification import Finds
from app.errors import InvalidInput, VersionConflict
from app.service.collection import Collection, no_receipt
from app.service.embed import CROP_SIDE_PX, CropEmbedder, CropViews, PictureCodec
from app.service.follow import Served
from app.service.pools import Deadline, Pools, stage
from app.service.verify import Verifier

MOST_NEAREST = 5  # other classes in a report


@dataclass(frozen=True, slots=True)
class EnrolledExample:
    id: str
    box: Box
    warnings: tuple[ExampleWarning, ...]


@dataclass(frozen=True, slots=True)
class NearestClass:
    """Another class, and its greatest similarity to any of the pictures."""

    class_name: str
    similarity: float


@dataclass(frozen=True, slots=True)
class EnrolmentReport:
    """What was understood of the pictures, in the order they were sent."""

    class_name: str
    version: int  # of the class: after this enrolment; as it was, if nothing was stored (0: there is no such class)
    dry_run: bool
    threshold: float  # that the class has now, or would have
    examples: tuple[EnrolledExample, ...]
    nearest: tuple[NearestClass, ...]  # most similar first
    stored: bool  # False for a dry run and for a mere repeat


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A picture before the network has seen it."""

    example_id: str
    picture: Picture
    crop: bytes
    views: CropViews


@dataclass(frozen=True, slots=True)
class _Offer:
    """A picture as an example, which the class may have already."""

    example: Example
    crop: bytes
    pixels: PixelArray  # of the crop
    warnings: tuple[ExampleWarning, ...]  # those that the picture alone gives


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What the pictures would make of the class as it is at one version."""

    change: ExamplesAdded
    report: EnrolmentReport


class Enrol:
    def __init__(
        self,
        *,
        collection: Collection,
        pools: Pools,
        codec: PictureCodec,
        crop_embedder: CropEmbedder,
        fit: Callable[[Sequence[Example]], ClassModel],
        verifier: Verifier,
        limits: WarningLimits,
        max_examples: int,
    ) -> None:
        self._collection = collection
        self._pools = pools
        self._codec = codec
        self._crop_embedder = crop_embedder
        self._fit = fit
        self._verifier = verifier
        self._limits = limits
        self._max_examples = max_examples  # of a class

    async def __call__(
        self,
        class_name: str,
        uploads: Sequence[Upload],
        *,
        dry_run: bool,
        deadline: Deadline,
        receipt_of: Callable[[EnrolmentReport], Receipt | None] = no_receipt,
    ) -> EnrolmentReport:
        """`receipt_of` makes what is committed along with the pictures, of a report whose version is not known yet."""
        # One bad picture refuses them all.
        offers = await self._pools.for_each(uploads, lambda upload: self._read(upload, deadline))
        while True:
            proposal = await self._pools.infer(self._propose, class_name, offers, dry_run, deadline=deadline)
            if dry_run or not proposal.change.examples:
                return proposal.report
            try:
                return await self._commit(proposal, offers, receipt_of(proposal.report), deadline)
            except VersionConflict:
                # Somebody else changed the class in between: fit it again with what they added. The deadline ends this.
                await self._collection.catch_up(deadline)

    async def _read(self, upload: Upload, deadline: Deadline) -> _Offer:
        prepared = await self._pools.decode(self._prepare, upload, deadline=deadline)
        return await self._pools.infer(self._embed, prepared, deadline=deadline)

    def _prepare(self, upload: Upload) -> _Prepared:
        with stage("decode"):
            picture = self._codec.decode(upload.data, box=upload.box, wanted_px=CROP_SIDE_PX, field=upload.field)
            crop = self._codec.encode_crop(picture.pixels)
            # The views come from the crop as it is stored, so that a later network can be given the very same pixels.
            return _Prepared(example_id_of(upload.data, picture.box), picture, crop, self._crop_embedder.views(crop))

    def _embed(self, prepared: _Prepared) -> _Offer:
        embedded = self._crop_embedder.embed(prepared.views)
        example = Example(
            id=prepared.example_id,
            box=prepared.picture.box,
            embedding=embedded.embedding,
            spread=embedded.spread,
            points=embedded.points,
            regions=self._crop_embedder.regions(prepared.views.pixels),
        )
        return _Offer(
            example, prepared.crop, prepared.views.pixels, picture_warnings(prepared.picture, embedded.dense, self._limits)
        )

    def _propose(self, class_name: str, offers: Sequence[_Offer], dry_run: bool) -> _Proposal:
        served = self._collection.served
        state = served.gallery.get(class_name)
        known = {example.id: example for example in state.examples} if state else {}
        added = {offer.example.id: offer.example for offer in offers if offer.example.id not in known}
        everything = list((known | added).values())
        if added and len(everything) > self._max_examples:
            raise InvalidInput(
                f"A class has {self._max_examples} examples at most; this one has {len(known)}, and {len(added)} more were sent.",
                field="image",
                limit=self._max_examples,
            )
        model = self._fit(everything)
        with stage("search"):
            nearest = [_nearest_classes(class_name, offer.example, served) for offer in offers]
        finds = [self._verifier.finds_in(offer.pixels, offer.example, served) for offer in offers]
        return _Proposal(
            ExamplesAdded(class_name, tuple(added.values()), model),
            EnrolmentReport(
                class_name=class_name,
                version=state.version if state else 0,
                dry_run=dry_run,
                threshold=state.user_threshold if state and state.user_threshold is not None else model.threshold,
                examples=tuple(
                    self._enrolled(class_name, offer, everything, rivals, found)
                    for offer, rivals, found in zip(offers, nearest, finds, strict=True)
                ),
                nearest=_merged(nearest),
                stored=False,
            ),
        )

    def _enrolled(
        self, class_name: str, offer: _Offer, everything: Sequence[Example], rivals: Sequence[NearestClass], finds: Finds
    ) -> EnrolledExample:
        example = offer.example
        others = [other for other in everything if other.id != example.id]
        rival = (rivals[0].class_name, rivals[0].similarity) if rivals else None
        by_look = support_warnings(example.embedding, others, rival, self._limits)
        own = [found for found in finds.get(class_name, ()) if found.example.id != example.id]
        by_print = print_warnings(example, own, self._verifier.print_of_other(finds, class_name), self._limits)
        return EnrolledExample(example.id, example.box, offer.warnings + _each_code_once((*by_look, *by_print)))

    async def _commit(
        self, proposal: _Proposal, offers: Sequence[_Offer], receipt: Receipt | None, deadline: Deadline
    ) -> EnrolmentReport:
        added = {example.id for example in proposal.change.examples}
        crops = {offer.example.id: offer.crop for offer in offers if offer.example.id in added}
        version = await self._collection.commit(
            proposal.change, expected=proposal.report.version, crops=crops, receipt=receipt, deadline=deadline
        )
        return replace(proposal.report, version=version, stored=True)


def example_id_of(data: bytes, box: Box) -> str:
    """32 hex digits of SHA-256 over the bytes and the region in them: the same picture again is the same example."""
    region = f"{box.x},{box.y},{box.width},{box.height};"
    return hashlib.sha256(region.encode() + data).hexdigest()[:32]


def _each_code_once(warnings: Sequence[ExampleWarning]) -> tuple[ExampleWarning, ...]:
    """A near duplicate by look and by print is one warning."""
    return tuple({warning.code: warning for warning in reversed(warnings)}.values())[::-1]


def _nearest_classes(class_name: str, example: Example, served: Served) -> list[NearestClass]:
    # One more than wanted, because the class itself may be among them.
    found = served.best_classes(example.embedding, MOST_NEAREST + 1)
    return [NearestClass(state.name, similarity) for state, similarity in found if state.name != class_name][:MOST_NEAREST]


def _merged(per_picture: Sequence[Sequence[NearestClass]]) -> tuple[NearestClass, ...]:
    """The nearest classes of all the pictures, each class once, with its best similarity."""
    rising = sorted((one for nearest in per_picture for one in nearest), key=lambda one: one.similarity)
    best = {one.class_name: one for one in rising}
    return tuple(sorted(best.values(), key=lambda one: (-one.similarity, one.class_name))[:MOST_NEAREST])
