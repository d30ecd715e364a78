"""The code book of the vote: centroids of local features of what training may learn from, package fronts and brand marks.

    python -m training points --data DIR --models models

Writes words.npy. `calibrate` puts it into the manifest with the settings below; how they were chosen: docs/experiments.md.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
from PIL import Image

from app.adapters.local_features import SiftPoints
from app.domain.model_set import PointSettings
from app.domain.values import PixelArray
from training import data, run
from training.batches import training_split

SETTINGS = {"side_px": 256, "most": 300, "contrast": 0.02}
WORDS_FILE = "words.npy"
PACKS = ("package-fronts", "brand-marks")


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "folder that words.npy is written to"})
    words: int = field(default=1024, metadata={"help": "centroids"})
    pictures: int = field(default=1500, metadata={"help": "of each pack"})
    each: int = field(default=64, metadata={"help": "most points that a centroid is fitted to, on average"})
    seed: int = 0


def pictures_of(items: Sequence[data.Item]) -> Iterator[PixelArray]:
    """Whole pictures as the service would decode them: (h, w, 3), transparency over white."""
    archives = {item.archive: zipfile.ZipFile(item.archive) for item in items}
    for item in items:
        yield np.asarray(data.over(Image.open(io.BytesIO(archives[item.archive].read(item.entry)))))


def descriptors(config: Config) -> np.ndarray:
    """Root-SIFT of pictures of the training splits, drawn at random: (n, 128) uint8."""
    rng, found = np.random.default_rng(config.seed), []
    find_points = SiftPoints(PointSettings(**SETTINGS, words=np.zeros((1, 128), np.uint8)))  # type: ignore[arg-type]
    for pack in PACKS:
        items = data.pack_items(config.data / pack, split=training_split)
        chosen = [items[position] for position in np.sort(rng.permutation(len(items))[: config.pictures])]
        with ThreadPoolExecutor() as pool:
            found += [points.descriptors for points in pool.map(find_points, pictures_of(chosen))]
    return np.concatenate(found)


def centroids(rows: np.ndarray, config: Config) -> np.ndarray:
    """k-means (faiss) of (n, 128) -> (words, 128) uint8."""
    count = min(config.words, len(rows))
    chosen = rows[np.random.default_rng(config.seed).permutation(len(rows))[: count * config.each]]
    fitted = faiss.Kmeans(rows.shape[1], count, niter=15, seed=config.seed + 1, max_points_per_centroid=config.each)
    fitted.train(chosen.astype(np.float32))
    return np.rint(fitted.centroids).clip(0, 255).astype(np.uint8)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Make the code book of the vote.")
    words = centroids(descriptors(config), config)
    np.save(config.models / WORDS_FILE, words)
    print(f"{len(words)} words")
