# SPDX-License-Identifier: Apache-2.0
"""Frames of an overlay video, one under another: `overlay_picture.py overlay.mp4 out.jpg 20 40`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from hiface.data.video import open_video


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("frames", type=int, nargs="+")
    parser.add_argument("--width", type=int, default=960)
    options = parser.parse_args()
    with open_video(options.video) as video:
        wanted = {frame.index: frame.image_srgb for frame in video if frame.index in options.frames}
    rows = [wanted[index] for index in options.frames]
    sheet = Image.fromarray(np.concatenate(rows))
    height = round(sheet.height * options.width / sheet.width)
    sheet.resize((options.width, height), Image.Resampling.LANCZOS).save(options.picture, quality=88)


if __name__ == "__main__":
    main()
