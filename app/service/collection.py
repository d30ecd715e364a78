"""One collection's state for the use cases: the gallery that is served now, and the one way to change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from app.domain.changes import Change, Committed, Position, Receipt
from app.domain.gallery import Gallery
from app.domain.values import ClassState
from app.errors import Behind, DeadlinePassed, InvalidInput, UnknownClass
from app.service.follow import Galleries, Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Store

REACH_AGAIN_S = 0.02  # between looks for a version that another replica has told of
NO_CROPS: Mapping[str, bytes] = {}


def no_receipt(_: object) -> Receipt | None:
    """Of a write that nobody sends again."""
    return None


class Collection:
    def __init__(
        self,
        *,
        store: Store,
        galleries: Galleries,
        pools: Pools,
        keep_crops: bool = True,
        stale_s: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`stale_s` tells for how many seconds the store could not be followed; None when it can."""
        self.stale_s = stale_s
        self._store = store
        self._galleries = galleries
        self._pools = pools
        self._keep_crops = keep_crops

    @property
    def served(self) -> Served:
        """Gallery and index of one version; a request takes it once and stays with it."""
        return self._galleries.current

    def served_with(self, names: frozenset[str] | None) -> Served:
        """`served`; InvalidInput for a name in a `classes` filter that is not enrolled."""
        served = self.served
        for name in sorted(names or ()):
            if served.gallery.get(name) is None:
                raise InvalidInput(f"There is no class {name!r}.", field="classes")
        return served

    @property
    def gallery(self) -> Gallery:
        return self.served.gallery

    def state_of(self, class_name: str) -> ClassState:
        state = self.gallery.get(class_name)
        if state is None:
            raise UnknownClass(class_name)
        return state

    async def commit(
        self,
        change: Change,
        *,
        expected: int,
        deadline: Deadline,
        crops: Mapping[str, bytes] = NO_CROPS,
        receipt: Receipt | None = None,
    ) -> int:
        """Makes a change durable and served, and returns its version."""
        kept = crops if self._keep_crops else NO_CROPS
        return await self._pools.store(self._commit, change, expected, kept, receipt, deadline=deadline)

    async def find_receipt(self, key: str, deadline: Deadline) -> Receipt | None:
        return await self._pools.store(self._store.find_receipt, key, deadline=deadline)

    async def reach(self, position: Position, deadline: Deadline) -> None:
        """Waits until what is served has come as far as `position`; Behind if it has not by the deadline."""
        while self.served.position < position:
            try:
                await self.catch_up(deadline)
                if self.served.position < position:
                    deadline.check()
                    await asyncio.sleep(REACH_AGAIN_S)
            except DeadlinePassed:
                raise Behind(wanted=str(position), found=str(self.served.position)) from None

    async def catch_up(self, deadline: Deadline) -> None:
        """Serves what others have committed."""
        await self._pools.store(self._galleries.advance, deadline=deadline)

    async def read_crop(self, class_name: str, example_id: str, deadline: Deadline) -> bytes | None:
        return await self._pools.store(self._store.read_crop, class_name, example_id, deadline=deadline)

    def _commit(self, change: Change, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None) -> int:
        # In one piece on the store's thread: a request that is cancelled in between must not leave a change unserved.
        with stage("commit"):
            version = self._store.commit(change, expected=expected, crops=crops, receipt=receipt)
            self._galleries.take(Committed(version, change))
        return version
