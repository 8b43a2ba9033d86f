# SPDX-License-Identifier: Apache-2.0
"""Named recipes: what `hiface train NAME` trains, on which data, for how long."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import nn

from hiface.devices import check_device
from hiface.errors import AssetError, HifaceError, MissingExtraError, OptionError
from hiface.networks.backbones import ResNet50
from hiface.networks.finder import Finder
from hiface.networks.hiface import PRESETS, Hiface
from hiface.networks.landmarker import Landmarker
from hiface.networks.recogniser import Recogniser, at_own_size
from hiface.networks.weights import (
    KINDS,
    AnyNetwork,
    load_finder,
    load_hiface,
    load_landmarker,
    load_recogniser,
    save_weights,
)
from hiface.training.choices import HifaceChoices
from hiface.training.export_onnx import export_onnx
from hiface.training.finder_task import FinderRecipe, FinderTask
from hiface.training.hiface_task import HifaceRecipe, HifaceTask
from hiface.training.landmark_task import LandmarkRecipe, LandmarkTask
from hiface.training.loop import LoopConfig, check_run_folder, read_checkpoint, train
from hiface.training.recogniser_task import RecogniserRecipe, RecogniserTask
from hiface.training.shards import manifest_of, mirror_of
from hiface.training.team import joined

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """A task and how to train it.

    Attributes:
        task: Data, network and loss.
        loop: Steps, learning rate, averaging.
        threads: Torch threads on CPU.
    """

    task: FinderRecipe | LandmarkRecipe | HifaceRecipe | RecogniserRecipe
    loop: LoopConfig
    threads: int = 1


RECIPES: dict[str, Recipe] = {
    "landmarker": Recipe(LandmarkRecipe(), LoopConfig(steps=19_000, learning_rate=1.2e-3, flat=0.5)),
    "finder": Recipe(FinderRecipe(), LoopConfig(steps=6_000, learning_rate=1.5e-3, flat=0.5)),
    "recogniser": Recipe(RecogniserRecipe(), LoopConfig(steps=6_000, learning_rate=1e-3, flat=0.4)),
    "hiface": Recipe(HifaceRecipe(), LoopConfig(steps=30_000, learning_rate=8e-4, flat=0.5)),
}


def main_train(
    recipe: str,
    data: Path,
    out: Path,
    steps: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    start: Path | None = None,
    choices: HifaceChoices | None = None,
) -> Path:
    """Trains a recipe and writes its weights.

    Args:
        recipe: Name in `RECIPES`.
        data: Folder of synthetic shards, or a folder of such folders.
        out: Folder for the checkpoint, the log and the weights.
        steps: Number of steps in place of the recipe's.
        device: Torch device.
        resume: Go on from the checkpoint in `out`.
        start: Weights (`.safetensors`) or checkpoint (`.pt`) to start from instead of random ones; for the
            preset "paper" also torchvision's weights of resnet50 (`.pth`).
        choices: Preset and photos; for the recipe "hiface" only.

    Returns:
        Path of the weights, `out / NAME.safetensors`. `out / NAME.onnx` is written beside it, with the same
        numbers, if the package onnx is installed.

    Raises:
        HifaceError: An unknown recipe, preset or device.
        AssetError: Data or start weights cannot be used.
        OutputError: `out` cannot be written, or holds a run and `resume` is not given.
    """
    choices = choices or HifaceChoices()
    check_run_folder(out, resume)
    check_device(device)
    chosen = _with_choices(_chosen(recipe), choices)
    loop = chosen.loop if steps is None else dataclasses.replace(chosen.loop, steps=steps)
    if device == "cpu":
        torch.set_num_threads(chosen.threads)
    folders = data_folders(data)
    if isinstance(chosen.task, LandmarkRecipe):
        task = LandmarkTask(chosen.task, folders, mirror_of())
    elif isinstance(chosen.task, HifaceRecipe):
        task = _hiface_task(chosen.task, folders, choices)
    elif isinstance(chosen.task, RecogniserRecipe):
        task = RecogniserTask(chosen.task, folders)
    else:
        task = FinderTask(chosen.task, folders)
    if start is not None:
        _start_from(task.network, start)
    path = out / f"{recipe}.safetensors"
    with joined(device) as (team, own_device):
        network = train(task, loop, out, own_device, resume, team)
    if not team.leads:
        return path
    if isinstance(task, HifaceTask):
        task.finish(network)
    scores = task.validate(network)
    notes = training_notes(recipe, chosen, loop, folders, scores)
    if isinstance(task, HifaceTask):
        notes["identity_sigma"] = json.dumps(task.identity_sigma(network))
    save_weights(_known(network), path, notes)
    try:
        export_onnx(_known(network), path.with_suffix(".onnx"), notes)
    except MissingExtraError as error:
        LOGGER.warning("no %s.onnx was written: %s", recipe, error)
    return path


def data_folders(data: Path) -> tuple[Path, ...]:
    """The shard folders that a path means: itself, or all its subfolders with a manifest.

    Raises:
        AssetError: There is none.
    """
    if (data / "manifest.json").is_file():
        return (data,)
    folders = tuple(sorted(p.parent for p in data.glob("*/manifest.json")))
    if not folders:
        fix = f"make some with: hiface synth -o {data}"
        raise AssetError(f"{data} holds no synthetic data (no manifest.json); {fix}")
    return folders


def training_notes(
    name: str, recipe: Recipe, loop: LoopConfig, folders: tuple[Path, ...], scores: dict[str, float]
) -> dict[str, str]:
    """Metadata of a weights file."""
    manifests = [manifest_of(folder) for folder in folders]
    keys = ("generator_version", "model", "landmark_hash", "count", "seed")
    return {
        "recipe": name,
        "recipe_values": json.dumps(dataclasses.asdict(recipe), sort_keys=True),
        "steps": str(loop.steps),
        "data": json.dumps([{k: m.get(k) for k in keys} for m in manifests]),
        "scores": json.dumps(scores, sort_keys=True),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "licence": "Apache-2.0",
        "origin": "trained by the hiface project on its own synthetic pictures only",
    }


def _chosen(recipe: str) -> Recipe:
    if recipe not in RECIPES:
        raise HifaceError(f"unknown recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _hiface_task(recipe: HifaceRecipe, folders: tuple[Path, ...], choices: HifaceChoices) -> HifaceTask:
    path = choices.recogniser
    embed = None if path is None else at_own_size(load_recogniser(path))
    return HifaceTask(recipe, folders, choices.photos, choices.teacher, embed)


def _with_choices(recipe: Recipe, choices: HifaceChoices) -> Recipe:
    if choices.photos is None and (choices.teacher or choices.recogniser):
        raise OptionError("a teacher and a recogniser are for photos; name their folder with --photos")
    if not isinstance(recipe.task, HifaceRecipe):
        if choices != HifaceChoices():
            raise OptionError(
                "presets and photos are for the recipe hiface; the others have one size and learn from "
                "synthetic pictures only"
            )
        return recipe
    if choices.preset is None:
        return recipe
    if choices.preset not in PRESETS:
        raise OptionError(f"there is no preset {choices.preset!r}; choose one of {', '.join(PRESETS)}")
    return dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, network=PRESETS[choices.preset]))


def _known(network: nn.Module) -> AnyNetwork:
    if not isinstance(network, tuple(KINDS)):
        raise HifaceError(f"{type(network).__name__} has no weights format")
    return network  # pyright: ignore[reportReturnType]


def _start_from(network: nn.Module, start: Path) -> None:
    """Copies the weights of an earlier run, or torchvision's into the trunk."""
    if start.suffix in (".pt", ".pth"):
        content = read_checkpoint(start)
        if "average" not in content and isinstance(network, Hiface) and isinstance(network.trunk, ResNet50):
            network.trunk.start_from_torchvision(content)
            return
        if "average" not in content:
            raise AssetError(f"{start.name} is no checkpoint of a training run; name a run's checkpoint.pt")
        state = content["average"]
    else:
        loaders = {
            Finder: load_finder,
            Landmarker: load_landmarker,
            Hiface: load_hiface,
            Recogniser: load_recogniser,
        }
        state = loaders[type(network)](start).state_dict()
    if isinstance(network, Landmarker):
        state = {**state, "mirror": network.mirror}  # the landmark sets of the data, not of the earlier run
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise AssetError(f"{start.name} does not fit the network of this recipe ({error})") from error
