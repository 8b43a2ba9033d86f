# SPDX-License-Identifier: Apache-2.0
"""Training pictures of the finder: synthetic people, cut out and pasted at any size on any background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.data.crops import box_of_points
from hiface.training.augment import BackgroundBank, degrade
from hiface.training.shards import Samples, ShardSet

FACE_LABELS = (1, 2, 3)  # skin, eyes, mouth interior in the shards' segmentation


@dataclass(frozen=True)
class CollageConfig:
    """What the finder's pictures hold.

    Attributes:
        size: Side, pixels.
        max_people: Most people in a picture.
        min_face_px: Smallest longer side of a face's box.
        max_face_px: Largest.
        empty: Share of pictures without a face.
        whole: Share of pictures that are one synthetic picture, background and all.
        faceless: Share of the people whose face is painted over.
        margin: Share of pictures that lie on a plain grey canvas.
        min_visible: A face of which less can be seen is neither a face nor background.
    """

    size: int = 256
    max_people: int = 7
    min_face_px: float = 11.0
    max_face_px: float = 230.0
    empty: float = 0.07
    whole: float = 0.25
    faceless: float = 0.12
    margin: float = 0.2
    min_visible: float = 0.35


@dataclass(frozen=True)
class CollageBatch:
    """Pictures and their faces.

    Attributes:
        images: [B, 3, S, S] sRGB 0..1.
        boxes: [B, N, 4] pixels, padded with zeros; boxes may reach beyond the picture.
        kind: [B, N] 1 a face, -1 neither face nor background, 0 padding.
    """

    images: Tensor
    boxes: Tensor
    kind: Tensor


class _Picture:
    """A canvas on which people are pasted from back to front."""

    def __init__(self, canvas: Tensor) -> None:
        self.canvas = canvas
        self.size = canvas.shape[-1]
        self.boxes: list[Tensor] = []
        self.hidden: list[Tensor] = []  # 16 x 16 opacity above each face's box

    def paste(self, tile: Tensor, scale: float, corner: tuple[int, int], box: Tensor | None) -> None:
        """Pastes [4, h, w] colour and alpha scaled by `scale`, its top-left corner at `corner` (x, y)."""
        h, w = (max(2, round(side * scale)) for side in tile.shape[1:])
        x0, y0 = max(corner[0], 0), max(corner[1], 0)
        x1, y1 = min(corner[0] + w, self.size), min(corner[1] + h, self.size)
        if x1 <= x0 or y1 <= y0:
            return
        resized = F.interpolate(tile[None], size=(h, w), mode="bilinear", antialias=scale < 1)[0]
        part = resized[:, y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
        alpha = part[3:]
        target = self.canvas[:, y0:y1, x0:x1]
        target.mul_(1 - alpha).add_(part[:3] * alpha)
        for i, other in enumerate(self.boxes):
            self.hidden[i] = torch.maximum(self.hidden[i], _opacity_over(other, alpha[0], x0, y0))
        if box is not None:
            scaled = box * torch.tensor([w / tile.shape[2], h / tile.shape[1]]).repeat(2)
            self.boxes.append(scaled + torch.tensor([corner[0], corner[1]]).repeat(2))
            self.hidden.append(torch.zeros(16, 16))

    def visible(self, i: int) -> float:
        """Share of a face's box that lies in the picture and under nothing."""
        xs, ys = _cell_centres(self.boxes[i])
        inside = ((ys >= 0) & (ys < self.size))[:, None] & ((xs >= 0) & (xs < self.size))[None]
        return float((inside * (1 - self.hidden[i])).mean())


def make_collages(
    rng: np.random.Generator, data: ShardSet, count: int, config: CollageConfig, backgrounds: BackgroundBank
) -> CollageBatch:
    """A batch of pictures with boxes.

    Args:
        rng: All randomness comes from here.
        data: Synthetic people.
        count: Number of pictures.
        config: What the pictures hold.
        backgrounds: What lies behind them, of the pictures' size.

    Returns:
        The batch.
    """
    gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
    behind = backgrounds.draw(gen, count)
    images, boxes, kinds = [], [], []
    for i in range(count):
        picture = _Picture(behind[i].clone())
        mood = rng.random()
        if mood < config.whole:
            _whole(rng, picture, data.draw(rng, 1), config)
        elif mood < 1 - config.empty:
            _people(rng, picture, data.draw(rng, _people_count(rng, config)), config)
        else:
            _people(rng, picture, data.draw(rng, int(rng.integers(1, 4))), config, faceless=1.0)
        kind = [1.0 if picture.visible(j) >= config.min_visible else -1.0 for j in range(len(picture.boxes))]
        if rng.random() < config.margin:
            _grey_margin(rng, picture, kind)
        images.append(picture.canvas)
        boxes.append(picture.boxes)
        kinds.append(kind)
    width = max(1, *(len(b) for b in boxes))
    padded, kind_map = torch.zeros(count, width, 4), torch.zeros(count, width)
    for i, (b, k) in enumerate(zip(boxes, kinds, strict=True)):
        if b:
            padded[i, : len(b)], kind_map[i, : len(b)] = torch.stack(b), torch.tensor(k)
    return CollageBatch(degrade(gen, torch.stack(images)), padded, kind_map)


def _people_count(rng: np.random.Generator, config: CollageConfig) -> int:
    return int(min(config.max_people, 1 + rng.geometric(0.4) - 1))


