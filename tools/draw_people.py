# SPDX-License-Identifier: Apache-2.0
"""Draws heads without hair: `python tools/draw_people.py --out FILE`.

Synthetic people from in front and from the side; with `--model` the mean head, six people, and eight
expressions of the mean head.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import roma
import torch
from PIL import Image
from torch import Tensor

import hiface
from hiface.colour import linear_to_srgb, to_uint8
from hiface.morphable import MorphableModel
from hiface.render import render
from hiface.synthetic.people import sample_person
from hiface.types import Camera

BACKGROUND = 0.3  # linear
DISTANCE_M, FIELD = 1.1, 3.9
EXPRESSIONS = (
    {"mouthSmile": 0.9, "cheekSquint": 0.6},
    {"jawOpen": 0.7},
    {"eyeBlink": 1.0},
    {"browInnerUp": 1.0, "browOuterUp": 0.9, "eyeWide": 0.7},
    {"browDown": 1.0, "noseSneer": 0.7, "mouthPress": 0.5},
    {"mouthPucker": 0.9},
    {"mouthFrown": 0.9, "mouthShrugLower": 0.6},
    {"cheekPuff": 1.0},
)


def draw_head(
    model: MorphableModel,
    identity: Tensor,
    albedo: Tensor,
    yaw: float,
    size: int,
    shapes: Tensor | None = None,
) -> np.ndarray:
    """[size, size, 3] uint8 picture of a head turned by `yaw` radians, neutral without `shapes` [E]."""
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ roma.rotvec_to_rotmat(
        torch.tensor([0.0, yaw, 0.0])
    )
    camera = Camera.from_pose(rotation, torch.tensor([0.0, -0.02, DISTANCE_M]), FIELD * size, size, size)
    light = torch.zeros(9, 3)
    light[0], light[1], light[2], light[3] = 2.9, -0.7, -0.7, -0.5
    shapes = torch.zeros(len(model.data.expression_names)) if shapes is None else shapes
    mesh = model(identity, shapes, torch.zeros(model.data.n_joints, 3))
    drawn = render(mesh, camera, model.albedo_map(albedo), light, (size, size))
    image = drawn.image + (1.0 - drawn.alpha) * BACKGROUND
    return to_uint8(linear_to_srgb(image)).permute(1, 2, 0).numpy()


def both_sides(model: MorphableModel, values: dict[str, float]) -> Tensor:
    """[E] coefficients; names without a side stand for both."""
    names = model.data.expression_names
    parts = {f"{name}{side}": v for name, v in values.items() for side in ("", "Left", "Right")}
    return model.expression_vector({name: v for name, v in parts.items() if name in names})


def model_cells(model: MorphableModel, size: int, seed: int) -> list[np.ndarray]:
    """Fifteen heads: the mean, six people, eight expressions."""
    mean, skin = torch.zeros(model.data.n_identity), torch.zeros(len(model.data.albedo_names))
    drawn = [sample_person(model, np.random.default_rng([number, seed])) for number in range(6)]
    people, skins = [mean, *(p.identity for p in drawn)], [skin, *(p.albedo for p in drawn)]
    cells = [draw_head(model, p, a, -0.3, size) for p, a in zip(people, skins, strict=True)]
    return cells + [draw_head(model, mean, skin, 0.0, size, both_sides(model, e)) for e in EXPRESSIONS]


def people_cells(model: MorphableModel, count: int, size: int, seed: int) -> list[np.ndarray]:
    """Synthetic people, each from in front and from the side."""
    cells = []
    for number in range(count):
        person = sample_person(model, np.random.default_rng([number, seed]))
        cells.append(
            np.hstack([draw_head(model, person.identity, person.albedo, y, size) for y in (0.0, 1.3)])
        )
    return cells


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="store_true", help="the face model instead of synthetic people")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    model = hiface.load_model("open")
    if options.model:
        cells = model_cells(model, options.size, options.seed)
    else:
        cells = people_cells(model, options.people, options.size, options.seed)
    rows = [np.hstack(cells[i : i + options.columns]) for i in range(0, len(cells), options.columns)]
    Image.fromarray(np.vstack([row for row in rows if row.shape == rows[0].shape])).save(
        options.out, quality=85
    )


if __name__ == "__main__":
    main()
