# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/overview.jpg, the README's picture, from the NASA portrait shipped with scikit-image."""

from __future__ import annotations

import argparse
from pathlib import Path

from skimage import data

import hiface
from hiface.export.overview import overview


def main() -> None:
    """Reconstructs the portrait and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/overview.jpg"))
    args = parser.parse_args()
    face = hiface.Reconstructor(device="cpu").reconstruct(data.astronaut())[0]
    maps = face.texture(1024), face.displacement()
    sheet = overview(face.model, face.fitted, face.photo.image_srgb, face.landmarks(), *maps, panel_px=300)
    sheet.convert("RGB").save(args.out, quality=88)


if __name__ == "__main__":
    main()