def _tile(rng: np.random.Generator, samples: Samples, i: int, faceless: bool) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha [4, S, S], mirrored at random, and the face's box; None where it is painted over."""
    tile = samples.images[i].float() / 255.0
    box: Tensor | None = box_of_points(samples.points_px[i, :68])
    if faceless:
        label = samples.segmentation[i]
        face = (label == FACE_LABELS[0]) | (label == FACE_LABELS[1]) | (label == FACE_LABELS[2])
        colour = torch.tensor(rng.random(3), dtype=tile.dtype)
        mean = (tile[:3] * face).sum(dim=(1, 2)) / face.sum().clamp_min(1)
        paint = colour if rng.random() < 0.4 else mean
        tile[:3] = torch.where(face, paint[:, None, None], tile[:3])
        box = None
    if rng.random() < 0.5:
        tile, size = tile.flip(-1), tile.shape[-1]
        box = None if box is None else torch.stack([size - box[2], box[1], size - box[0], box[3]])
    return tile, box


def _people(
    rng: np.random.Generator,
    picture: _Picture,
    samples: Samples,
    config: CollageConfig,
    faceless: float | None = None,
) -> None:
    """Pastes people, the small ones first."""
    count = len(samples.images)
    crowd = math.exp(rng.uniform(math.log(config.min_face_px), math.log(120.0)))
    top = config.max_face_px / math.sqrt(max(1, count))
    wanted = [math.exp(rng.uniform(math.log(config.min_face_px), math.log(top))) for _ in range(count)]
    if count > 2 and rng.random() < 0.5:
        wanted = [
            min(top, max(config.min_face_px, crowd * math.exp(rng.normal(0, 0.15)))) for _ in range(count)
        ]
    share = config.faceless if faceless is None else faceless
    for i in np.argsort(wanted):
        tile, box = _tile(rng, samples, int(i), rng.random() < share)
        tile[3] *= _soft_edge(tile.shape[-1])
        true = box_of_points(samples.points_px[int(i), :68])
        scale = wanted[int(i)] / float((true[2:] - true[:2]).max())
        centre = 0.5 * (true[:2] + true[2:]) * scale
        place = rng.uniform(-0.02, 1.02, 2) * picture.size
        corner = (int(place[0] - float(centre[0])), int(place[1] - float(centre[1])))
        picture.paste(tile, scale, corner, box)


def _whole(rng: np.random.Generator, picture: _Picture, samples: Samples, config: CollageConfig) -> None:
    """One synthetic picture, cut or enlarged so that it covers the canvas."""
    tile, box = _tile(rng, samples, 0, rng.random() < config.faceless)
    tile[3] = 1.0
    least = picture.size / tile.shape[-1]
    scale = least * math.exp(rng.uniform(0.0, 0.7))
    room = max(0, round(tile.shape[-1] * scale) - picture.size)
    corner = (-int(rng.integers(0, room + 1)), -int(rng.integers(0, room + 1)))
    picture.paste(tile, scale, corner, box)


def _grey_margin(rng: np.random.Generator, picture: _Picture, kind: list[float]) -> None:
    """Greys everything outside a rectangle; faces of which too little is left lose their kind."""
    size = picture.size
    low = rng.uniform(0.0, 0.35, 2) * (rng.random(2) < 0.7) * size
    high = size - rng.uniform(0.0, 0.35, 2) * (rng.random(2) < 0.7) * size
    x0, y0, x1, y1 = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    kept = picture.canvas[:, y0:y1, x0:x1].clone()
    picture.canvas.fill_(128 / 255.0 if rng.random() < 0.8 else float(rng.random()))
    picture.canvas[:, y0:y1, x0:x1] = kept
    for i, box in enumerate(picture.boxes):
        width = (box[2:] - box[:2]).clamp_min(1.0)
        part = torch.minimum(box[2:], box.new_tensor([x1, y1])) - torch.maximum(
            box[:2], box.new_tensor([x0, y0])
        )
        share = float((part.clamp_min(0) / width).prod())
        if share < 0.45:
            kind[i] = -1.0 if share > 0.05 else 0.0


def _soft_edge(size: int, px: float = 5.0) -> Tensor:
    """[size, size] 1 inside, falling to 0 at the left, right and bottom edge of a tile."""
    ticks = torch.arange(size) + 0.5
    side = (torch.minimum(ticks, size - ticks) / px).clamp(0, 1)
    bottom = ((size - ticks) / px).clamp(0, 1)
    return bottom[:, None] * side[None]


def _cell_centres(box: Tensor) -> tuple[Tensor, Tensor]:
    ticks = (torch.arange(16) + 0.5) / 16
    return box[0] + ticks * (box[2] - box[0]), box[1] + ticks * (box[3] - box[1])


def _opacity_over(box: Tensor, alpha: Tensor, x0: int, y0: int) -> Tensor:
    """Opacity of a pasted piece at the 16 x 16 cells of another face's box."""
    xs, ys = _cell_centres(box)
    h, w = alpha.shape
    columns, rows = (xs - x0).long(), (ys - y0).long()
    inside = ((rows >= 0) & (rows < h))[:, None] & ((columns >= 0) & (columns < w))[None]
    return alpha[rows.clamp(0, h - 1)][:, columns.clamp(0, w - 1)] * inside
