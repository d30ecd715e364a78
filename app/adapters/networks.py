"""Runs the networks of a model set with ONNX Runtime."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnxruntime

from app.adapters.images import squared
from app.adapters.model_set import DetectorParts, LoadedModelSet, SynthesisParts
from app.domain.posterior import Fit, Regions
from app.domain.representatives import Synthesize, no_synthesis
from app.domain.values import Embeddings, FloatArray, PixelArray
from app.errors import CorruptModelSet, InvalidSettings

Device = Literal["cpu", "cuda", "auto"]

OUTPUTS = ["embedding", "features", "dense"]
REGION_OUTPUTS = ["objectness", "boxes", "embeddings"]
OPEN_SIDE = "side"  # what a detector's file calls the side of its input where it leaves it open
WIDTH_TOLERANCE = 1e-4  # a network says the width of its Gaussians to six digits
UNIT_TOLERANCE = 1e-3  # of a length; half precision inside a network leaves about as much
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
ERRORS_ONLY = 3  # severity of ONNX Runtime's own log on stderr


class OnnxEmbedder:
    """An embedding network: input uint8 (n, side, side, 3) RGB with n free, outputs as in `Embeddings`, preprocessing inside."""

    def __init__(self, network: bytes, *, threads: int = 1, device: Device = "cpu") -> None:
        """`threads` serve one call; several callers share one embedder. CorruptModelSet for any other kind of network."""
        self._session = _open(network, threads=threads, device=device)
        self._input, self.side_px, self.dim = _shape_of(self._session)

    @property
    def device(self) -> Device:
        """What it runs on, `cpu` or `cuda`."""
        return "cuda" if CUDA in self._session.get_providers() else "cpu"

    def __call__(self, pictures: PixelArray) -> Embeddings:
        # One by one: kernels may add up in another order in another batch, and a picture must have one embedding. On one CPU
        # thread a batch is no faster, and with one shape the memory arena stops growing.
        outputs = [self._session.run(OUTPUTS, {self._input: picture[np.newaxis]}) for picture in pictures]
        embedding, features, dense = (np.concatenate(output) for output in zip(*outputs, strict=True))
        return Embeddings(embedding=_unit(embedding), features=features, dense=dense)


def open_embedder(loaded: LoadedModelSet, *, threads: int, device: Device) -> OnnxEmbedder:
    """The embedder of a model set. CorruptModelSet when the network is not of the sizes that the manifest says."""
    embedder = OnnxEmbedder(loaded.embedding_network, threads=threads, device=device)
    if (embedder.side_px, embedder.dim) != (loaded.side_px, loaded.dim):
        raise CorruptModelSet(
            f"The embedding network takes {embedder.side_px} pixels a side and gives {embedder.dim} numbers; "
            f"its manifest says {loaded.side_px} and {loaded.dim}."
        )
    return embedder


class DeltaDecoder:
    """A delta-encoder's decoder, and a bank of deltas to decode: shots (n, d), codes (m, code) -> made (n, m, d)."""

    def __init__(self, parts: SynthesisParts) -> None:
        """CorruptModelSet for any other kind of network, or one for other codes."""
        self._session = _open(parts.decoder, name="delta decoder")
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        outputs = [entry.name for entry in self._session.get_outputs()]
        match inputs, outputs:
            case {"shots": [_, int(dim)], "codes": [_, int(code)], **rest}, ["made"] if not rest:
                self.dim = dim
            case _:
                raise CorruptModelSet(f"The delta decoder takes {inputs} and gives {outputs}, not shots, codes and made.")
        if code != parts.deltas.shape[1]:
            raise CorruptModelSet(
                f"The delta decoder takes codes of {code} numbers; those of its bank have {parts.deltas.shape[1]}."
            )
        self._deltas, self._made = parts.deltas, parts.made

    def __call__(self, support: FloatArray, seed: int) -> FloatArray:
        """Unit vectors (k, d) -> unit vectors (k, m, d), all with the same deltas."""
        # Of many examples fewer each: an enrolment fits its class whole.
        each = min(max(1, self._made // len(support)), len(self._deltas))
        drawn = np.random.default_rng(seed).choice(len(self._deltas), each, replace=False)
        (made,) = self._session.run(["made"], {"shots": support, "codes": self._deltas[np.sort(drawn)]})
        return _unit(made.reshape(-1, self.dim), name="delta decoder").reshape(made.shape)


def open_synthesizer(loaded: LoadedModelSet) -> Synthesize:
    """The synthesizer of a model set. CorruptModelSet when it is for embeddings of another size."""
    if loaded.synthesis is None:
        return no_synthesis
    decoder = DeltaDecoder(loaded.synthesis)
    if decoder.dim != loaded.dim:
        raise CorruptModelSet(f"The delta decoder takes embeddings of {decoder.dim} numbers; those of the set have {loaded.dim}.")
    return decoder


class RegionNetwork:
    """A detector for squares of one side: input uint8 (1, side, side, 3) RGB, outputs as in `Regions`, (1, …) each.

    A file whose input leaves `side` open serves several sides. Each has a session of fixed shapes, for which the runtime plans
    its memory once.
    """

    def __init__(self, network: bytes, side_px: int, *, threads: int = 1, device: Device = "cpu") -> None:
        """CorruptModelSet for any other kind of network. One that is for another side alone says so by its `side_px`."""
        self._session = _open(network, threads=threads, device=device, name="detector", open_side_px=side_px)
        self._input, self.side_px, self.dim = _shape_of_detector(self._session)
        width = self._session.get_modelmeta().custom_metadata_map.get("width")
        self.width = None if width is None else float(width)  # of the Gaussians it was trained with; None: it does not say

    def __call__(self, pixels: PixelArray) -> Regions:
        """A picture (h, w, 3) of any shape -> regions in its pixels."""
        height, width = pixels.shape[:2]
        fit = Fit(width, height, self.side_px)
        objectness, boxes, embeddings = self.outputs_of(squared(pixels, fit))
        # In single precision and in place: there are thousands, and double takes ten times as long. Half is what is kept of them.
        lengths = np.sqrt(np.vecdot(embeddings, embeddings))  # (m,)
        _check_lengths(lengths, name="detector")
        embeddings /= lengths[:, np.newaxis]
        return Regions(fit.to_picture(boxes), objectness, embeddings)

    def outputs_of(self, square: PixelArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the network says of a square (side, side, 3), as it says it: objectness (m,), boxes (m, 4), embeddings (m, e)."""
        objectness, boxes, embeddings = self._session.run(REGION_OUTPUTS, {self._input: square[np.newaxis]})
        return objectness[0], boxes[0], embeddings[0]


class OnnxDetector:
    """The detector of a model set, at each of its sides."""

    def __init__(self, parts: DetectorParts, *, threads: int = 1, device: Device = "cpu") -> None:
        """CorruptModelSet when a network is not as the manifest says."""
        self._networks = {
            side_px: RegionNetwork(parts.network, side_px, threads=threads, device=device) for side_px in parts.sides_px
        }
        self.sides_px = parts.sides_px
        for side_px, network in self._networks.items():
            _check_detector(network, side_px, parts)

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        return self._networks[side_px](pixels)


def open_detector(loaded: LoadedModelSet, *, threads: int, device: Device) -> OnnxDetector | None:
    """The detector of a model set, if it has one. CorruptModelSet when it is not as its manifest says."""
    return None if loaded.detector is None else OnnxDetector(loaded.detector, threads=threads, device=device)


def _check_detector(network: RegionNetwork, side_px: int, parts: DetectorParts) -> None:
    if (network.side_px, network.dim) != (side_px, parts.dim):
        raise CorruptModelSet(
            f"The detector takes {network.side_px} pixels a side and gives embeddings of {network.dim} numbers; "
            f"its manifest says {side_px} and {parts.dim}."
        )
    if network.width is not None and abs(network.width - parts.width) > WIDTH_TOLERANCE:
        raise CorruptModelSet(
            f"The detector was trained with Gaussians of width {network.width}; its manifest says {parts.width}."
        )


def _open(
    network: bytes,
    *,
    threads: int = 1,
    device: Device = "cpu",
    name: str = "embedding network",
    open_side_px: int | None = None,
) -> onnxruntime.InferenceSession:
    """`open_side_px` is what a side becomes that the network leaves open."""
    options = onnxruntime.SessionOptions()
    if open_side_px is not None:
        options.add_free_dimension_override_by_name(OPEN_SIDE, open_side_px)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = ERRORS_ONLY
    # Threads that spin while they wait take the cores from other callers: 9 to 14 % fewer pictures a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [CPU] if device == "cpu" or CUDA not in onnxruntime.get_available_providers() else [CUDA, CPU]
    try:
        session = onnxruntime.InferenceSession(network, options, providers=providers)
    except Exception as error:  # its exceptions have no common base but this
        raise CorruptModelSet(f"ONNX Runtime cannot open the {name}: {error}") from error
    # A provider that is listed may still fail to load its libraries, and then the session quietly runs on the CPU.
    if device == "cuda" and CUDA not in session.get_providers():
        raise InvalidSettings(["FIRSTSIGHT_DEVICE is cuda, but ONNX Runtime finds no usable CUDA device; use auto or cpu."])
    return session


def _shape_of(session: onnxruntime.InferenceSession) -> tuple[str, int, int]:
    """The name of the input, the side of the pictures it takes, and the size of an embedding."""
    inputs = [(entry.name, entry.type, entry.shape) for entry in session.get_inputs()]
    outputs = {entry.name: entry.shape for entry in session.get_outputs()}
    match inputs, outputs:
        case [(str(name), "tensor(uint8)", [_, int(height), int(width), 3])], {
            "embedding": [_, int(dim)],
            "features": _,
            "dense": _,
        }:
            if height == width:
                return name, height, dim
    raise CorruptModelSet(
        f"The embedding network takes {inputs} and gives {outputs}, not uint8 (n, side, side, 3) and {', '.join(OUTPUTS)}."
    )


def _shape_of_detector(session: onnxruntime.InferenceSession) -> tuple[str, int, int]:
    """The same of a detector."""
    inputs = [(entry.name, entry.type, entry.shape) for entry in session.get_inputs()]
    outputs = {entry.name: entry.shape for entry in session.get_outputs()}
    match inputs, outputs:
        case [(str(name), "tensor(uint8)", [1, int(height), int(width), 3])], {
            "objectness": [1, int(regions)],
            "boxes": [1, int(boxes), 4],
            "embeddings": [1, int(embeddings), int(dim)],
        }:
            if height == width and regions == boxes == embeddings and regions > 0:
                return name, height, dim
    raise CorruptModelSet(
        f"The detector takes {inputs} and gives {outputs}, not uint8 (1, side, side, 3) and "
        "objectness (1, m), boxes (1, m, 4), embeddings (1, m, e)."
    )


def _unit(embedding: FloatArray, *, name: str = "embedding network") -> FloatArray:
    """(n, d) of nearly unit length -> of unit length, so that no similarity comes out above 1."""
    lengths = np.linalg.norm(embedding.astype(np.float64), axis=1, keepdims=True)  # (n, 1)
    _check_lengths(lengths, name=name)
    return np.asarray(embedding / lengths, dtype=np.float32)


def _check_lengths(lengths: FloatArray, *, name: str) -> None:
    if not np.all(np.abs(lengths - 1) < UNIT_TOLERANCE):  # NaN fails this too
        raise CorruptModelSet(f"The {name} gave vectors of lengths {lengths.ravel().tolist()} instead of 1.")
