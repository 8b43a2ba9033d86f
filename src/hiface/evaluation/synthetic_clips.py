# SPDX-License-Identifier: Apache-2.0
"""Clips of people who do not exist, in the layout that tracking is measured on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError, OptionError
from hiface.export.pictures import pil_png
from hiface.synthetic.clips import generate_clip
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, open_model
from hiface.synthetic.generator import GENERATOR_VERSION, Style

DEFAULT_FRAMES, DEFAULT_SIZE_PX = 24, 320
_FIRST = (HOLDOUT_SEED + 9) * SEED_STRIDE
_PER_SEED = 10_000


def write_clips(
    folder: Path,
    clips: int,
    seed: int = 0,
    frames: int = DEFAULT_FRAMES,
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Makes the clips that are not there yet; each has a person of its own.

    Args:
        folder: Where to; <clip>/<frame>.png and .pts.
        clips: Number of clips.
        seed: Other seeds show other people.
        frames: Length of a clip.
        advance: Called with the name of a clip when it is there.

    Raises:
        OptionError: Numbers out of range.
        EvaluationDataError: The folder holds clips of another length or generator, or more of them.
        OutputError: The folder cannot be written.
    """
    if not 1 <= clips <= _PER_SEED or seed < 0 or frames < 3:
        raise OptionError(f"1 to {_PER_SEED} clips of 3 frames or more, with a seed of 0 or more")
    style = Style(DEFAULT_SIZE_PX)
    names = [f"s{seed}-{index + 1:04d}" for index in range(clips)]
    others = sorted({path.parent.name for path in folder.glob("s*-*/done")} - set(names))
    if others:
        raise EvaluationDataError(f"{folder} has {others[0]} too, which would count; choose another folder")
    for index, name in enumerate(names):
        about = f"generator {GENERATOR_VERSION}, {frames} frames of {DEFAULT_SIZE_PX} px\n"
        done = folder / name / "done"
        before = done.read_text(encoding="utf-8") if done.is_file() else about
        if before != about:
            raise EvaluationDataError(
                f"{folder / name} is of {before.strip()}; asked for {about.strip()}; choose another folder"
            )
        if not done.is_file():
            number = _FIRST + 3 * (_PER_SEED * seed + index)
            for i, frame in enumerate(generate_clip(open_model(), number, style, frames)):
                picture = Image.fromarray(frame.image_srgb.permute(1, 2, 0).numpy())
                atomic_write_bytes(folder / name / f"{i:04d}.png", pil_png(picture))
                atomic_write_text(folder / name / f"{i:04d}.pts", pts_text(frame.landmarks68_px))
            atomic_write_text(done, about)
        advance(name)


def pts_text(points_px: Tensor) -> str:
    """Landmarks [68, 2] as a .pts file, which counts pixels from 1 at their centres."""
    rows = "\n".join(f"{x + 0.5:.3f} {y + 0.5:.3f}" for x, y in points_px.tolist())
    return f"version: 1\nn_points: {len(points_px)}\n{{\n{rows}\n}}\n"
