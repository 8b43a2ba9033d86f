# SPDX-License-Identifier: Apache-2.0
"""What synthetic people, static and dynamic detail are worth: `python benchmarks/detail_ablation.py DIR`.

Two HiFace networks start alike and see the same pictures for the same number of steps. One is told the truth
of them (L_shp + L_detail + L_reg); the other gets them as photos without labels and learns by L_self alone,
as a network does that is trained without synthetic data. Both are put to the re-expression test on hold-out
people: static detail alone, dynamic alone, both, none, and the map of the first expression kept.

A run that was stopped goes on where it was: data, training and weights are kept in DIR.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress, track
from torch import nn

from hiface.networks.hiface import Hiface
from hiface.networks.weights import save_weights
from hiface.reconstructor import Reconstructor
from hiface.synthetic.datasets import make_spec
from hiface.synthetic.shards import write_shards
from hiface.training.hiface_losses import HifaceWeights, PhotoWeights
from hiface.training.hiface_task import HifaceRecipe, HifaceTask
from hiface.training.loop import train
from hiface.training.recipes import RECIPES
from hiface.training.shards import ShardSet
from hiface_network import coarse_scores, look_at_people, reexpression_scores

SIZE_PX, SEED = 256, 61
KINDS = ("with synthetic data", "without synthetic data")


def make_people(folder: Path, count: int) -> None:
    """Pictures with detail codes."""
    spec = make_spec("images", SIZE_PX, SEED, "all", ("basic", "codes"), 1)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("people", total=count)
        write_shards(folder, count, spec, 1, lambda done, total: progress.update(task, completed=done))


def hide_labels(people: Path, photos: Path) -> None:
    """The training pictures of `people` as PNG files without anything else."""
    if (photos / "done").exists():
        return
    photos.mkdir(parents=True, exist_ok=True)
    data = ShardSet((people,))
    for i in track(range(len(data)), description="photos", console=Console(stderr=True)):
        rgb = data.take(np.array([i]), segmentation=False).images[0, :3]
        Image.fromarray(rgb.permute(1, 2, 0).numpy()).save(photos / f"{i:06d}.png")
    (photos / "done").touch()


def forget_labels(network: Hiface) -> None:
    """Undoes what a network's start has from labels; mean places of landmarks and pose remain."""
    assert network.dynamic.linear is not None
    for layer in (network.shape_of_points, network.dynamic.linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    expression = network.heads["expression"]
    assert isinstance(expression, nn.Linear)
    nn.init.constant_(expression.bias, -3.0)  # nearly at rest, as without landmarks


def trained(kind: str, work: Path, steps: int) -> Path:
    """Weights of a network trained with or without labels."""
    out = work / kind.replace(" ", "_")
    path = out / "hiface.safetensors"
    if path.exists():
        return path
    if kind == KINDS[0]:
        task = HifaceTask(HifaceRecipe(batch_size=16), (work / "people",))
    else:
        nothing = HifaceWeights(**{f.name: 0.0 for f in fields(HifaceWeights)})
        weights = PhotoWeights(of=16)
        recipe = HifaceRecipe(batch_size=2, weights=nothing, photo_weights=weights)
        task = HifaceTask(recipe, (work / "people",), photos=work / "photos")
        assert isinstance(task.network, Hiface)
        forget_labels(task.network)
    network = train(task, replace(RECIPES["hiface"].loop, steps=steps), out, resume=True)
    assert isinstance(network, Hiface)
    save_weights(network, path, {"recipe": kind})
    return path


def main() -> None:
    """Runs the ablation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="pictures, three of each person")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--people", type=int, default=40, help="hold-out people")
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "detail_ablation.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_people(options.work / "people", options.count)
    hide_labels(options.work / "people", options.work / "photos")
    results: dict = {"pictures": options.count, "steps": options.steps}
    for kind in KINDS:
        reconstructor = Reconstructor(
            "hiface", device="cpu", weights=trained(kind, options.work, options.steps)
        )
        seen, _ = look_at_people(reconstructor, options.people)
        results[kind] = {
            "coarse": coarse_scores(reconstructor, seen)["global"]["mean"],
            "re-expression": reexpression_scores(reconstructor, seen),
        }
    print(json.dumps(results, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
