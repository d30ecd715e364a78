"""Reads a model set from its folder. A file is used only if its SHA-256 is the one in `manifest.json`, and that is read strictly.

The bytes that were hashed are the bytes that are used: a file is never opened twice.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.domain.calibration import Calibration, RegionCalibration, calibration_from_json, region_calibration_from_json
from app.domain.model_set import DetectorSettings, ModelSet, PointSettings
from app.domain.regions import SHARES
from app.domain.values import DESCRIPTOR_SIZE, MAX_EXAMPLE_POINT_BYTES, POINT_BYTES, Provenance
from app.errors import CorruptModelSet

MOST_WORDS = 2**16 - 1  # a point names its word in 16 bits
UNIT_TOLERANCE = 1e-3  # of a length; a cohort may have been stored in half precision on its way


@dataclass(frozen=True, slots=True)
class SynthesisParts:
    decoder: bytes  # ONNX
    deltas: NDArray[np.float32]  # (n, code): how pictures of other classes differ, as the encoder has it
    made: int  # pictures of a class in all, but one of each example at least


@dataclass(frozen=True, slots=True)
class DetectorParts:
    network: bytes  # ONNX
    sides_px: tuple[int, ...]  # of the squares that it is given, rising
    dim: int  # of an embedding of a region
    width: float  # of the Gaussians around representatives


@dataclass(frozen=True, slots=True)
class LoadedModelSet:
    name: str
    model_set: ModelSet
    embedding_network: bytes  # ONNX
    side_px: int  # of the squares it takes
    dim: int  # of an embedding
    preprocessing: str  # what the network does to pixels, in words
    points: PointSettings
    synthesis: SynthesisParts | None  # None: nothing is made of an example
    detector: DetectorParts | None  # None: scenes are searched for print alone


FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # plain: a manifest cannot reach outside its folder
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _File(_Strict):
    file: FileName
    sha256: Sha256


class _Embedding(_File):
    side_px: Annotated[int, Field(ge=8)]
    dim: Annotated[int, Field(ge=1)]
    preprocessing: str
    view_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...]


class _Points(_Strict):
    side_px: Annotated[int, Field(ge=8)]
    most: Annotated[int, Field(ge=1, le=MAX_EXAMPLE_POINT_BYTES // POINT_BYTES)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    words: _File


class _Synthesis(_Strict):
    encoder: _File  # not used to serve: it makes a bank of other pictures
    decoder: _File
    deltas: _File
    real_share: Annotated[float, Field(ge=0, le=1)]
    made: Annotated[int, Field(ge=1, le=1024)]


class _Detector(_File):
    sides_px: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)]
    dim: Annotated[int, Field(ge=1)]
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    calibration: dict[str, Any]  # the domain reads it

    @field_validator("sides_px")
    @classmethod
    def _rising(cls, sides_px: tuple[int, ...]) -> tuple[int, ...]:
        if list(sides_px) != sorted(set(sides_px)):
            raise ValueError(f"sides rise, unlike {sides_px}")
        return sides_px


class _Training(_Strict):
    command: str
    commit: str
    packs: tuple[str, ...]


class _Manifest(_Strict):
    format: Literal[1]
    name: str
    embedding: _Embedding
    points: _Points
    cohort: _File
    synthesis: _Synthesis | None = None
    detector: _Detector | None = None
    calibration: dict[str, Any]  # the domain reads it
    training: _Training  # where it came from; no part of what it is


def read_model_set(folder: Path, *, synthesis: bool = True, detector: bool = True) -> LoadedModelSet:
    """CorruptModelSet, naming the file, for anything missing, different from the manifest or not understood.

    Without `synthesis` or `detector` it is the set that it would be if it had none: with another id, as its scores mean something
    else. The files of what is left out are not read.
    """
    manifest = _read_manifest(folder / "manifest.json")
    left_out = {"synthesis": synthesis, "detector": detector}
    manifest = manifest.model_copy(update={section: None for section, is_used in left_out.items() if not is_used})
    network = _read_checked(folder, manifest.embedding)
    return LoadedModelSet(
        name=manifest.name,
        model_set=ModelSet(
            id=_id_of(manifest),
            provenance=_provenance_of(manifest),
            calibration=_calibration_of(manifest),
            view_shares=manifest.embedding.view_shares,
            cohort=_read_cohort(folder, manifest),
            real_share=1.0 if manifest.synthesis is None else manifest.synthesis.real_share,
            detector=None if manifest.detector is None else _detector_settings(manifest.detector),
        ),
        embedding_network=network,
        side_px=manifest.embedding.side_px,
        dim=manifest.embedding.dim,
        preprocessing=manifest.embedding.preprocessing,
        points=PointSettings(
            side_px=manifest.points.side_px,
            most=manifest.points.most,
            contrast=manifest.points.contrast,
            words=_read_words(folder, manifest),
        ),
        synthesis=None if manifest.synthesis is None else _read_synthesis(folder, manifest.synthesis),
        detector=None if manifest.detector is None else _read_detector(folder, manifest.detector),
    )


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file that a manifest names, and whether it is that file."""

    use: str
    file: str
    size_bytes: int | None  # None: it cannot be read
    is_right: bool


