"""The seams: every Protocol in the project, and nothing else. Adapters fit them by shape; mypy proves it in `main.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.changes import Change, Committed, Receipt, Snapshot
from app.domain.posterior import Regions
from app.domain.values import Box, Embeddings, FloatArray, Picture, PixelArray, Points


class Decode(Protocol):
    def __call__(self, data: bytes, *, box: Box | None, wanted_px: int, field: str) -> Picture:
        """Bytes of any known format -> the picture, or the box of it, upright, RGB.

        Decoding may shrink, but leaves the region's longest side at `wanted_px` or more where the original has that many.
        Raises UnsupportedPicture, InvalidPicture, TooLarge, or InvalidInput for a box that does not fit, naming `field`.
        """
        ...


class Embedder(Protocol):
    @property
    def side_px(self) -> int:
        """Pictures are given as squares of this side."""
        ...

    def __call__(self, pictures: PixelArray) -> Embeddings:
        """uint8 (n, side, side, 3) -> embeddings. The same picture gives the same bytes in any batch."""
        ...


class Detector(Protocol):
    @property
    def sides_px(self) -> tuple[int, ...]:
        """Sides of the squares in which it can see a picture, rising; one or more."""
        ...

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        """A picture (h, w, 3) of any shape, seen in a square of one of its sides -> places in its pixels where a thing may be.

        One or more, the same ones every time. What each is, it does not say: embeddings of a thing lie near each other.
        """
        ...


class PointFinder(Protocol):
    @property
    def side_px(self) -> int:
        """Longest side at which examples are looked at."""
        ...

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        """The points of a picture (h, w, 3) of any size, `most` at most, spread over it; the same ones every time.

        They are looked for with the picture's longest side at `side_px`. None: as in an example. A photograph that is asked about
        is softer than what is enrolled: `sharpen` undoes some of that.
        """
        ...


class Rectify(Protocol):
    def __call__(self, pixels: PixelArray, quad: NDArray[np.float64], side_px: int) -> PixelArray:
        """Pixels (h, w, 3) -> (side, side, 3): what a convex quad (4, 2) in pixels encloses, its first corner at the top left."""
        ...


class Synthesizer(Protocol):
    def __call__(self, support: FloatArray, seed: int, /) -> FloatArray:
        """Support embeddings (k, d) -> embeddings of other pictures of the class, made of each (k, m, d), m at least 1.

        The same ones for the same support and seed.
        """
        ...


class Index(Protocol):
    def search(self, queries: FloatArray, top: int, allowed: NDArray[np.bool_] | None) -> tuple[FloatArray, NDArray[np.int64]]:
        """Queries (q, d) -> similarities and rows, both (q, top), best first; row -1 where there are fewer.

        Only rows with True in `allowed` (n,) are found; None allows all. A similarity errs by half of `gallery.ROUNDING` at most.
        """
        ...


class Store(Protocol):
    """The durable truth: a log of changes plus the records they produce. Synchronous; called from one worker thread."""

    def check(self) -> None:
        """StoreTooWeak while what is acknowledged could be lost; then nothing is committed either."""
        ...

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        """Makes a change durable, whole or not at all, and returns its version.

        `expected` is the version of the last change to `change.class_name` (0: must not exist), else VersionConflict. A rename to
        an existing name raises NameTaken. `crops` are encoded pictures by example id, for ExamplesAdded. A `receipt` is kept for
        24 hours; KeyInProgress where there is one of its key, so that whoever comes second finds it. StoreUnavailable when the
        outcome is not known to be durable.
        """
        ...

    def snapshot(self) -> Snapshot:
        """All classes at one version, sorted by name."""
        ...

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        """Changes with version > `after`, oldest first.

        LogTrimmed when the log no longer reaches back that far, or is another than that of `epoch` (None: not asked).
        """
        ...

    def keep_snapshot(self, version: int, take: Callable[[], Snapshot]) -> None:
        """Offers a snapshot at `version` for faster starts. A store that has use for it calls `take`; most have none."""
        ...

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        """The stored crop of an example as encoded bytes; None when crops are not stored or there is no such example."""
        ...

    def begin(self, key: str, *, holder: str, lease_s: float) -> Receipt | None:
        """The receipt that was committed with a key; where there is none, the write is the holder's to do.

        KeyInProgress for holders in other processes, until the write has been ended or its lease is over. Begun again by its
        holder, it has a new lease. This spares two replicas the same work; that it is done once is what `commit` sees to.
        """
        ...

    def end(self, key: str, *, holder: str) -> None:
        """Lets go of a write that the holder has begun."""
        ...

    def find_receipt(self, key: str) -> Receipt | None:
        """The receipt that was committed with a key in the last 24 hours."""
        ...

    def close(self) -> None: ...
