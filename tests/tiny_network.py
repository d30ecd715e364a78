"""An embedding network made by hand: one strided convolution, its map averaged and normalised; made anew in each test."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
CELL_PX = 8
DIM = 6
CODE = 3


def tiny_network(*, side_px: int = SIDE_PX, input_type: int = TensorProto.UINT8, scale: float = 1.0) -> bytes:
    """ONNX bytes: uint8 (n, side, side, 3) -> embedding (n, 6), features (n, 6), dense (n, side / 8, side / 8, 6).

    `scale` is that of the embedding: anything but 1 makes a network that breaks its contract.
    """
    kernel = np.random.default_rng(0).normal(0, 0.001, (DIM, 3, CELL_PX, CELL_PX)).astype(np.float32)
    bias = np.ones(DIM, np.float32)  # a black picture has an embedding too
    cells = side_px // CELL_PX
    graph = helper.make_graph(
        nodes=[
            helper.make_node("Cast", ["picture"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["channels_first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels_first", "kernel", "bias"], ["map"], strides=[CELL_PX, CELL_PX]),
            helper.make_node("Transpose", ["map"], ["dense"], perm=[0, 2, 3, 1]),
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("LpNormalization", ["features"], ["unit"], axis=1, p=2),
            helper.make_node("Mul", ["unit", "scale"], ["embedding"]),
        ],
        name="tiny",
        inputs=[helper.make_tensor_value_info("picture", input_type, ["n", side_px, side_px, 3])],
        outputs=[
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIM]),
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", cells, cells, DIM]),
        ],
        initializer=[
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.float32(scale).reshape(1), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_detector(
    side_px: int | str = "side", *, width: float | None = 0.5, scale: float = 1.0, with_boxes: bool = True
) -> bytes:
    """ONNX bytes: uint8 (1, side, side, 3) -> three regions: what is not grey in all of the picture, and in each half of it.

    Without a number the side is left open, under a name.
    Their embeddings (4,) are the mean colours there against mid-grey, with a 1. `scale` is that of the embeddings, `width` what
    the file says of its Gaussians: anything but 1, or another than the manifest's, makes a detector that breaks its contract.
    """
    nodes = [
        helper.make_node("Shape", ["picture"], ["sizes"], start=1, end=2),
        helper.make_node("Cast", ["sizes"], ["side"], to=TensorProto.FLOAT),  # (1,)
        helper.make_node("Squeeze", ["sizes"], ["length"]),
        helper.make_node("Range", ["zero", "length", "step"], ["numbers"]),  # (s,)
        helper.make_node("Cast", ["numbers"], ["from"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["from", "one"], ["to"]),
        helper.make_node("Mul", ["side", "half"], ["middle"]),
        helper.make_node("Less", ["from", "middle"], ["is_left"]),
        helper.make_node("Cast", ["is_left"], ["left_half"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "left_half"], ["right_half"]),
        helper.make_node("Add", ["left_half", "right_half"], ["whole"]),
        *(helper.make_node("Unsqueeze", [part, "to_layers"], [f"{part}s"]) for part in ("whole", "left_half", "right_half")),
        helper.make_node("Concat", ["wholes", "left_halfs", "right_halfs"], ["halves"], axis=0),  # (3, 1, s)
        helper.make_node("Cast", ["picture"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "grey"], ["colours"]),  # (1, s, s, 3)
        helper.make_node("Abs", ["colours"], ["contrast"]),
        helper.make_node("ReduceMax", ["contrast"], ["highest"], axes=[3], keepdims=0),  # (1, s, s)
        helper.make_node("Greater", ["highest", "line"], ["is_thing"]),
        helper.make_node("Cast", ["is_thing"], ["thing"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["thing", "halves"], ["things"]),  # (3, s, s)
        helper.make_node("ReduceMax", ["things"], ["columns"], axes=[1], keepdims=0),  # (3, s)
        helper.make_node("ReduceMax", ["things"], ["rows"], axes=[2], keepdims=0),
        *_edges("columns", "left", "right"),
        *_edges("rows", "top", "bottom"),
        helper.make_node("Concat", ["left", "top", "right", "bottom"], ["corners"], axis=1),
        helper.make_node("Unsqueeze", ["corners", "first"], ["boxes"]),  # (1, 3, 4)
        helper.make_node("ReduceSum", ["things", "both"], ["area"], keepdims=0),  # (3,)
        helper.make_node("Add", ["area", "one"], ["more"]),
        helper.make_node("Div", ["area", "more"], ["shares"]),
        helper.make_node("Unsqueeze", ["shares", "first"], ["objectness"]),  # (1, 3)
        helper.make_node("Unsqueeze", ["things", "last"], ["masks"]),  # (3, s, s, 1)
        helper.make_node("Mul", ["masks", "colours"], ["masked"]),  # (3, s, s, 3)
        helper.make_node("ReduceSum", ["masked", "both"], ["sums"], keepdims=0),  # (3, 3)
        helper.make_node("Unsqueeze", ["more", "second"], ["divisor"]),
        helper.make_node("Div", ["sums", "divisor"], ["means"]),
        helper.make_node("Concat", ["means", "ones"], ["described"], axis=1),  # (3, 4)
        helper.make_node("LpNormalization", ["described"], ["unit"], axis=1, p=2),
        helper.make_node("Mul", ["unit", "scale"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "first"], ["embeddings"]),  # (1, 3, 4)
    ]
    constants = {
        "grey": np.float32(128).reshape(1),
        "line": np.float32(16).reshape(1),
        "one": np.float32(1).reshape(1),
        "ones": np.ones((3, 1), np.float32),
        "zero": np.array(0, np.int64),
        "step": np.array(1, np.int64),
        "none": np.float32(0).reshape(1),
        "half": np.float32(0.5).reshape(1),
        "to_layers": np.array([0, 1], np.int64),
        "scale": np.float32(scale).reshape(1),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "last": np.array([3], np.int64),
        "both": np.array([1, 2], np.int64),
    }
    outputs = {"objectness": [1, 3], "boxes": [1, 3, 4], "embeddings": [1, 3, 4]}
    graph = helper.make_graph(
        nodes=nodes,
        name="tiny detector",
        inputs=[helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, side_px, side_px, 3])],
        outputs=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
            if with_boxes or name != "boxes"
        ],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if width is not None:
        helper.set_model_props(model, {"width": f"{width:.6f}"})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _edges(covered: str, low: str, high: str) -> list[onnx.NodeProto]:
    """Of what is covered (3, side): where it begins and where it ends, (3, 1) each; side and 0 where nothing is."""
    return [
        helper.make_node("Greater", [covered, "half"], [f"{covered}_in"]),
        helper.make_node("Where", [f"{covered}_in", "from", "side"], [f"{covered}_from"]),
        helper.make_node("Where", [f"{covered}_in", "to", "none"], [f"{covered}_to"]),
        helper.make_node("ReduceMin", [f"{covered}_from"], [low], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", [f"{covered}_to"], [high], axes=[1], keepdims=1),
    ]


def tiny_decoder(*, dim: int = DIM, code: int = CODE, scale: float = 1.0) -> bytes:
    """ONNX bytes: shots (n, dim) and codes (m, code) -> made (n, m, dim): each shot a little further along each code's direction.

    `scale` is that of what is made: anything but 1 makes a decoder that breaks its contract.
    """
    directions = np.random.default_rng(1).normal(0, 0.5, (code, dim)).astype(np.float32)
    graph = helper.make_graph(
        nodes=[
            helper.make_node("MatMul", ["codes", "directions"], ["offsets"]),
            helper.make_node("Unsqueeze", ["shots", "middle"], ["each"]),
            helper.make_node("Add", ["each", "offsets"], ["sum"]),
            helper.make_node("LpNormalization", ["sum"], ["unit"], axis=-1, p=2),
            helper.make_node("Mul", ["unit", "scale"], ["made"]),
        ],
        name="tiny decoder",
        inputs=[
            helper.make_tensor_value_info("shots", TensorProto.FLOAT, ["n", dim]),
            helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["m", code]),
        ],
        outputs=[helper.make_tensor_value_info("made", TensorProto.FLOAT, ["n", "m", dim])],
        initializer=[
            numpy_helper.from_array(directions, "directions"),
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
            numpy_helper.from_array(np.float32(scale).reshape(1), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
