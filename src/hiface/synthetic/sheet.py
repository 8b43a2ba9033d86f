# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: many samples in one picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hiface.errors import OptionError, OutputError
from hiface.morphable import MorphableModel
from hiface.synthetic.datasets import DataSpec, make_samples
from hiface.synthetic.generator import PICTURES_PER_PERSON, SyntheticSample

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MAX_SAMPLES = 2000
_GAP_PX, _PAPER = 2, 255
_MOST_FRAMES = 8


def tile(pictures: Sequence[Tensor], columns: int) -> Tensor:
    """Lays pictures out in rows.

    Args:
        pictures: [3, S, S] uint8 each, of one size.
        columns: Pictures in a row.

    Returns:
        [3, H, W] uint8 with white gaps.
    """
    side = pictures[0].shape[-1] + _GAP_PX
    rows = math.ceil(len(pictures) / columns)
    sheet = torch.full((3, rows * side + _GAP_PX, columns * side + _GAP_PX), _PAPER, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * side + _GAP_PX, i % columns * side + _GAP_PX
        sheet[:, y : y + side - _GAP_PX, x : x + side - _GAP_PX] = picture
    return sheet


def depth_picture(depth: Tensor, near_m: float, far_m: float) -> Tensor:
    """[S, S] metres as a grey picture [3, S, S] uint8, near is bright, nothing is black."""
    shade = 255 - 215 * ((depth - near_m) / (far_m - near_m)).clamp(0, 1)
    return torch.where(depth > 0, shade, 0.0).to(torch.uint8).expand(3, *depth.shape)


def _row(group: list[SyntheticSample]) -> list[Tensor]:
    """What a sheet shows of one sample."""
    sample = group[0]
    if "sensor_depth" in sample.maps:
        head = float(sample.T_cam_head[2, 3])
        return [sample.image_srgb, depth_picture(sample.maps["sensor_depth"], head - 0.2, head + 0.4)]
    step = max(1, math.ceil(len(group) / _MOST_FRAMES))
    return [s.image_srgb for s in group[::step]]


def contact_sheet(model: MorphableModel, spec: DataSpec, count: int) -> Tensor:
    """A contact sheet of the first people of a data set, one sample of each.

    Args:
        model: Face model.
        spec: What to make.
        count: Number of samples. Of a clip at most 8 frames are shown, of RGB-D picture and measured depth.

    Returns:
        [3, H, W] uint8, about square.

    Raises:
        OptionError: The count is out of range.
    """
    if not 1 <= count <= MAX_SAMPLES:
        raise OptionError(f"a contact sheet has 1 to {MAX_SAMPLES} samples, got {count}")
    step = PICTURES_PER_PERSON if spec.length == 1 else 1
    rows = [_row(group) for _, group in make_samples(model, spec, range(0, count * step, step))]
    width = len(rows[0])
    columns = max(1, round(math.sqrt(count * width) / width)) * width
    return tile([picture for row in rows for picture in row], columns)


def sheet_format(path: Path) -> str:
    """Format of a contact sheet by the ending of its name.

    Raises:
        OutputError: The ending is unknown.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"cannot write a contact sheet as {path.name}; name it .png, .jpg or .webp")
    return FORMATS[path.suffix.lower()]


def write_sheet(path: Path, sheet: Tensor) -> None:
    """Writes a contact sheet; the ending chooses the format.

    Args:
        path: The file, .png, .jpg or .webp.
        sheet: [3, H, W] uint8.

    Raises:
        OutputError: The ending is unknown or the file cannot be written.
    """
    chosen = sheet_format(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())
        image.save(temporary, chosen, quality=90)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path.name} ({error}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
