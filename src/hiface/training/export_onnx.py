# SPDX-License-Identifier: Apache-2.0
"""Writes a network as ONNX with half-precision weights, which ONNX Runtime widens once, on loading."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.errors import MissingExtraError
from hiface.networks.finder import Finder
from hiface.networks.hiface import Hiface, HifaceOutput
from hiface.networks.landmarker import LandmarkOutput
from hiface.networks.recogniser import Recogniser
from hiface.networks.runtime import network_metadata
from hiface.networks.weights import AnyNetwork

OPSET = 17
_HALF_FROM = 256  # numbers; smaller tensors stay as they are


def export_onnx(network: AnyNetwork, path: Path, notes: dict[str, str] | None = None) -> None:
    """Exports a network in evaluation mode.

    Args:
        network: Finder (any picture size), or a network of crops (any number of them).
        path: `.onnx` file to write, under a temporary name first.
        notes: Further metadata.

    Raises:
        MissingExtraError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("exporting needs onnx; type: pip install 'hiface[train]'") from error
    partial = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _export(network.eval(), partial)
    model = onnx.load(str(partial))
    _halve_weights(model)
    for key, value in {**(notes or {}), **network_metadata(network)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(partial))
    os.replace(partial, path)


def _export(network: AnyNetwork, path: Path) -> None:
    if isinstance(network, Finder):
        examples = {"images": torch.zeros(1, 3, 96, 128)}
        outputs = ["level8", "level16", "level32"]
        axes = {"images": {0: "batch", 2: "height", 3: "width"}}
        axes.update({f"level{s}": {0: "batch", 2: f"h{s}", 3: f"w{s}"} for s in (8, 16, 32)})
    else:
        side = network.config.crop_px
        examples = {"crops": torch.zeros(1, 3, side, side)}
        outputs = list(LandmarkOutput._fields)
        if isinstance(network, Hiface):
            outputs = list(HifaceOutput._fields)
            if network.config.n_points:
                examples["points"] = torch.zeros(1, network.config.n_points, 3)
        elif isinstance(network, Recogniser):
            outputs = ["embedding"]
        axes = {name: {0: "batch"} for name in (*examples, *outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(examples.values()),
            str(path),
            input_names=list(examples),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _halve_weights(model: Any) -> None:
    """Stores large float32 tensors as float16, each followed by a cast back."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _HALF_FROM:
            continue
        name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT, name=f"{name}_cast")
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
