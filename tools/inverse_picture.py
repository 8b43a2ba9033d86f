# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/inverse_rendering.jpg: the NASA portrait of scikit-image and hold-out people, refined.

Each row: picture, coarse shape, shape with relief, skin without light, the picture in another light, the head
from another side.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path

from PIL import Image
from skimage import data

import hiface
from hiface.detail.sd_detail import Parts
from hiface.export.detail_pictures import face_picture, photo_panel, portrait_camera
from hiface.export.draw import grid
from hiface.export.pictures import to_array
from hiface.result import FaceResult
from hiface_picture import people

PANEL_PX = 240
LIGHTS = ("sunset", "left", "above", "neon")


def row(face: FaceResult, light: str) -> list[tuple[str, Image.Image]]:
    """Panels of one face."""
    camera = portrait_camera(face.model, face.params, PANEL_PX, face.camera.R)

    def clay(parts: Parts) -> Image.Image:
        return face_picture(face.model, face.params, face.displacement(parts), camera)

    texture = Image.fromarray(to_array(face.texture(1024)))
    return [
        ("picture", photo_panel(face.photo.image_srgb, face.box, PANEL_PX)),
        ("coarse", clay("none")),
        ("with relief", clay("both")),
        ("skin without light", texture.resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)),
        (f"relit: {light}", photo_panel(face.relight(light), face.box, PANEL_PX)),
        (f"from the side: {light}", face.picture(PANEL_PX, yaw=-35.0, light=light)),
    ]


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=3, help="number of synthetic people")
    parser.add_argument("--out", type=Path, default=Path("docs/images/inverse_rendering.jpg"))
    args = parser.parse_args()
    reconstructor = hiface.Reconstructor(refine=True, device="cpu")
    faces = reconstructor.reconstruct(data.astronaut())[:1] + people(reconstructor, args.people)
    panels = [panel for face, light in zip(faces, cycle(LIGHTS), strict=False) for panel in row(face, light)]
    grid(panels, 6).convert("RGB").save(args.out, quality=88)


if __name__ == "__main__":
    main()
