"""The operations of an exported network, as the page's script `network.js` has them."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

__all__ = ["describe_network"]

Settings = dict[str, Any]
Shapes = Sequence[Sequence[int]]
"""The shapes of an operation's inputs, without N."""


def describe_network(program: ExportedProgram) -> Settings:
    """Return what the page's script needs of a network that maps pixels (N, C, H, W) to probabilities (N, K).

    Returns:
        `operations` in their order, each with its name, inputs, kind and settings; `blocks`, the last feature maps of
        each layer; and `weights`, the tensors of all operations one after the other, float32 in base64.

    Raises:
        ValueError: if the script does not have one of the operations.
    """
    tensors = _tensors(program)
    names = dict.fromkeys(program.graph_signature.user_inputs, "pixels")
    """The name of the operation that computes the value of a node, by the name of the node."""
    operations: list[Settings] = []
    blocks: dict[str, Settings] = {}
    starts: dict[bytes, int] = {}
    """Where the numbers of each tensor begin among all of them."""
    current, first = "", True
    """The layer of a node, and whether it is met for the first time: it may see several views of an image."""
    for node in program.graph.nodes:
        if node.op != "call_function" or str(node.target) == "aten._assert_tensor_metadata.default":
            continue
        try:
            operation = _operation(node, names, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            layer = f" of {_layer(node)}" if _layer(node) else ""
            raise ValueError(f"a page cannot compute {node.target}{layer}: export to .onnx or .pt2 instead") from error
        if "kind" not in operation:
            (names[node.name],) = operation["inputs"]
            continue
        for name, value in operation.items():
            if isinstance(value, Tensor):
                numbers = value.numpy().astype("<f4").tobytes()
                # Once, even if the layer sees several views of an image.
                start = starts.setdefault(numbers, sum(map(len, starts)) // 4)
                operation[name] = {"start": start, "shape": list(value.shape)}
        names[node.name] = node.name
        operations.append(operation)
        layer, shape = _layer(node), _shape(node)
        if layer != current:
            current, first = layer, layer not in blocks
        if layer and first and len(shape) > 1:
            blocks[layer] = {"name": node.name, "title": layer, "shape": [*shape[1:], shape[0]]}
    operations[-1]["name"] = "probabilities"
    weights = b64encode(b"".join(starts)).decode()
    return {"operations": operations, "blocks": list(blocks.values()), "weights": weights}


def _tensors(program: ExportedProgram) -> dict[str, Tensor]:
    """Return the parameters, buffers and constants, float32, by the names of their nodes."""
    signature, values = program.graph_signature, {**program.state_dict, **program.constants}
    targets = signature.inputs_to_parameters | signature.inputs_to_buffers | signature.inputs_to_lifted_tensor_constants
    return {name: values[target].detach().float() for name, target in targets.items()}


def _operation(node: Node, names: dict[str, Any], tensors: dict[str, Tensor]) -> Settings:
    """Return an operation with its settings, its tensors among them; one that changes nothing has no kind.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: if the script does not have it.
    """
    inputs: list[Node] = []
    settings: list[Any] = []
    for value in node.args:
        if isinstance(value, Node) and value.name not in tensors:
            inputs.append(value)
        else:
            settings.append(tensors[value.name] if isinstance(value, Node) else value)
    kind = str(node.target)
    _require(len(inputs) == (2 if kind == "aten.add.Tensor" else 1))
    described = OPERATIONS[kind]([_shape(value) for value in inputs], *settings, **node.kwargs)
    return {"name": node.name, "inputs": [names[value.name] for value in inputs], **described}


def _shape(node: Node) -> list[int]:
    """Return the shape of a node's value without N."""
    return list(node.meta["val"].shape[1:])


def _layer(node: Node) -> str:
    """Return the name of the network's layer that a node is in, or an empty one."""
    paths = (path.split(".") for path, _ in node.meta.get("nn_module_stack", {}).values())
    return next((path[1] for path in paths if len(path) > 1), "")


def _add(shapes: Shapes) -> Settings:
    _require(shapes[0] == shapes[1])
    return {"kind": "add"}


def _batch_norm(
    _shapes: Shapes,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,  # noqa: FBT001  # torch's order
    _momentum: float,
    eps: float,
    _cudnn: bool,  # noqa: FBT001  # as above
) -> Settings:
    """Fold the statistics into a factor and a summand of each channel."""
    _require(not training)
    factor = (variance + eps).rsqrt() * (1 if weight is None else weight)
    return {"kind": "scale", "weight": factor, "bias": (0 if bias is None else bias) - mean * factor}


def _conv2d(
    _shapes: Shapes,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Settings:
    _require(list(dilation) == [1, 1] and groups == 1)
    by_pixel = weight.permute(2, 3, 1, 0)  # (O, C, h, w) to (h, w, C, O)
    return {"kind": "conv2d", "weight": by_pixel, "bias": bias, "stride": stride, "padding": padding}


def _flatten(_shapes: Shapes, start: int = 0, end: int = -1) -> Settings:
    _require((start, end) == (1, -1))
    return {"kind": "flatten"}


def _flip(shapes: Shapes, dims: Sequence[int]) -> Settings:
    _require(len(shapes[0]) == 3 and [dim % 4 for dim in dims] == [3])
    return {"kind": "flip"}


def _linear(shapes: Shapes, weight: Tensor, bias: Tensor | None = None) -> Settings:
    _require(shapes == [[weight.shape[1]]])
    return {"kind": "linear", "weight": weight, "bias": bias}


def _max_pool2d(_shapes: Shapes, kernel: Sequence[int], stride: Sequence[int] = ()) -> Settings:
    return {"kind": "max_pool2d", "kernel": kernel, "stride": stride or kernel}


def _mean(shapes: Shapes, dims: Sequence[int]) -> Settings:
    _require(len(shapes[0]) == 3 and sorted(dim % 4 for dim in dims) == [2, 3])
    return {"kind": "mean"}


def _pad(shapes: Shapes, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Settings:
    _require(len(shapes[0]) == 3 and len(padding) == 4 and mode in {"constant", "reflect"} and not value)
    return {"kind": "pad", "padding": padding, "reflect": mode == "reflect"}


def _multiply(_shapes: Shapes, by: float | Tensor) -> Settings:
    return {"kind": "multiply", "by": float(by)}


def _softmax(shapes: Shapes, dim: int) -> Settings:
    _require(len(shapes[0]) == 1 and dim in {1, -1})
    return {"kind": "softmax"}


def _log_softmax(shapes: Shapes, dim: int) -> Settings:
    return _softmax(shapes, dim) | {"kind": "log_softmax"}


def _dropout(_shapes: Shapes, _probability: float, training: bool) -> Settings:  # noqa: FBT001  # torch's order
    _require(not training)
    return {}


def _to(_shapes: Shapes, dtype: torch.dtype) -> Settings:
    _require(dtype == torch.float32)
    return {}


def _require(supported: bool) -> None:  # noqa: FBT001
    if not supported:
        raise ValueError


OPERATIONS: dict[str, Callable[..., Settings]] = {
    "aten.add.Tensor": _add,
    "aten.batch_norm.default": _batch_norm,
    "aten.conv2d.default": _conv2d,
    "aten.div.Tensor": lambda shapes, by: _multiply(shapes, 1 / float(by)),
    "aten.dropout.default": _dropout,
    "aten.flatten.using_ints": _flatten,
    "aten.flip.default": _flip,
    "aten.gelu.default": lambda _shapes: {"kind": "gelu"},
    "aten.linear.default": _linear,
    "aten.log_softmax.int": _log_softmax,
    "aten.max_pool2d.default": _max_pool2d,
    "aten.mean.dim": _mean,
    "aten.mul.Tensor": _multiply,
    "aten.pad.default": _pad,
    "aten.relu.default": lambda _shapes: {"kind": "relu"},
    "aten.softmax.int": _softmax,
    "aten.to.dtype": _to,
}
"""What each operation of torch is in `network.js`, given the shapes of its inputs and its other arguments."""
