# SPDX-License-Identifier: Apache-2.0
"""Draws what faces do: ``python tools/draw_expressions.py docs/images/expressions.jpg``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import hiface
from hiface.morphable import MorphableModel
from hiface.synthetic.cameras import View, frame_camera, head_rotation
from hiface.synthetic.effects import parse_effects
from hiface.synthetic.expressions import Gaze, Plan, express, mix_groups, mix_names
from hiface.synthetic.generator import Style, take_picture
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.sheet import tile
from hiface.synthetic.shots import Act, draw_shot, limit_act, make_picture, pose_person, sitter_of

EYES = ("closed", "half_closed", "wink")


def _light() -> Surroundings:
    direction = np.array([[-0.45, -0.5, -0.74]], dtype=np.float32)
    return Surroundings(
        ambient=np.full(3, 0.42, np.float32),
        gradient=np.array([[0.10, 0.10, 0.10], [0.02, 0.02, 0.02]], np.float32),
        lobe_directions=direction / np.linalg.norm(direction),
        lobe_colours=np.array([[3.2, 3.1, 3.0]], np.float32) * 1.2,
        lobe_sharpness=np.array([5.0], np.float32),
    )


def draw(model: MorphableModel, plan: Plan, person: int, options: argparse.Namespace) -> Tensor:
    """One face [3, size, size] uint8, straight from the front."""
    effects = parse_effects("all,-hair,-glasses,-hats,-occluders,-background,-camera")
    style = Style(options.size, effects)
    sitter = sitter_of(model, options.seed + person, effects)
    rng = np.random.default_rng([options.seed, person])
    shot = draw_shot(model, sitter, rng, options.size, effects)
    act = Act(express(plan, model.data.expression_names, rng), Gaze((-0.02, 0.02), 0.0), np.zeros((2, 3)))
    if not options.free:
        act = limit_act(model, sitter.person, act)
    R = torch.from_numpy(head_rotation(np.radians(options.yaw), 0.0, 0.0)).float()
    still = np.zeros(3, np.float32)
    view = View(R, 1.0, (0.0, 0.0), options.share, (0.5, 0.56), still, act.neck_bend)
    posed = pose_person(model, sitter.person, act)
    camera = frame_camera(view, model.landmarks("ibug68", posed.vertices), posed.T_head, options.size)
    picture = make_picture(model, sitter, act, posed, camera, still, _light())
    shot = replace(shot, act=act, view=view, picture=picture)
    return take_picture(model, shot, rng, style, person).sample.image_srgb


def plans(wanted: list[str]) -> list[Plan]:
    """One plan per mix of the wanted groups; kinds of eyes on neutral faces."""
    out = []
    for group in wanted:
        if group in EYES:
            out.append(Plan("neutral", (), group))
        out += [Plan(group, (name,), "rest") for name in mix_names(group)]
    return out


def main() -> None:
    """Writes a sheet: a cell per mix with several people side by side, named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", nargs="+", default=[*mix_groups()[1:], *EYES])
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--yaw", type=float, default=0.0, help="degrees")
    parser.add_argument("--share", type=float, default=0.72, help="of the picture that the face fills")
    parser.add_argument("--free", action="store_true", help="without physical limits")
    options = parser.parse_args()
    model = hiface.load_model("open")
    faces, names = [], []
    with torch.no_grad():
        for i, plan in enumerate(plans(options.groups)):
            for person in range(options.people):
                who = person if options.people > 1 else i
                faces.append(draw(model, plan, who, options))
                names.append(plan.mixes[0] if plan.mixes else plan.eyes)
    sheet = Image.fromarray(tile(faces, options.columns).permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        y, x = (n * (options.size + 2) + 4 for n in divmod(i, options.columns))
        pen.text((x, y), name.removeprefix("viseme_"), fill=(255, 240, 120))
    sheet.save(options.out, optimize=True, quality=88)


if __name__ == "__main__":
    main()
