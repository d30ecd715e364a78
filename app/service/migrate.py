"""At start, brings the classes of a store to the model set in use, before anything is served.

Under other networks every example is embedded again from its stored crop. Where only points are found in another way, only they
are found again; a detector that was another one, or was not there, looks at the crops; under another calibration alone, only the
class models are fitted again. One commit a class, so that a start that was cut short goes on where it stopped.

A model set without a detector asks nobody for what another has made: that stays with the examples, and is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from app.domain.changes import ClassRefitted
from app.domain.values import ClassModel, ClassState, Example, HalfArray, Points, Provenance, no_regions
from app.errors import IncompatibleStore, VersionConflict
from app.logs import logger
from app.service.embed import CropEmbedder
from app.service.pools import Deadline, Pools
from app.service.ports import Store

log = logger(__name__)

Progress = Callable[[int, int], None]  # classes done, classes to do


class Migrate:
    def __init__(
        self,
        *,
        store: Store,
        pools: Pools,
        crop_embedder: CropEmbedder,
        fit: Callable[[Sequence[Example]], ClassModel],
        provenance: Provenance,
    ) -> None:
        self._store = store
        self._pools = pools
        self._crop_embedder = crop_embedder
        self._fit = fit
        self._provenance = provenance

    async def __call__(self, report: Progress) -> None:
        """IncompatibleStore, and nothing changed, when a crop that is needed for an embedding is not stored."""
        overtaken = 1
        while overtaken:  # by another replica, which has migrated a class or changed it: what is left is looked for again
            stale = await self._pools.store(self._stale_classes, deadline=Deadline.never())
            overtaken = 0
            for done, state in enumerate(stale):
                report(done, len(stale))
                overtaken += not await self._migrate(state)
            report(len(stale), len(stale))

    def _stale_classes(self) -> list[ClassState]:
        stale = [state for state in self._store.snapshot().classes if self._is_stale(state)]
        for state in filter(self._needs_embedding, stale):
            for example in state.examples:
                self._read_crop(state.name, example.id)  # all of them, before anything is changed
        if lost := self._without_crop(filter(self._needs_points_alone, stale)):
            log.warning(
                "points cannot be found again",
                examples=lost,
                detail="Their pictures are not stored, so from now on they are known by their look alone.",
            )
        if lost := self._without_crop(filter(self._needs_regions, stale)):
            log.warning(
                "the detector cannot see all examples",
                examples=lost,
                detail="Their pictures are not stored, so /detect finds them by their print alone.",
            )
        return stale

    def _without_crop(self, states: Iterable[ClassState]) -> int:
        crops = (self._store.read_crop(state.name, example.id) for state in states for example in state.examples)
        return sum(crop is None for crop in crops)

    async def _migrate(self, state: ClassState) -> bool:
        """False when somebody else has changed the class meanwhile."""
        examples = state.examples
        if self._needs_embedding(state):
            examples = tuple([await self._embedded_again(state.name, example) for example in examples])
        elif self._needs_points_alone(state):
            examples = tuple([await self._with_points_again(state.name, example) for example in examples])
        if self._needs_regions(state):
            examples = tuple([replace(one, regions=await self._regions_of(state.name, one.id)) for one in examples])
        model = await self._pools.infer(self._fit, examples, deadline=Deadline.never())
        refitted = ClassRefitted(state.name, examples, model)
        try:
            await self._pools.store(self._commit, refitted, state.version, deadline=Deadline.never())
        except VersionConflict:
            return False
        return True

    async def _embedded_again(self, class_name: str, example: Example) -> Example:
        crop = await self._pools.store(self._read_crop, class_name, example.id, deadline=Deadline.never())
        views = await self._pools.decode(self._crop_embedder.views, crop, deadline=Deadline.never())
        embedded = await self._pools.infer(self._crop_embedder.embed, views, deadline=Deadline.never())
        return replace(example, embedding=embedded.embedding, spread=embedded.spread, points=embedded.points)

    async def _with_points_again(self, class_name: str, example: Example) -> Example:
        crop = await self._pools.store(self._store.read_crop, class_name, example.id, deadline=Deadline.never())
        if crop is None:
            return replace(example, points=Points.none())
        pixels = await self._pools.decode(self._crop_embedder.pixels, crop, deadline=Deadline.never())
        points = await self._pools.infer(self._crop_embedder.points, pixels, deadline=Deadline.never())
        return replace(example, points=points)

    async def _regions_of(self, class_name: str, example_id: str) -> HalfArray:
        crop = await self._pools.store(self._store.read_crop, class_name, example_id, deadline=Deadline.never())
        if crop is None:
            return no_regions()  # what there was came from another detector
        pixels = await self._pools.decode(self._crop_embedder.pixels, crop, deadline=Deadline.never())
        return await self._pools.infer(self._crop_embedder.regions, pixels, deadline=Deadline.never())

    def _is_stale(self, state: ClassState) -> bool:
        if state.model is None:
            return False
        provenance = state.model.provenance
        return replace(provenance, detector=self._provenance.detector) != self._provenance or self._needs_regions(state)

    def _needs_regions(self, state: ClassState) -> bool:
        return state.model is not None and self._provenance.detector not in ("", state.model.provenance.detector)

    def _needs_embedding(self, state: ClassState) -> bool:
        return state.model is not None and state.model.provenance.networks != self._provenance.networks

    def _needs_points_alone(self, state: ClassState) -> bool:
        provenance = None if state.model is None else state.model.provenance
        return provenance is not None and provenance.points != self._provenance.points and not self._needs_embedding(state)

    def _commit(self, change: ClassRefitted, expected: int) -> None:
        self._store.commit(change, expected=expected, crops={})

    def _read_crop(self, class_name: str, example_id: str) -> bytes:
        crop = self._store.read_crop(class_name, example_id)
        if crop is None:
            raise IncompatibleStore(
                f"The store was written with other networks, and the picture of example {example_id!r} of class {class_name!r} "
                "is not stored, so it cannot be embedded again. Start with the model set that wrote the store, or with an empty "
                "store and enrol again."
            )
        return crop
