# SPDX-License-Identifier: Apache-2.0
"""How expression should enter the dynamic detail codes: `python benchmarks/adain.py DATA [--steps 4000]`.

The paper's formula can be read in two ways (`hiface.networks.dynamic_codes`). Both are trained on the true
static codes, expressions and dynamic codes of synthetic people (no picture, no trunk), and measured on held
people: share of the dynamic maps' variance that is explained, and error of the displacement that the
expression makes, over that of the mean maps. A linear map of the static codes, which knows no expression, is
the rival.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from hiface.detail.basis import DetailBasis, load_detail_basis
from hiface.detail.sd_detail import expression_masks
from hiface.losses.detail_loss import composed_error, dynamic_error
from hiface.morphable import load_model
from hiface.networks.dynamic_codes import DynamicCodes
from hiface.networks.hiface import PRESETS
from hiface.networks.layers import set_to_ridge
from hiface.training.hiface_losses import split_codes
from hiface.training.recipes import data_folders
from hiface.training.shards import ShardSet

VARIANTS: dict[str, dict] = {
    "moments": {"reading": "moments"},
    "style": {"reading": "style"},
    "moments, dropout": {"reading": "moments", "dropout": 0.5},
    "style, dropout": {"reading": "style", "dropout": 0.5},
    "style, dropout, linear": {"reading": "style", "dropout": 0.5, "linear": True},
}
LABELS = ("identity", "expression", "map.detail_codes")


class People:
    """Labels of a set of synthetic people.

    Args:
        folders: Shards with codes.
        basis: With the numbers of codes that are used.
        validation: Held people instead of the others.
    """

    def __init__(self, folders: tuple[Path, ...], basis: DetailBasis, validation: bool) -> None:
        data = ShardSet(folders, validation=validation, more=LABELS)
        self.identity, self.expression, codes = (
            torch.from_numpy(np.asarray(data.labels(name), dtype=np.float32)) for name in LABELS
        )
        self.static, self.dynamic = split_codes(codes, basis)


def train(codes: DynamicCodes, people: People, basis: DetailBasis, steps: int, name: str) -> None:
    """Minimises the error of the dynamic maps, a half cosine of the rate."""
    optimizer = torch.optim.AdamW(codes.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gen = torch.Generator().manual_seed(0)
    for _ in track(range(steps), description=name):
        rows = torch.randint(len(people.static), (256,), generator=gen)
        out = codes(people.static[rows], people.expression[rows])
        loss = dynamic_error(basis, out, people.dynamic[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def linear(people: People, held: People) -> Tensor:
    """Dynamic codes of held people by ridge regression from their static codes."""
    layer = torch.nn.Linear(people.static.shape[1], people.dynamic.shape[1])
    set_to_ridge(layer, people.static, people.dynamic)
    with torch.no_grad():
        return layer(held.static)


def scores(
    basis: DetailBasis, dynamic: Tensor, held: People, masks: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Explained variance of the maps, and error under the people's own expressions over the mean maps'."""
    none = torch.zeros_like(held.dynamic)
    share = (
        dynamic_error(basis, dynamic, held.dynamic).mean() / dynamic_error(basis, none, held.dynamic).mean()
    )
    wrong, mean = (
        composed_error(basis, held.static, guess, masks, held.static, held.dynamic, masks).mean()
        for guess in (dynamic, none)
    )
    return {"explained": round(1 - float(share), 4), "composed over mean": round(float(wrong / mean), 4)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "adain.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, size = load_model("open"), PRESETS["small"]
    basis = load_detail_basis().first(size.n_static, size.n_compressed, size.n_stretched)
    folders = data_folders(options.data)
    people, held = People(folders, basis, False), People(folders, basis, True)
    masks = expression_masks(model, held.identity, held.expression, basis)
    results: dict[str, object] = {"linear": scores(basis, linear(people, held), held, masks)}
    counts = (size.n_static, size.n_expression, size.n_compressed + size.n_stretched)
    for name, settings in VARIANTS.items():
        torch.manual_seed(0)
        codes = DynamicCodes(*counts, size.dynamic_hidden, **settings)
        codes.start_linear(people.static, people.dynamic)
        train(codes, people, basis, options.steps, name)
        codes.eval()
        with torch.no_grad():
            results[name] = scores(basis, codes(held.static, held.expression), held, masks)
    results |= {"people": len(people.static), "held": len(held.static), "steps": options.steps}
    results["machine"] = platform.processor() or platform.machine()
    print(json.dumps(results, indent=1))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
