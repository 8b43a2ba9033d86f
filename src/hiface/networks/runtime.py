# SPDX-License-Identifier: Apache-2.0
"""Runs a packaged network: ONNX Runtime on CPU (fastest at batch 1), or torch with the same weights.

Both take and give numpy arrays, so the code that uses a network does not know which one it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hiface.assets.loader import asset_path
from hiface.errors import AssetError
from hiface.networks.hiface import WithEvidence
from hiface.networks.landmarker import Landmarker
from hiface.networks.weights import AnyNetwork, load_finder, load_hiface, load_landmarker, weights_notes

Kind = Literal["finder", "landmarker", "hiface"]
_LOADERS = {"finder": load_finder, "landmarker": load_landmarker, "hiface": load_hiface}

_SPIN_US = 50
_SPIN_LIMIT_SINCE = (1, 27)  # ONNX Runtime that knows `spin_duration_us`


class Runner(Protocol):
    """A network that can be run.

    Attributes:
        metadata: Strings stored with the weights; "config" and, for landmarks, "mirror" hold JSON.
    """

    metadata: dict[str, str]

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Float32 arrays in, the network's outputs out."""
        ...


def default_threads() -> int:
    """Threads for one network: the cores this process may use, at most 4."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(4, cores))


def spinning(version: str, threads: int) -> dict[str, str]:
    """How the threads of a session wait for the next part of a run: keys of ONNX Runtime, and values.

    A thread that sleeps takes longer to wake up than it works on most operators of these networks, so threads
    look out for work for some microseconds before they sleep. Spinning without a limit, which is all that
    older versions know, slows runs down severalfold where other programs use the cores; there they sleep.

    Args:
        version: Of ONNX Runtime.
        threads: Threads inside one operator.

    Returns:
        Keys after `session.intra_op.`, and values.
    """
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if threads == 1 or numbers < _SPIN_LIMIT_SINCE:
        return {"allow_spinning": "0"}
    return {"allow_spinning": "1", "spin_duration_us": str(_SPIN_US)}


class OnnxRunner:
    """An ONNX Runtime session on CPU.

    Args:
        path: The `.onnx` file.
        threads: Threads inside one operator.

    Raises:
        AssetError: The file is missing or damaged.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in spinning(ort.__version__, threads).items():
            options.add_session_config_entry(f"session.intra_op.{key}", value)
        if not path.is_file():
            raise AssetError(f"network file {path.name!r} is missing; reinstall hiface")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own classes, which it does not export by name
            raise AssetError(f"{path.name} cannot be loaded as ONNX ({error}); reinstall hiface") from error
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Runs the network on float32 arrays."""
        arrays = (np.ascontiguousarray(values, dtype=np.float32) for values in inputs)
        out = self._session.run(None, dict(zip(self._inputs, arrays, strict=True)))
        return tuple(np.asarray(part) for part in out)


class TorchRunner:
    """The same network in torch, for other devices and for large batches.

    Args:
        network: Any network.
        device: Torch device.
        notes: Further metadata, as stored with the weights (`weights_notes`).
    """

    def __init__(
        self, network: AnyNetwork | WithEvidence, device: str = "cpu", notes: Mapping[str, str] | None = None
    ) -> None:
        self._network = network.to(device).eval()
        self._device = device
        self.metadata: dict[str, str] = {**(notes or {}), **network_metadata(network)}

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Runs the network on float32 arrays."""
        tensors = [torch.from_numpy(np.ascontiguousarray(values)).to(self._device) for values in inputs]
        with torch.inference_mode():
            out: tuple[Tensor, ...] = self._network(*tensors)
        return tuple(part.float().cpu().numpy() for part in out)


def network_metadata(network: AnyNetwork | WithEvidence) -> dict[str, str]:
    """What a runner must know of a network beside its numbers: config and mirror indices, as JSON."""
    metadata = {"config": json.dumps(dataclasses.asdict(network.config), sort_keys=True)}
    if isinstance(network, Landmarker):
        metadata["mirror"] = json.dumps(network.mirror.tolist())
    return metadata


def load_runner(kind: Kind, device: str = "cpu", threads: int | None = None) -> Runner:
    """A packaged network, ready to run.

    Args:
        kind: "finder", "landmarker" or "hiface".
        device: "cpu" runs ONNX Runtime; any other torch device runs torch.
        threads: Threads inside one operator on CPU; `default_threads()` if None.

    Returns:
        A function of float32 numpy arrays to a tuple of numpy arrays.

    Raises:
        AssetError: The weights are missing or damaged.
    """
    if device == "cpu":
        return OnnxRunner(asset_path(f"weights/{kind}.onnx"), threads or default_threads())
    notes = weights_notes(asset_path(f"weights/{kind}.safetensors"))
    return TorchRunner(_LOADERS[kind](), device, notes)
