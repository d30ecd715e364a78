"""The service in this process answers as it does anywhere, and each picture goes through the network and through SIFT once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Answer, Embeddings, PixelArray, Points, Upload
from app.main import Adapters, open_adapters
from app.settings import Settings
from tests.fakes import FakeDetector, FakeEmbedder
from tests.model_sets import write_model_set
from tests.training.packs import print_of
from tests.values import random_points
from training.evaluate import in_process
from training.evaluate.items import as_png


class CountingEmbedder(FakeEmbedder):
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: PixelArray) -> Embeddings:
        self.seen += len(pictures)
        return super().__call__(pictures)


class CountingPoints:
    side_px = 64

    def __init__(self) -> None:
        self.seen = 0

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        self.seen += 1
        return random_points(3, seed=self.seen)


def pictures(count: int) -> PixelArray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_the_same_pixels_are_embedded_once_in_any_batch() -> None:
    counting = CountingEmbedder()
    cached = in_process.CachedEmbedder(counting)
    first, second = pictures(2)
    assert cached.side_px == counting.side_px
    alone = cached(first[np.newaxis])
    both = cached(np.stack([second, first.copy()]))
    assert counting.seen == 2
    assert (both.embedding[1] == alone.embedding[0]).all()
    plain = FakeEmbedder()(np.stack([second, first]))
    assert all((getattr(both, part) == getattr(plain, part)).all() for part in ("embedding", "features", "dense"))


def test_points_are_found_once_for_the_same_pixels_size_and_number() -> None:
    counting = CountingPoints()
    cached = in_process.CachedPoints(counting)
    pixels = pictures(1)[0]
    assert cached(pixels) is cached(pixels.copy())
    assert counting.seen == 1
    cached(pixels, side_px=128)
    cached(pixels, side_px=128, most=10)
    cached(pixels, sharpen=True)
    cached(pixels.reshape(16, 64, 3))  # the same bytes, another picture
    assert counting.seen == 5


def test_regions_are_seen_once_in_the_same_pixels_at_a_side() -> None:
    counting = FakeDetector()
    cached = in_process.CachedDetector(counting)
    first, second = pictures(2)
    assert cached.sides_px == counting.sides_px
    assert cached(first, 32) is cached(first.copy(), 32)
    assert counting.asked_at == [32]
    assert (cached(first, 64).boxes == FakeDetector()(first, 64).boxes).all()
    cached(second, 64)
    assert counting.asked_at == [32, 64, 64]


def test_threads_that_ask_at_one_time_wait_for_one_computation() -> None:
    once, together, computed = in_process.Once[int](), Barrier(2), list[int]()

    def ask(_: int) -> int:
        together.wait()
        return once(b"key", lambda: computed.append(1) or 7)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [7, 7]
    assert len(computed) == 1


def test_what_cannot_be_computed_fails_for_all_who_ask() -> None:
    once = in_process.Once[float]()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            once(b"key", lambda: 1 / 0)


async def answers_of(adapters: Adapters, verify: str, shown: dict[str, list[Upload]], asked: list[Upload]) -> list[Answer]:
    async with in_process.serving(adapters, verify) as use_cases:
        await in_process.enrol_all(use_cases, shown)
        return await in_process.ask_all(use_cases, asked)


def test_answers_are_those_of_the_service_without_caches(tmp_path: Path) -> None:
    models = write_model_set(tmp_path / "models")
    uploads = [Upload(as_png(print_of(seed))) for seed in range(4)]
    shown = {"a": uploads[:1], "b": uploads[1:2]}
    cached = in_process.open_cached(models)
    plain = open_adapters(Settings(store=in_process.IN_MEMORY, models_dir=models))
    for verify in in_process.ARMS:
        with_caches = asyncio.run(answers_of(in_process.emptied(cached), verify, shown, uploads))
        without = asyncio.run(answers_of(in_process.emptied(plain), verify, shown, uploads))
        assert [candidates_of(answer) for answer in with_caches] == [candidates_of(answer) for answer in without]
        assert with_caches[0].candidates[0].class_name == "a"


def test_a_second_service_finds_in_the_store_what_the_first_enrolled(tmp_path: Path) -> None:
    adapters = in_process.emptied(in_process.open_cached(write_model_set(tmp_path / "models")))
    asked = [Upload(as_png(print_of(seed))) for seed in range(3)]
    first = asyncio.run(answers_of(adapters, "always", {"a": asked[:1], "b": asked[1:2]}, asked))
    second = asyncio.run(answers_of(adapters, "always", {}, asked))
    assert [candidates_of(answer) for answer in first] == [candidates_of(answer) for answer in second]
    assert len(second[0].candidates) == 2


def candidates_of(answer: Answer) -> tuple[object, ...]:
    """All of an answer but the version: pictures are enrolled in any order."""
    return answer.outcome, answer.decision, answer.reason, answer.candidates
