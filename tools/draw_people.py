# SPDX-License-Identifier: Apache-2.0
"""Draws heads of synthetic people, front and side, without hair: `python tools/draw_people.py --out FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import roma
import torch
from PIL import Image
from torch import Tensor

import hiface
from hiface.data.colour import linear_to_srgb, to_uint8
from hiface.morphable import MorphableModel
from hiface.render import render
from hiface.synthetic.people import sample_person
from hiface.types import Camera

BACKGROUND = 0.3  # linear
DISTANCE_M, FIELD = 1.1, 3.9


def draw_head(model: MorphableModel, identity: Tensor, albedo: Tensor, yaw: float, size: int) -> np.ndarray:
    """[size, size, 3] uint8 picture of a neutral head turned by `yaw` radians."""
    rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ roma.rotvec_to_rotmat(
        torch.tensor([0.0, yaw, 0.0])
    )
    camera = Camera.from_pose(rotation, torch.tensor([0.0, -0.02, DISTANCE_M]), FIELD * size, size, size)
    light = torch.zeros(9, 3)
    light[0], light[1], light[2], light[3] = 2.9, -0.7, -0.7, -0.5
    mesh = model(identity, torch.zeros(len(model.data.expression_names)), torch.zeros(model.data.n_joints, 3))
    drawn = render(mesh, camera, model.albedo_map(albedo), light, (size, size))
    image = drawn.image + (1.0 - drawn.alpha) * BACKGROUND
    return to_uint8(linear_to_srgb(image)).permute(1, 2, 0).numpy()


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    model, cells = hiface.load_model("open"), []
    for number in range(options.people):
        person = sample_person(model, np.random.default_rng([number, options.seed]))
        views = [draw_head(model, person.identity, person.albedo, yaw, options.size) for yaw in (0.0, 1.3)]
        cells.append(np.hstack(views))
    rows = [np.hstack(cells[i : i + options.columns]) for i in range(0, len(cells), options.columns)]
    Image.fromarray(np.vstack([row for row in rows if row.shape == rows[0].shape])).save(
        options.out, quality=85
    )


if __name__ == "__main__":
    main()
