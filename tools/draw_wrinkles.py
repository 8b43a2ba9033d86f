# SPDX-License-Identifier: Apache-2.0
"""Draws a face young and old: ``python tools/draw_wrinkles.py docs/images/wrinkles.jpg``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import hiface
from hiface.morphable import MorphableModel
from hiface.synthetic.body import sample_clothes
from hiface.synthetic.camera_effects import plain_srgb
from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.compose import Picture, Wardrobe, compose
from hiface.synthetic.head import person_texture
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.people import Person, sample_person
from hiface.synthetic.wrinkles import person_detail, picture_displacement, sample_wrinkles
from hiface.types import Camera, FaceParams

AGES = (0.05, 0.5, 0.95)
EXPRESSIONS = {
    "neutral": {},
    "brow raise": {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.2},
    "smile": {"mouthSmile": 0.85, "cheekSquint": 0.6, "eyeSquint": 0.3, "mouthDimple": 0.2},
    "squint": {"eyeSquint": 0.9, "cheekSquint": 0.9, "noseSneer": 0.6, "mouthUpperUp": 0.2},
    "frown": {"browDown": 0.9, "mouthFrown": 0.6, "mouthShrugLower": 0.5},
}
_LAMP = (-0.72, -0.52, -0.46)


def _light() -> Surroundings:
    direction = np.array([_LAMP], dtype=np.float32)
    return Surroundings(
        ambient=np.full(3, 0.26, np.float32),
        gradient=np.array([[0.08, 0.09, 0.10], [0.02, 0.02, 0.02]], np.float32),
        lobe_directions=direction / np.linalg.norm(direction),
        lobe_colours=np.array([[3.4, 3.2, 3.0]], np.float32) * 2.2,
        lobe_sharpness=np.array([9.0], np.float32),
    )


def _expression(model: MorphableModel, stems: dict[str, float]) -> Tensor:
    values = {}
    for stem, value in stems.items():
        for side in ("", "Left", "Right"):
            if stem + side in model.data.expression_names:
                values[stem + side] = value
    return model.expression_vector(values)


def draw(
    model: MorphableModel,
    person: Person,
    texture: Tensor,
    expression: Tensor,
    options: argparse.Namespace,
) -> np.ndarray:
    """One picture [size, size, 3] uint8."""
    size = options.size
    pose = torch.zeros(model.data.n_joints, 3)
    vertices = model.vertices(person.identity, expression, pose)
    R = torch.from_numpy(head_rotation(np.radians(options.yaw), 0.0, 0.0)).float()
    centre = model.landmarks("ibug68", vertices).mean(dim=0) + torch.tensor([0.0, 0.012, -0.02])
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 1.0]) - R @ centre, size / options.width, size, size)
    lights = _light()
    params = FaceParams(person.identity, expression, pose, person.albedo, lights.sh_light(), camera)
    detail = person_detail(model, person.identity, person.wrinkles, options.texels)
    displacement = None if options.smooth else picture_displacement(model, detail, vertices)
    picture = Picture(
        params, vertices, camera.T_cam_object, np.zeros(3, np.float32), lights, 0.0, 0.0, displacement
    )
    wardrobe = Wardrobe(sample_clothes(np.random.default_rng(1)), None, None, False)
    out = compose(model, person, texture, picture, wardrobe, size)
    image = out.colour + (1 - out.alpha) * 0.15
    return plain_srgb(image).permute(1, 2, 0).numpy()


def main() -> None:
    """Writes a sheet: a row per age, a column per expression."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--width", type=float, default=0.185, help="width of the picture at 1 m, metres")
    parser.add_argument("--yaw", type=float, default=12.0, help="degrees")
    parser.add_argument("--texels", type=int, default=256)
    parser.add_argument("--melanin", type=float, default=-0.3)
    parser.add_argument("--smooth", action="store_true", help="without displacement")
    parser.add_argument("--ages", type=float, nargs="+", default=AGES)
    parser.add_argument("--expressions", nargs="+", default=list(EXPRESSIONS), choices=list(EXPRESSIONS))
    options = parser.parse_args()
    model = hiface.load_model("open")
    rng = np.random.default_rng(options.seed)
    person = sample_person(model, rng)
    albedo = person.albedo.clone().clamp(-1, 1)
    names = model.data.albedo_names
    for name, value in (("melanin", options.melanin), ("beard", -1.5), ("moustache", -1.5)):
        albedo[names.index(name)] = value
    short = {"kind": "crop", "flow": "forward", "length": 0.03, "volume": (0.012, 0.5), "lift": 0.5}
    hair = replace(person.hair, **short, fringe=(0.0, 0.0), wave=(0.0, 0.05), recede=0.0, crown=0.0)
    beard = replace(person.beard, kind="none", shade=0.0, length=0.0)
    person = replace(person, albedo=albedo, oiliness=0.3, hair=hair, beard=beard)
    texture = person_texture(model, person, np.random.default_rng(0))
    rows = []
    with torch.no_grad():
        for age in options.ages:
            wrinkles = sample_wrinkles(np.random.default_rng(options.seed), age)
            old = replace(person, wrinkles=wrinkles)
            faces = [
                draw(model, old, texture, _expression(model, EXPRESSIONS[name]), options)
                for name in options.expressions
            ]
            rows.append(np.concatenate(faces, axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(options.out, optimize=True, quality=88)


if __name__ == "__main__":
    main()
