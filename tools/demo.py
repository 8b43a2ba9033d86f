# SPDX-License-Identifier: Apache-2.0
"""The demo of the README: reconstructs the NASA portrait shipped with scikit-image, or a photo of yours."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

from hiface.cli.main import main as hiface_main


def nasa_portrait(folder: Path) -> Path:
    """Writes the public-domain portrait of astronaut Eileen Collins (NASA) as a PNG."""
    from skimage import data

    path = folder / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def main() -> None:
    """Runs `hiface reconstruct` and names the files to open."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="a photo of your own")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = args.photo or nasa_portrait(Path(folder))
        print(f"hiface reconstruct {photo.name} -o {args.out}", flush=True)
        try:
            hiface_main(["reconstruct", str(photo), "-o", str(args.out)])
        except SystemExit as stop:
            if stop.code:
                raise
    person = args.out / photo.stem / "person1"
    print("\nOpen these:")
    print(f"  {person / 'overview.png'}  how well the face fits the photo")
    print(f"  {person / 'face.glb'}      the animated face, for Blender (File > Import > glTF 2.0)")
    print(f"  {person / 'face.json'}     coefficients, camera and landmarks")
    sys.exit(0)


if __name__ == "__main__":
    main()
