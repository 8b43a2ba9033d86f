# SPDX-License-Identifier: Apache-2.0
"""Network weights as safetensors in half precision; the metadata says how they came to be."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hiface.assets.loader import asset_path, read_safetensors
from hiface.errors import AssetError
from hiface.networks.eye_colour_net import EyeColourConfig, EyeColourNet
from hiface.networks.finder import Finder, FinderConfig
from hiface.networks.hiface import Hiface, HifaceConfig
from hiface.networks.landmarker import Landmarker, LandmarkerConfig
from hiface.networks.motion_net import MotionConfig, MotionNet
from hiface.networks.recogniser import Recogniser, RecogniserConfig

FORMAT_VERSION = "1"
Config = TypeVar(
    "Config", FinderConfig, LandmarkerConfig, HifaceConfig, RecogniserConfig, EyeColourConfig, MotionConfig
)
AnyNetwork = Finder | Landmarker | Hiface | Recogniser
KINDS: dict[type, str] = {
    Finder: "finder",
    Landmarker: "landmarker",
    Hiface: "hiface",
    Recogniser: "recogniser",
    EyeColourNet: "eye_colour",
    MotionNet: "motion",
}


def save_weights(network: AnyNetwork | EyeColourNet | MotionNet, path: Path, notes: dict[str, str]) -> None:
    """Writes weights in half precision, under a temporary name first.

    Args:
        network: The network; batch-norm statistics are included.
        path: File to write, replaced if it exists.
        notes: Strings for the metadata, for example recipe, data version, scores, date.
    """
    metadata = {
        "kind": KINDS[type(network)],
        "format": FORMAT_VERSION,
        "config": json.dumps(dataclasses.asdict(network.config), sort_keys=True),
        **notes,
    }
    tensors = {name: _to_half(value) for name, value in network.state_dict().items() if _is_weight(name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(tensors, str(partial), metadata=metadata)
    os.replace(partial, path)


def load_finder(path: Path | None = None) -> Finder:
    """The finder with its weights, in evaluation mode.

    Args:
        path: A file written by `save_weights`; the packaged one if None.

    Raises:
        AssetError: The file is missing, damaged, of another kind or does not fit the network.
    """
    tensors, config = _read(path, "finder", FinderConfig)
    return _fill(Finder(config), tensors, "finder")


def load_landmarker(path: Path | None = None) -> Landmarker:
    """The landmark network with its weights, in evaluation mode; see `load_finder`."""
    tensors, config = _read(path, "landmarker", LandmarkerConfig)
    return _fill(Landmarker(config), tensors, "landmarker")


def load_hiface(path: Path | None = None) -> Hiface:
    """The HiFace network with its weights, in evaluation mode; see `load_finder`."""
    tensors, config = _read(path, "hiface", HifaceConfig)
    return _fill(Hiface(config), tensors, "hiface")


def load_eye_colour(path: Path | None = None) -> EyeColourNet:
    """The network that reads the colour of irises, in evaluation mode; see `load_finder`."""
    tensors, config = _read(path, "eye_colour", EyeColourConfig)
    return _fill(EyeColourNet(config), tensors, "eye_colour")


def load_motion(path: Path | None = None) -> MotionNet:
    """The network that reads changes of expression, in evaluation mode; see `load_finder`."""
    tensors, config = _read(path, "motion", MotionConfig)
    return _fill(MotionNet(config), tensors, "motion")


def load_recogniser(path: Path) -> Recogniser:
    """A recogniser with its weights, in evaluation mode; see `load_finder`. None is packaged."""
    tensors, config = _read(path, "recogniser", RecogniserConfig)
    return _fill(Recogniser(config), tensors, "recogniser")


def weights_notes(path: Path) -> dict[str, str]:
    """Metadata of a weights file: kind, config, recipe, data version, scores, date."""
    return read_safetensors(path)[1]


def _is_weight(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _to_half(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.cpu().contiguous()
    value = value.detach().cpu().float()
    if not bool(torch.isfinite(value).all()):
        raise AssetError(
            "the network holds non-finite weights; the training diverged, lower its learning rate"
        )
    return value.clamp(-65000.0, 65000.0).half().contiguous()


def _read(path: Path | None, kind: str, config_type: type[Config]) -> tuple[dict[str, Tensor], Config]:
    path = path or asset_path(f"weights/{kind}.safetensors")
    tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != kind:
        raise AssetError(
            f"{path.name} holds weights of {metadata.get('kind', 'an unknown network')!r}, not of {kind!r}; "
            f"name the file that was written for the {kind}"
        )
    return tensors, _parse_config(metadata, config_type, path.name)


def _parse_config(metadata: dict[str, str], config_type: type[Config], name: str) -> Config:
    try:
        values: dict[str, Any] = json.loads(metadata["config"])
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return config_type(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise AssetError(
            f"{name} has no usable network config ({error}); export it again from its checkpoint"
        ) from error


Network = TypeVar("Network", bound=nn.Module)


def _fill(network: Network, tensors: dict[str, Tensor], kind: str) -> Network:
    wanted = {name for name in network.state_dict() if _is_weight(name)}
    missing, unknown = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if missing or unknown:
        raise AssetError(
            f"the {kind} weights do not fit the network: missing {missing[:3]}, unknown {unknown[:3]}; "
            "use weights written by the same version of hiface"
        )
    try:
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, strict=False
        )
    except RuntimeError as error:
        raise AssetError(f"the {kind} weights have wrong shapes ({error}); export them again") from error
    return network.eval().requires_grad_(False)
