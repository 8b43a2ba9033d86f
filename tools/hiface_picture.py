# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/hiface.jpg: what the HiFace network makes of the NASA portrait and of synthetic people.

Each row: picture, coarse shape, with static detail, with dynamic detail, with both, and the same person under
three other expressions. The portrait is the one shipped with scikit-image; the people are hold-out people.
Other photos can be named, to be looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

import hiface
from hiface.detail.sd_detail import Parts
from hiface.export.detail_pictures import face_picture, photo_panel, portrait_camera
from hiface.export.draw import grid
from hiface.result import FaceResult
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style
from hiface.synthetic.pairs import generate_views

PANEL_PX, SYNTHETIC_PX = 200, 384
FIRST_PERSON = (HOLDOUT_SEED + 4) * (SEED_STRIDE // PICTURES_PER_PERSON)
OTHERS = {
    "brows up": {"browInnerUp": 1.0, "browOuterUpLeft": 0.9, "browOuterUpRight": 0.9},
    "smile": {
        "mouthSmileLeft": 0.9,
        "mouthSmileRight": 0.9,
        "cheekSquintLeft": 0.7,
        "cheekSquintRight": 0.7,
        "eyeSquintLeft": 0.5,
        "eyeSquintRight": 0.5,
    },
    "frown": {"browDownLeft": 1.0, "browDownRight": 1.0, "noseSneerLeft": 0.6, "noseSneerRight": 0.6},
}


def row(face: FaceResult) -> list[tuple[str, Image.Image]]:
    """Panels of one face."""

    def drawn(one: FaceResult, parts: Parts, turn: torch.Tensor | None) -> Image.Image:
        camera = portrait_camera(one.model, one.params, PANEL_PX, turn)
        return face_picture(one.model, one.params, one.displacement(parts), camera)

    turn = face.camera.R
    shown: dict[str, Parts] = {"coarse": "none", "static": "static", "dynamic": "dynamic", "both": "both"}
    panels = [("picture", photo_panel(face.photo.image_srgb, face.box, PANEL_PX))]
    panels += [(title, drawn(face, parts, turn)) for title, parts in shown.items()]
    rest = face.neutral()
    return panels + [
        (t, drawn(rest.with_expression(**weights), "both", turn)) for t, weights in OTHERS.items()
    ]


def people(reconstructor: hiface.Reconstructor, count: int) -> list[FaceResult]:
    """Hold-out people, each seen from near the front."""
    faces, number = [], FIRST_PERSON
    while len(faces) < count and number < FIRST_PERSON + 20 * count:
        view = generate_views(reconstructor.model, number, Style(SYNTHETIC_PX), 1)[0]
        number += 1
        size = float((view.box[2:] - view.box[:2]).max())
        if float(view.visible68.float().mean()) < 0.85 or size < 0.35 * SYNTHETIC_PX:
            continue
        found = reconstructor.reconstruct(view.image_srgb.permute(1, 2, 0).contiguous().numpy())
        faces += found[:1]
    return faces


def main() -> None:
    """Reconstructs and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="*", help="photos to look at instead")
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--out", type=Path, default=None, help="docs/images/hiface.jpg without photos")
    args = parser.parse_args()
    if args.photos and args.out is None:
        parser.error("name the picture with --out; docs/images is for the portrait and synthetic people")
    reconstructor = hiface.Reconstructor("hiface", device="cpu", weights=args.weights, refine=args.refine)
    if args.photos:
        faces = [face for photo in args.photos for face in reconstructor.reconstruct(photo)[:1]]
    else:
        portrait = np.ascontiguousarray(data.astronaut())
        faces = reconstructor.reconstruct(portrait)[:1] + people(reconstructor, args.people)
    if not faces:
        parser.error("no face was found")
    panels = [panel for face in faces for panel in row(face)]
    grid(panels, columns=len(panels) // len(faces)).save(
        args.out or Path("docs/images/hiface.jpg"), quality=85
    )


if __name__ == "__main__":
    main()
