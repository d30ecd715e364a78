from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.adapters import model_set
from app.adapters.model_set import DetectorParts, check_files, read_model_set
from app.domain.model_set import DetectorSettings
from app.errors import CorruptModelSet
from tests.fakes import calibration_for_tests, point_settings_for_tests, region_calibration_for_tests
from tests.model_sets import Edit, some_deltas, write_model_set
from tests.tiny_network import DIM, SIDE_PX, tiny_decoder, tiny_detector, tiny_network


def test_a_model_set_is_read_whole(tmp_path: Path) -> None:
    loaded = read_model_set(write_model_set(tmp_path))
    assert (loaded.name, loaded.preprocessing) == ("tiny", "none")
    assert loaded.model_set.calibration == calibration_for_tests()
    assert loaded.model_set.view_shares == (0.8, 0.6)
    assert loaded.model_set.cohort.dtype == np.float64  # as thresholds are computed: no enrolment has to convert it
    assert loaded.model_set.cohort.tolist() == np.eye(DIM).tolist()
    assert (loaded.side_px, loaded.dim, loaded.embedding_network) == (SIDE_PX, DIM, tiny_network())
    points = point_settings_for_tests()
    assert (loaded.points.side_px, loaded.points.most, loaded.points.contrast) == (points.side_px, points.most, points.contrast)
    assert (loaded.points.words.dtype, loaded.points.words.tolist()) == (np.uint8, points.words.tolist())


@pytest.mark.parametrize(
    ("edit", "moves"),
    [
        (lambda manifest: manifest["training"].update(commit="1" * 40), set()),
        (lambda manifest: manifest.update(name="other"), {"id"}),
        (lambda manifest: manifest["calibration"].update(slope=21.0), {"id", "calibration"}),
        (lambda manifest: manifest["embedding"].update(view_shares=[0.7]), {"id", "networks"}),
        (lambda manifest: manifest["points"].update(side_px=128), {"id", "points"}),
        (lambda manifest: manifest["points"].update(most=299), {"id", "points"}),
        (lambda manifest: manifest["points"].update(contrast=0.03), {"id", "points"}),
    ],
)
def test_ids_change_with_what_they_name_and_with_nothing_else(tmp_path: Path, edit: Edit, moves: set[str]) -> None:
    plain = read_model_set(write_model_set(tmp_path)).model_set
    edited = read_model_set(write_model_set(tmp_path, edit)).model_set
    same = {
        "id": plain.id == edited.id,
        "networks": plain.provenance.networks == edited.provenance.networks,
        "calibration": plain.provenance.calibration == edited.provenance.calibration,
        "points": plain.provenance.points == edited.provenance.points,
    }
    assert {name for name, is_same in same.items() if not is_same} == moves


def test_thresholds_depend_on_the_cohort(tmp_path: Path) -> None:
    plain = read_model_set(write_model_set(tmp_path)).model_set
    other = read_model_set(write_model_set(tmp_path, cohort=np.eye(DIM, dtype=np.float32)[::-1])).model_set
    assert other.provenance.calibration != plain.provenance.calibration
    assert other.provenance.networks == plain.provenance.networks
    assert other.id != plain.id


def test_points_depend_on_the_code_book_and_not_on_its_name(tmp_path: Path) -> None:
    plain = read_model_set(write_model_set(tmp_path)).model_set
    other = read_model_set(write_model_set(tmp_path, words=point_settings_for_tests().words[::-1])).model_set
    assert other.provenance == replace(plain.provenance, points=other.provenance.points)
    assert other.provenance.points != plain.provenance.points
    assert other.id != plain.id

    write_model_set(tmp_path, lambda manifest: manifest["points"]["words"].update(file="renamed.npy"))
    (tmp_path / "words.npy").rename(tmp_path / "renamed.npy")
    assert read_model_set(tmp_path).model_set.provenance == plain.provenance


