"""One collection's state for the use cases: the gallery that is served now, and the one way to change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from uuid import uuid4

from app.domain.changes import Change, Committed, Position, Receipt
from app.domain.gallery import Gallery
from app.domain.values import ClassState
from app.errors import Behind, DeadlinePassed, FirstsightError, InvalidInput, KeyInProgress, UnknownClass
from app.service.follow import Galleries, Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Store

REACH_AGAIN_S = 0.02  # between looks for a version that another replica has told of
LEASE_S = 3.0  # of a write that is at work: so long after the death of a replica another one may do it
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
        self._at_work: set[str] = set()  # keys of the writes of this process; used on the event loop only

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

    @asynccontextmanager
    async def writing(self, key: str, deadline: Deadline) -> AsyncIterator[Receipt | None]:
        """What came of the write with this key; None where it is to be done, and then nobody else does it meanwhile.

        KeyInProgress while another is at it, on this replica or on another.
        """
        if key in self._at_work:  # known without asking a store that may be busy with just that
            raise KeyInProgress
        self._at_work.add(key)
        try:
            async with self._held(key, deadline) as receipt:
                yield receipt
        finally:
            self._at_work.discard(key)

    @asynccontextmanager
    async def _held(self, key: str, deadline: Deadline) -> AsyncIterator[Receipt | None]:
        """The same among replicas, of which any may die: what is held has to be held again and again."""
        holder = uuid4().hex
        begin = partial(self._store.begin, key, holder=holder, lease_s=LEASE_S)
        receipt = await self._pools.store(begin, deadline=deadline)
        if receipt is not None:
            yield receipt
            return
        renewing = asyncio.create_task(self._renew(begin))
        try:
            yield None
        finally:
            renewing.cancel()
            with suppress(FirstsightError):  # a store that is away has it lapse
                await self._pools.store(partial(self._store.end, key, holder=holder), deadline=Deadline.never())

    async def _renew(self, begin: Callable[[], Receipt | None]) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(FirstsightError):  # a lease that is lost costs work that is done twice, not a change
                await self._pools.store(begin, deadline=Deadline.after(LEASE_S))

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
