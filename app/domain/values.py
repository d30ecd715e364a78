"""The nouns of the product as frozen values, checked where they are made.

Arrays are numpy float32 unless said otherwise, with their axes in the comment beside the field. d is the embedding size of
the model set. Nothing here reads a file, a clock or a setting.
"""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput

FloatArray = NDArray[np.float32]
PixelArray = NDArray[np.uint8]
HalfArray = NDArray[np.float16]

MAX_NAME_CHARS = 200  # after NFC; design section 3
MAX_DECOMPOSITION = 4  # code points that one of NFC can be written as (Unicode Standard Annex #15)

DESCRIPTOR_SIZE = 128  # numbers of a SIFT descriptor
POINT_BYTES = 4 * 2 + DESCRIPTOR_SIZE + 2  # place, descriptor and word of one point
MAX_EXAMPLE_POINT_BYTES = 48 * 1024  # all of them are in memory on every replica; the embedding beside them takes 2 to 4 kB


def class_name_of(text: str, *, field_name: str = "name") -> str:
    """The NFC form of a class name, or InvalidInput saying which rule it breaks."""
    # Composing a run of combining marks takes the square of its length, so what is too long however it composes is left as it is.
    name = unicodedata.normalize("NFC", text) if len(text) <= MAX_DECOMPOSITION * MAX_NAME_CHARS else text
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InvalidInput(
            f"A class name has 1 to {MAX_NAME_CHARS} characters, this one has {len(name)}.",
            field=field_name,
            limit=MAX_NAME_CHARS,
        )
    if name in (".", ".."):
        raise InvalidInput("A class name cannot be '.' or '..'.", field=field_name)
    # Cc: control; Cs: lone surrogates, which cannot be written as UTF-8.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise InvalidInput("A class name cannot hold control characters.", field=field_name)
    return name


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in whole pixels of the upright picture: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded region. `pixels` may be smaller than `box`: decoding shrinks what is larger than anybody needs."""

    pixels: PixelArray  # (h, w, 3) uint8 RGB, upright
    box: Box  # the region in the whole upright picture; all of it when no box was asked for
    width: int  # of the whole upright picture
    height: int


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What the embedding network says of n pictures."""

    embedding: FloatArray  # (n, d) unit length
    features: FloatArray  # (n, f) before normalisation
    dense: FloatArray  # (n, rows, columns, channels)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Local features of a picture or a region, n of them, strongest first."""

    places: NDArray[np.uint16]  # (n, 4): x, y and size in 1/65535 of the region's longest side, angle in 1/65536 of a turn
    descriptors: NDArray[np.uint8]  # (n, 128) root-SIFT, of length about 512
    words: NDArray[np.uint16]  # (n,) nearest centroid of the model set's code book: the list of the vote index it lies in

    def __post_init__(self) -> None:
        count = self.words.size
        _check_array("places", self.places, np.uint16, (count, 4))
        _check_array("descriptors", self.descriptors, np.uint8, (count, DESCRIPTOR_SIZE))
        _check_array("words", self.words, np.uint16, (count,))

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def none(cls) -> Points:
        return cls(np.empty((0, 4), np.uint16), np.empty((0, DESCRIPTOR_SIZE), np.uint8), np.empty(0, np.uint16))


def no_regions() -> HalfArray:
    """Embeddings of regions where no detector has looked."""
    return np.empty((0, 0), np.float16)


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture as it came in: bytes of any format, and the box asked for. Errors name it by `field`: `image`, `images[3]`."""

    data: bytes
    box: Box | None = None
    field: str = "image"


class WarningCode(StrEnum):
    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    NEAR_DUPLICATE = "near_duplicate"
    UNLIKE_CLASS = "unlike_class"
    CLOSER_TO_OTHER = "closer_to_other"
    SEVERAL_THINGS = "several_things"
    FEW_POINTS = "few_points"
    PRINT_OF_OTHER = "print_of_other"


@dataclass(frozen=True, slots=True)
class ExampleWarning:
    """Something a person should know about an example, with the number and the limit that it passed."""

    code: WarningCode
    detail: str
    value: float
    limit: float
    class_name: str | None = None
    example_id: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One picture, or box in one, given for a class. `id` is made of bytes and box: the same again is the same example."""

    id: str
    box: Box
    embedding: FloatArray  # (d,) unit length: mean over the views, normalised
    spread: float  # 1 - mean similarity of the views to `embedding`, 0 to 2
    points: Points = field(default_factory=Points.none)  # of the whole crop
    regions: HalfArray = field(default_factory=no_regions)  # (k, e) of the whole crop in the detector's space, k sizes; or none


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made vectors, thresholds, points and regions: a SHA-256 over each."""

    networks: str  # the network files, and what they are given
    calibration: str  # calibration and synthesis
    points: str = ""  # how points are found, and the code book; empty: there were none yet
    detector: str = ""  # the detector's networks, and the sizes at which it sees an example; empty: there was none


@dataclass(frozen=True, slots=True)
class ClassModel:
    """What is kept to recognise a class; a function of the model set and the examples, in whatever order they came."""

    representatives: FloatArray  # (r, d) unit length, r >= 1
    spread: float  # expected 1 - similarity of a picture of this class
    threshold: float  # similarity from which a picture is accepted
    provenance: Provenance
    regions: HalfArray = field(default_factory=no_regions)  # (r, e) representatives in the detector's space; or none

    @property
    def digest(self) -> str:
        """SHA-256 over every byte of it, in hex: replicas whose digests are the same hold the same class model."""
        numbers = struct.pack("<2d", self.spread, self.threshold)
        # Without a detector it is what it was before there were any.
        made_by = "\0".join(astuple(self.provenance)).removesuffix("\0").encode()
        return hashlib.sha256(self.representatives.tobytes() + numbers + made_by + self.regions.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class ClassState:
    """A class at one version: its examples in the order of their ids, and the class model made of them (None without any)."""

    name: str
    version: int  # of the last change to this class; its ETag
    examples: tuple[Example, ...] = ()
    model: ClassModel | None = None
    user_threshold: float | None = None  # overrides the model's
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        if self.user_threshold is not None:
            return self.user_threshold
        return None if self.model is None else self.model.threshold


class Outcome(StrEnum):
    MATCH = "match"
    DOUBTFUL = "doubtful"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    BELOW_THRESHOLD = "below_threshold"
    AMBIGUOUS = "ambiguous"
    NO_CLASSES = "no_classes"


@dataclass(frozen=True, slots=True)
class Verified:
    """Geometric proof that a picture shows the print of an example."""

    points: int  # of the example, found in the picture where they belong
    coverage: float  # share of the example that they are spread over, 0 to 1
    # Where the example's top left, top right, bottom right and bottom left corners land, in pixels of the upright query picture.
    quad: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An example that decided, and how near it is to the query."""

    example_id: str
    similarity: float
    verified: Verified | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    class_name: str
    similarity: float  # -1 to 1
    probability: float  # 0 to 1, calibrated
    accepted: bool
    threshold: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What /classify says of one picture. `decision` is a class exactly when the outcome is a match."""

    outcome: Outcome
    decision: str | None
    reason: Reason | None
    candidates: tuple[Candidate, ...]  # most probable first
    version: int  # of the gallery that was asked
    model: str  # id of the model set


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} are {np.dtype(dtype)} {shape}, not {array.dtype} {array.shape}")