def test_layout_of_the_manifest_does_not_change_the_id(tmp_path: Path) -> None:
    plain = read_model_set(write_model_set(tmp_path)).model_set
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items())), indent=4))
    assert read_model_set(tmp_path).model_set.id == plain.id


@pytest.mark.parametrize("file", ["embedding.onnx", "cohort.npy", "words.npy"])
def test_a_file_with_one_other_bit_is_refused(tmp_path: Path, file: str) -> None:
    path = write_model_set(tmp_path) / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptModelSet, match=file):
        read_model_set(tmp_path)


@pytest.mark.parametrize("file", ["embedding.onnx", "cohort.npy", "words.npy", "manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    (write_model_set(tmp_path) / file).unlink()
    with pytest.raises(CorruptModelSet, match=file):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda manifest: manifest.update(format=2), "format"),
        (lambda manifest: manifest.pop("cohort"), "cohort"),
        (lambda manifest: manifest.update(licence="none"), "licence"),
        (lambda manifest: manifest["embedding"].update(file="../embedding.onnx"), "embedding.file"),
        (lambda manifest: manifest["embedding"].update(file=".hidden"), "embedding.file"),
        (lambda manifest: manifest["embedding"].update(sha256="ABC"), "embedding.sha256"),
        (lambda manifest: manifest["embedding"].update(side_px="32"), "embedding.side_px"),
        (lambda manifest: manifest["embedding"].update(view_shares=[1.5]), "embedding.view_shares"),
        (lambda manifest: manifest.pop("points"), "points"),
        (lambda manifest: manifest["points"].update(most=0), "points.most"),
        (lambda manifest: manifest["points"].update(most=357), "points.most"),  # 48 KiB of 138 bytes each
        (lambda manifest: manifest["points"].update(side_px=0), "points.side_px"),
        (lambda manifest: manifest["points"].update(contrast="0.02"), "points.contrast"),
        (lambda manifest: manifest["points"].update(contrast=1.0), "points.contrast"),
        (lambda manifest: manifest["points"].update(edge=10), "points.edge"),
        (lambda manifest: manifest["points"].pop("words"), "points.words"),
        (lambda manifest: manifest["calibration"].update(slope=None), "calibration.slope"),
        (lambda manifest: manifest["embedding"].update(dim=DIM + 1), "cohort.npy"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused_by_name(tmp_path: Path, edit: Edit, complaint: str) -> None:
    write_model_set(tmp_path, edit)
    with pytest.raises(CorruptModelSet, match=complaint):
        read_model_set(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "format": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (write_model_set(tmp_path) / "manifest.json").write_text(text)
    with pytest.raises(CorruptModelSet, match=r"manifest\.json"):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    "cohort",
    [
        np.eye(DIM),  # float64
        np.eye(DIM, dtype=np.float32)[:1],  # one vector has no deviation
        np.eye(DIM, dtype=np.float32) * 2,
        np.full((4, DIM), np.nan, np.float32),
        np.ones(DIM, np.float32),
    ],
)
def test_a_cohort_that_cannot_be_one_is_refused(tmp_path: Path, cohort: np.ndarray) -> None:
    write_model_set(tmp_path, cohort=cohort)
    with pytest.raises(CorruptModelSet, match=r"cohort\.npy"):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        np.zeros((0, 128), np.uint8),
        np.zeros((2**16, 128), np.uint8),  # more than a point can name
        np.zeros((4, 64), np.uint8),
        np.zeros((4, 128), np.float32),
        np.zeros(128, np.uint8),
    ],
)
def test_a_code_book_that_cannot_be_one_is_refused(tmp_path: Path, words: np.ndarray) -> None:
    write_model_set(tmp_path, words=words)
    with pytest.raises(CorruptModelSet, match=r"words\.npy"):
        read_model_set(tmp_path)


SYNTHESIS_FILES = ["delta-encoder.onnx", "delta-decoder.onnx", "deltas.npy"]


