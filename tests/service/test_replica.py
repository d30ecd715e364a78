from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.adapters.store_memory import MemoryStore
from app.domain.changes import Committed
from app.domain.gallery import NumpyIndex
from app.errors import StoreAway, StoreTooWeak
from app.service.follow import Galleries
from app.service.replica import CHECK_EVERY_S, OFFER_EVERY_S, STALE_AFTER_S, Replica
from tests.conftest import Logged
from tests.fakes import model_set_for_tests, prints_for_tests
from tests.values import NETWORKS, added


class Flaky(MemoryStore):
    """A store that can be away."""

    away = False
    weak: str | None = None

    def check(self) -> None:
        if self.weak:
            raise StoreTooWeak(self.weak)

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        if self.away:
            raise StoreAway("The store is away.")
        return super().follow(after, epoch=epoch, limit=limit)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Flaky:
    return Flaky()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def galleries(store: Flaky) -> Galleries:
    prints = prints_for_tests(model_set_for_tests())
    return Galleries(store, make_index=NumpyIndex, networks=NETWORKS, prints=prints, in_background=lambda job: job())


@pytest.fixture
def replica(galleries: Galleries, clock: Clock) -> Replica:
    return Replica(galleries, every_s=60, clock=clock)


def test_a_look_serves_what_others_have_committed(store: Flaky, galleries: Galleries, replica: Replica) -> None:
    store.commit(added("acme"), expected=0, crops={})
    replica.look()
    assert galleries.current.gallery.names() == ["acme"]


def test_it_is_stale_from_the_last_look_that_went_well_until_the_next(store: Flaky, clock: Clock, replica: Replica) -> None:
    replica.look()
    store.away = True
    clock.now = STALE_AFTER_S / 2
    replica.look()
    assert replica.stale_s is None
    clock.now = 7.9
    replica.look()
    assert replica.stale_s == 7
    store.away = False
    replica.look()
    assert replica.stale_s is None


def test_a_look_that_hangs_makes_it_stale_too(clock: Clock, replica: Replica) -> None:
    replica.look()
    clock.now = 3.0  # and no look has ended since
    assert replica.stale_s == 3


def test_an_outage_is_told_once_and_its_end_too(store: Flaky, replica: Replica, logged: Logged) -> None:
    for store.away in (True, True, False, False):
        replica.look()
    assert [line["event"] for line in logged()] == ["store cannot be followed", "store is back"]


def test_a_store_that_has_become_too_weak_is_told_once_and_so_is_its_recovery(
    store: Flaky, clock: Clock, replica: Replica, logged: Logged
) -> None:
    refused = []
    for look, store.weak in enumerate((None, "weak", "weak", None, None)):
        clock.now = look * CHECK_EVERY_S
        replica.look()
        refused.append(replica.refused)
    assert refused == [None, "weak", "weak", None, None]
    assert [line["event"] for line in logged()] == ["store is too weak to be written to", "store may be written to again"]


def test_a_store_that_is_too_weak_is_followed_all_the_same(
    store: Flaky, clock: Clock, galleries: Galleries, replica: Replica
) -> None:
    store.commit(added("acme"), expected=0, crops={})
    store.weak, clock.now = "weak", 100.0
    replica.look()
    assert (galleries.current.gallery.names(), replica.stale_s) == (["acme"], None)


def test_it_offers_the_store_a_snapshot_now_and_then(store: Flaky, clock: Clock, replica: Replica) -> None:
    offered = []
    store.keep_snapshot = lambda version, take: offered.append((version, take().version))  # type: ignore[method-assign]
    store.commit(added("acme"), expected=0, crops={})
    for clock.now in (0.0, OFFER_EVERY_S / 2, OFFER_EVERY_S):
        replica.look()
    assert offered == [(1, 1), (1, 1)]


def test_a_snapshot_that_cannot_be_kept_makes_nothing_stale(
    store: Flaky, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(version: int, take: object) -> None:
        raise StoreAway("full")

    store.keep_snapshot = refuse  # type: ignore[method-assign]
    replica.look()
    assert replica.stale_s is None
    assert "could not be kept" in caplog.text


def test_it_looks_by_itself_until_it_is_closed(store: Flaky, galleries: Galleries) -> None:
    replica = Replica(galleries, every_s=0.001)
    replica.start()
    store.commit(added("acme"), expected=0, crops={})
    while not len(galleries.current.gallery):
        pass
    replica.close()
    assert replica.stale_s is None