def check_files(folder: Path) -> list[FileCheck]:
    """All files of a model set. CorruptModelSet when there is no manifest that says which."""
    manifest = _read_manifest(folder / "manifest.json")
    files = {"embedding": manifest.embedding, "points": manifest.points.words, "cohort": manifest.cohort}
    if manifest.synthesis is not None:
        parts = manifest.synthesis
        files |= {"delta-encoder": parts.encoder, "delta-decoder": parts.decoder, "deltas": parts.deltas}
    if manifest.detector is not None:
        files["detector"] = manifest.detector
    return [_check(folder, use, wanted) for use, wanted in files.items()]


def _check(folder: Path, use: str, wanted: _File) -> FileCheck:
    try:
        data = _read(folder / wanted.file)
    except CorruptModelSet:
        return FileCheck(use, wanted.file, None, is_right=False)
    return FileCheck(use, wanted.file, len(data), is_right=hashlib.sha256(data).hexdigest() == wanted.sha256)


def _read_manifest(path: Path) -> _Manifest:
    try:
        return _Manifest.model_validate_json(_read(path), strict=True)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise CorruptModelSet(f"{path} cannot be used: {faults}") from error


def _read_checked(folder: Path, wanted: _File) -> bytes:
    path = folder / wanted.file
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted.sha256:
        raise CorruptModelSet(f"{path} is not the file of its manifest: SHA-256 {found}, not {wanted.sha256}.")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptModelSet(f"{path} of the model set cannot be read: {error.strerror}.") from error


def _id_of(manifest: _Manifest) -> str:
    # Without a detector it is what it was before there were any.
    left_out = {"training"} if manifest.detector else {"training", "detector"}
    return _hash_of(manifest.model_dump(mode="json", exclude=left_out))[:16]


def _provenance_of(manifest: _Manifest) -> Provenance:
    """All that an embedding depends on, all that a threshold depends on beside embeddings, and all that points and regions do."""
    embedding = manifest.embedding.model_dump(mode="json", include={"sha256", "side_px", "view_shares"})
    points = manifest.points.model_dump(mode="json", exclude={"words": {"file"}})
    return Provenance(
        networks=_hash_of(embedding),
        calibration=_hash_of(
            {
                "calibration": manifest.calibration,
                "cohort": manifest.cohort.sha256,
                "synthesis": manifest.synthesis and manifest.synthesis.model_dump(mode="json", exclude={"encoder"}),
            }
        ),
        points=_hash_of(points),
        detector="" if manifest.detector is None else _hash_of(_made_by(manifest.detector)),
    )


def _made_by(detector: _Detector) -> dict[str, Any]:
    return {"sha256": detector.sha256, "sides_px": detector.sides_px, "shares": SHARES}


def _calibration_of(manifest: _Manifest) -> Calibration:
    try:
        return calibration_from_json(manifest.calibration)
    except ValueError as error:
        raise CorruptModelSet(f"manifest.json cannot be used: {error}") from error


def _detector_settings(detector: _Detector) -> DetectorSettings:
    return DetectorSettings(detector.width, _region_calibration_of(detector))


def _region_calibration_of(detector: _Detector) -> RegionCalibration:
    try:
        return region_calibration_from_json(detector.calibration)
    except ValueError as error:
        raise CorruptModelSet(f"manifest.json cannot be used: {error}") from error


def _read_cohort(folder: Path, manifest: _Manifest) -> NDArray[np.float64]:
    cohort = _read_array(folder, manifest.cohort)
    dim = manifest.embedding.dim
    if cohort.dtype != np.float32 or cohort.ndim != 2 or len(cohort) < 2 or cohort.shape[1] != dim:
        raise CorruptModelSet(f"{manifest.cohort.file} holds {cohort.dtype} {cohort.shape}, not float32 (2 or more, {dim}).")
    if not np.all(np.abs(np.linalg.norm(cohort, axis=1) - 1) < UNIT_TOLERANCE):
        raise CorruptModelSet(f"{manifest.cohort.file} holds vectors that are not of unit length.")
    return np.asarray(cohort, dtype=np.float64)  # what thresholds are computed in: once here, not at every enrolment


def _read_words(folder: Path, manifest: _Manifest) -> NDArray[np.uint8]:
    file = manifest.points.words
    words = _read_array(folder, file)
    if words.dtype != np.uint8 or words.ndim != 2 or not 1 <= len(words) <= MOST_WORDS or words.shape[1] != DESCRIPTOR_SIZE:
        raise CorruptModelSet(f"{file.file} holds {words.dtype} {words.shape}, not uint8 (1 to {MOST_WORDS}, {DESCRIPTOR_SIZE}).")
    return words


def _read_synthesis(folder: Path, wanted: _Synthesis) -> SynthesisParts:
    _read_checked(folder, wanted.encoder)
    deltas = _read_array(folder, wanted.deltas)
    if deltas.dtype != np.float32 or deltas.ndim != 2 or 0 in deltas.shape or not np.isfinite(deltas).all():
        raise CorruptModelSet(f"{wanted.deltas.file} holds {deltas.dtype} {deltas.shape}, not finite float32 (1 or more, code).")
    return SynthesisParts(_read_checked(folder, wanted.decoder), deltas, wanted.made)


def _read_detector(folder: Path, wanted: _Detector) -> DetectorParts:
    return DetectorParts(_read_checked(folder, wanted), wanted.sides_px, wanted.dim, wanted.width)


def _read_array(folder: Path, wanted: _File) -> NDArray[Any]:
    data = _read_checked(folder, wanted)
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise CorruptModelSet(f"{folder / wanted.file} is not an array file: {error}") from error


def _hash_of(entries: dict[str, Any]) -> str:
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
