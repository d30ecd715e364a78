"""Runs the networks of a model set with ONNX Runtime."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnxruntime

from app.adapters.model_set import LoadedModelSet, SynthesisParts
from app.domain.representatives import Synthesize, no_synthesis
from app.domain.values import Embeddings, FloatArray, PixelArray
from app.errors import CorruptModelSet, InvalidSettings

Device = Literal["cpu", "cuda", "auto"]

OUTPUTS = ["embedding", "features", "dense"]
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


def _open(
    network: bytes, *, threads: int = 1, device: Device = "cpu", name: str = "embedding network"
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
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


def _unit(embedding: FloatArray, *, name: str = "embedding network") -> FloatArray:
    """(n, d) of nearly unit length -> of unit length, so that no similarity comes out above 1."""
    lengths = np.linalg.norm(embedding.astype(np.float64), axis=1, keepdims=True)  # (n, 1)
    if not np.all(np.abs(lengths - 1) < UNIT_TOLERANCE):  # NaN fails this too
        raise CorruptModelSet(f"The {name} gave vectors of lengths {lengths.ravel().tolist()} instead of 1.")
    return np.asarray(embedding / lengths, dtype=np.float32)