def test_what_synthesis_needs_is_read(tmp_path: Path) -> None:
    loaded = read_model_set(write_model_set(tmp_path, deltas=some_deltas()))
    assert loaded.synthesis is not None
    assert (loaded.synthesis.decoder, loaded.synthesis.made) == (tiny_decoder(), 8)
    assert loaded.synthesis.deltas.tolist() == some_deltas().tolist()
    assert loaded.model_set.real_share == 0.5


def test_synthesis_that_is_switched_off_makes_another_model_set_with_the_same_networks(tmp_path: Path) -> None:
    write_model_set(tmp_path, deltas=some_deltas())
    on, off = read_model_set(tmp_path), read_model_set(tmp_path, synthesis=False)
    assert (off.synthesis, off.model_set.real_share) == (None, 1.0)
    assert on.model_set.id != off.model_set.id
    assert on.model_set.provenance.calibration != off.model_set.provenance.calibration  # so that classes are fitted again
    assert on.model_set.provenance.networks == off.model_set.provenance.networks


@pytest.mark.parametrize("file", SYNTHESIS_FILES)
def test_a_file_of_synthesis_with_one_other_bit_is_refused(tmp_path: Path, file: str) -> None:
    path = write_model_set(tmp_path, deltas=some_deltas()) / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptModelSet, match=file):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    "deltas",
    [
        some_deltas().astype(np.float64),
        some_deltas()[:0],
        some_deltas()[0],
        np.full((4, 3), np.nan, np.float32),
    ],
)
def test_a_bank_of_deltas_that_cannot_be_one_is_refused(tmp_path: Path, deltas: np.ndarray) -> None:
    write_model_set(tmp_path, deltas=deltas)
    with pytest.raises(CorruptModelSet, match=r"deltas\.npy"):
        read_model_set(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no array", b"PK\x03\x04 an archive of arrays"])
@pytest.mark.parametrize("file", ["cohort.npy", "words.npy"])
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path: Path, file: str, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    write_model_set(tmp_path, lambda manifest: entry_of(manifest, file).update(sha256=digest))
    (tmp_path / file).write_bytes(data)
    with pytest.raises(CorruptModelSet, match=f"{file} is not an array file"):
        read_model_set(tmp_path)


def entry_of(manifest: dict[str, Any], file: str) -> dict[str, Any]:
    entry: dict[str, Any] = manifest["cohort"] if file == "cohort.npy" else manifest["points"]["words"]
    return entry


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.mkdir, (self._folder,)


@pytest.mark.parametrize("file", ["cohort", "words"])
def test_a_pickle_in_an_array_file_is_never_run(tmp_path: Path, file: str) -> None:
    write_model_set(tmp_path / "models", **{file: np.array([Trap(tmp_path / "sprung")])})
    with pytest.raises(CorruptModelSet, match=rf"{file}\.npy"):
        read_model_set(tmp_path / "models")
    assert not (tmp_path / "sprung").exists()


def with_detector(folder: Path, edit: Edit = lambda manifest: None) -> Path:
    return write_model_set(folder, edit, detector=tiny_detector())


def test_a_detector_is_read_with_its_calibration(tmp_path: Path) -> None:
    loaded = read_model_set(with_detector(tmp_path))
    assert loaded.detector is not None
    assert loaded.detector == DetectorParts(tiny_detector(), (64, 96), 4, 0.5)
    assert loaded.model_set.detector == DetectorSettings(0.5, region_calibration_for_tests())
    assert "detector" in {file.use for file in check_files(tmp_path)}


def test_a_model_set_without_a_detector_is_the_one_it_was_before_there_were_any(tmp_path: Path) -> None:
    write_model_set(tmp_path)
    without = read_model_set(tmp_path)
    # As it was hashed then: all of the manifest but its training, and nothing made of an example.
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    entries = {key: value for key, value in manifest.items() if key != "training"} | {"synthesis": None}
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    assert without.model_set.id == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert (without.detector, without.model_set.detector, without.model_set.provenance.detector) == (None, None, "")


def test_a_detector_leaves_everything_else_as_it_was(tmp_path: Path) -> None:
    plain, detecting = read_model_set(write_model_set(tmp_path)).model_set, read_model_set(with_detector(tmp_path)).model_set
    assert detecting.provenance == replace(plain.provenance, detector=detecting.provenance.detector)
    assert detecting.provenance.detector != ""
    assert detecting.id != plain.id


def test_a_detector_that_is_switched_off_makes_the_model_set_that_has_none(tmp_path: Path) -> None:
    (with_detector(tmp_path / "detecting") / "detector.onnx").unlink()  # nothing of it is read
    switched_off = read_model_set(tmp_path / "detecting", detector=False)
    write_model_set(tmp_path / "plain")
    without, untouched = read_model_set(tmp_path / "plain"), read_model_set(tmp_path / "plain", detector=False)
    assert (switched_off.detector, switched_off.model_set.detector) == (None, None)
    assert switched_off.model_set.provenance == without.model_set.provenance
    assert switched_off.model_set.id == without.model_set.id == untouched.model_set.id


@pytest.mark.parametrize(
    ("edit", "moves"),
    [
        (lambda manifest: manifest["detector"].update(width=0.4), False),
        (lambda manifest: manifest["detector"]["calibration"].update(bias=1.0), False),
        (lambda manifest: manifest["detector"].update(sides_px=[64]), True),
    ],
)
def test_regions_depend_on_the_network_and_on_nothing_that_is_made_of_them(tmp_path: Path, edit: Edit, moves: bool) -> None:
    plain = read_model_set(with_detector(tmp_path)).model_set
    edited = read_model_set(with_detector(tmp_path, edit)).model_set
    assert (edited.provenance.detector != plain.provenance.detector) == moves
    assert edited.provenance == replace(plain.provenance, detector=edited.provenance.detector)
    assert edited.id != plain.id


def test_regions_depend_on_the_sizes_at_which_an_example_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_model_set(with_detector(tmp_path)).model_set.provenance
    monkeypatch.setattr(model_set, "SHARES", (0.5,))
    assert read_model_set(tmp_path).model_set.provenance.detector != before.detector


def test_a_file_of_a_detector_with_one_other_bit_is_refused(tmp_path: Path) -> None:
    path = with_detector(tmp_path) / "detector.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CorruptModelSet, match=r"detector\.onnx is not the file of its manifest"):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda detector: detector.pop("file"), r"detector\.file: Field required"),
        (lambda detector: detector.update(sides_px=[]), r"detector\.sides_px"),
        (lambda detector: detector["sides_px"].reverse(), r"detector\.sides_px: .*sides rise"),
        (lambda detector: detector.update(sides_px=[64, 64]), r"detector\.sides_px: .*sides rise"),
        (lambda detector: detector.update(sides_px=[4]), r"detector\.sides_px\.0"),
        (lambda detector: detector.update(file="../detector.onnx"), r"detector\.file"),
        (lambda detector: detector.update(sha256="ABC"), r"detector\.sha256"),
        (lambda detector: detector.update(dim=0), r"detector\.dim"),
        (lambda detector: detector.update(width=0.0), r"detector\.width"),
        (lambda detector: detector.update(width="0.5"), r"detector\.width"),
        (lambda detector: detector.update(threshold=1), r"detector\.threshold"),
        (lambda detector: detector.pop("calibration"), r"detector\.calibration"),
        (lambda detector: detector["calibration"].pop("bias"), r"detector\.calibration lacks \['bias'\]"),
        (lambda detector: detector["calibration"].update(look=None), r"detector\.calibration\.look"),
        (lambda detector: detector["calibration"].update(look=-1.0), r"detector\.calibration: .*look"),
    ],
)
def test_a_detector_that_is_not_understood_is_refused_by_name(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    with_detector(tmp_path, lambda manifest: edit(manifest["detector"]))
    with pytest.raises(CorruptModelSet, match=complaint):
        read_model_set(tmp_path)
