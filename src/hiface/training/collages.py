# SPDX-License-Identifier: Apache-2.0
"""Training pictures of the finder: synthetic people, cut out and pasted at any size on any background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.data.crops import box_of_points
from hiface.training.augment import BackgroundBank, degrade
from hiface.training.clutter import cut_piece, erase_face, skin_shape
from hiface.training.shards import Samples, ShardSet

_GREY = 128


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
        portraits: Share of the pictures with one or two people in which all faces are large.
        faceless: Share of the people whose face is painted over or its pieces shuffled.
        clutter: Share of pictures with pieces of people and skin-coloured shapes, behind and in front.
        margin: Share of pictures that lie on a plain grey canvas.
        min_visible: A face of which less can be seen is neither a face nor background.
        min_points: Nor is one that shows a lesser share of its 68 points in its own picture, behind a hand,
            say (a profile shows half of them).
        min_kept: Nor is one of whose contrast less is left, see `face_contrast_kept`.
    """

    size: int = 192
    max_people: int = 7
    min_face_px: float = 11.0
    max_face_px: float = 160.0
    empty: float = 0.1
    whole: float = 0.25
    portraits: float = 0.6
    faceless: float = 0.15
    clutter: float = 0.5
    margin: float = 0.2
    min_visible: float = 0.35
    min_points: float = 0.25
    min_kept: float = 0.7


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
    """A canvas [3, S, S] uint8 on which people are pasted from back to front."""

    def __init__(self, canvas: Tensor) -> None:
        self.canvas = canvas
        self.size = canvas.shape[-1]
        self.boxes: list[Tensor] = []
        self.clear: list[bool] = []  # whether enough of each face can be seen in its own picture
        self.hidden: list[Tensor] = []  # 16 x 16 opacity above each face's box

    def paste(
        self, tile: Tensor, scale: float, corner: tuple[int, int], box: Tensor | None, clear: bool = True
    ) -> None:
        """Pastes [4, h, w] uint8 colour and alpha, scaled, its top-left corner at `corner` (x, y)."""
        h, w = (max(2, round(side * scale)) for side in tile.shape[1:])
        x0, y0 = max(corner[0], 0), max(corner[1], 0)
        x1, y1 = min(corner[0] + w, self.size), min(corner[1] + h, self.size)
        if x1 <= x0 or y1 <= y0:
            return
        resized = F.interpolate(tile[None], size=(h, w), mode="bilinear", antialias=True)[0]
        part = resized[:, y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]].float()
        alpha = part[3].div_(255.0)
        target = self.canvas[:, y0:y1, x0:x1]
        target.copy_(torch.lerp(target.float(), part[:3], alpha))
        for i, other in enumerate(self.boxes):
            self.hidden[i] = torch.maximum(self.hidden[i], _opacity_over(other, alpha, x0, y0))
        if box is not None:
            scaled = box * torch.tensor([w / tile.shape[2], h / tile.shape[1]]).repeat(2)
            self.boxes.append(scaled + torch.tensor([corner[0], corner[1]]).repeat(2))
            self.clear.append(clear)
            xs, ys = _cell_centres(box)
            inside = ((ys >= 0) & (ys < tile.shape[1]))[:, None] & ((xs >= 0) & (xs < tile.shape[2]))[None]
            self.hidden.append(1.0 - inside.float())

    def visible(self, i: int) -> float:
        """Share of a face's box that lies in the picture and under nothing."""
        xs, ys = _cell_centres(self.boxes[i])
        inside = ((ys >= 0) & (ys < self.size))[:, None] & ((xs >= 0) & (xs < self.size))[None]
        return float((inside * (1 - self.hidden[i])).mean())


def make_collages(
    rng: np.random.Generator, data: ShardSet, count: int, config: CollageConfig, backgrounds: BackgroundBank
) -> CollageBatch:
    """A batch of pictures with boxes, as a camera would have taken them.

    Args:
        rng: All randomness comes from here.
        data: Synthetic people.
        count: Number of pictures.
        config: What the pictures hold.
        backgrounds: What lies behind them, of the pictures' size.

    Returns:
        The batch.
    """
    return photograph(rng, compose_collages(rng, data, count, config, backgrounds), config)


def compose_collages(
    rng: np.random.Generator, data: ShardSet, count: int, config: CollageConfig, backgrounds: BackgroundBank
) -> CollageBatch:
    """A batch of clean pictures with boxes; arguments as those of `make_collages`."""
    gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
    behind = backgrounds.draw_bytes(gen, count)
    images, boxes, kinds = [], [], []
    for i in range(count):
        picture = _Picture(behind[i])
        mood, cluttered = rng.random(), rng.random() < config.clutter
        if cluttered:
            _clutter(rng, picture, data.draw(rng, 2, segmentation=False))
        if mood < config.whole:
            _whole(rng, picture, data.draw(rng, 1), config)
        elif mood < 1 - config.empty:
            _people(rng, picture, data.draw(rng, _people_count(rng, config)), config)
        else:
            _people(rng, picture, data.draw(rng, int(rng.integers(1, 4))), config, faceless=1.0)
        if cluttered and rng.random() < 0.5:
            _clutter(rng, picture, data.draw(rng, 1, segmentation=False))
        seen = [clear and picture.visible(j) >= config.min_visible for j, clear in enumerate(picture.clear)]
        kind = [1.0 if face else -1.0 for face in seen]
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
    return CollageBatch(torch.stack(images).float().div_(255.0), padded, kind_map)


def photograph(rng: np.random.Generator, clean: CollageBatch, config: CollageConfig) -> CollageBatch:
    """Degrades clean pictures; a face of which too little is left then is neither face nor background."""
    gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
    images = degrade(gen, clean.images)
    lost = face_contrast_kept(clean.images, images, clean.boxes) < config.min_kept
    return CollageBatch(images, clean.boxes, torch.where(lost & (clean.kind > 0), -1.0, clean.kind))


def flip_collages(batch: CollageBatch) -> CollageBatch:
    """The same pictures in a mirror."""
    size = batch.images.shape[-1]
    x0, y0, x1, y1 = batch.boxes.unbind(dim=-1)
    return CollageBatch(
        batch.images.flip(-1), torch.stack([size - x1, y0, size - x0, y1], dim=-1), batch.kind
    )


def face_contrast_kept(before: Tensor, after: Tensor, boxes: Tensor) -> Tensor:
    """How much of the faces' light and dark survives blur, noise and compression.

    Args:
        before: [B, 3, S, S] 0..1.
        after: [B, 3, S, S] the same pictures, degraded.
        boxes: [B, N, 4] pixels.

    Returns:
        [B, N] correlation of the luminances at 8 x 8 cells of each box; 0 where hardly any contrast is left.
    """
    size, (batch, count) = before.shape[-1], boxes.shape[:2]
    ticks = (torch.arange(16) + 0.5) / 16
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    low, side = boxes[..., None, None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, None, :]
    grid = ((low + side * torch.stack([x, y], dim=-1)) * (2.0 / size) - 1.0).reshape(batch, -1, 16, 2)
    cells = []
    for images in (before, after):
        seen = F.grid_sample(
            images.mean(dim=1, keepdim=True), grid, padding_mode="border", align_corners=False
        )
        pooled = F.avg_pool2d(seen.reshape(-1, 1, 16, 16), 2).reshape(batch, count, 64)
        cells.append(pooled - pooled.mean(dim=-1, keepdim=True))
    power = [c.square().mean(dim=-1) for c in cells]
    kept = (cells[0] * cells[1]).mean(dim=-1) / (power[0] * power[1]).sqrt().clamp_min(1e-8)
    return torch.where(power[1] > 0.01**2, kept, 0.0)


def _people_count(rng: np.random.Generator, config: CollageConfig) -> int:
    return int(min(config.max_people, rng.geometric(0.3)))


def _tile(rng: np.random.Generator, samples: Samples, i: int, faceless: bool) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha [4, S, S] uint8, mirrored at random, and the face's box; None without a face."""
    tile = samples.images[i]
    box: Tensor | None = box_of_points(samples.points_px[i, :68])
    if faceless:
        erase_face(rng, tile, samples.segmentation[i], box)
        box = None
    if rng.random() < 0.5:
        tile, size = tile.flip(-1), tile.shape[-1]
        box = None if box is None else torch.stack([size - box[2], box[1], size - box[0], box[3]])
    return tile, box


def _clutter(rng: np.random.Generator, picture: _Picture, samples: Samples) -> None:
    """Pastes pieces of people and skin-coloured shapes."""
    for i in range(len(samples.images)):
        for _ in range(int(rng.integers(1, 4))):
            box = box_of_points(samples.points_px[i, :68])
            tile = skin_shape(rng) if rng.random() < 0.3 else cut_piece(rng, samples.images[i], box)
            if tile is None:
                continue
            side = math.exp(rng.uniform(math.log(10.0), math.log(0.45 * picture.size)))
            place = rng.uniform(-0.1, 1.0, 2) * picture.size
            picture.paste(tile, side / max(tile.shape[1:]), (int(place[0]), int(place[1])), None)


def _people(
    rng: np.random.Generator,
    picture: _Picture,
    samples: Samples,
    config: CollageConfig,
    faceless: float | None = None,
) -> None:
    """Pastes people, the small ones first."""
    wanted = _face_sizes(rng, len(samples.images), config)
    share = config.faceless if faceless is None else faceless
    for i in np.argsort(wanted):
        tile, box = _tile(rng, samples, int(i), rng.random() < share)
        tile[3] = (tile[3].float() * _soft_edge(tile.shape[-1])).byte()
        true = box_of_points(samples.points_px[int(i), :68])
        scale = wanted[int(i)] / float((true[2:] - true[:2]).max())
        centre = 0.5 * (true[:2] + true[2:]) * scale
        place = rng.uniform(-0.02, 1.02, 2) * picture.size
        corner = (int(place[0] - float(centre[0])), int(place[1] - float(centre[1])))
        picture.paste(tile, scale, corner, box, _is_clear(samples, int(i), config))


def _is_clear(samples: Samples, i: int, config: CollageConfig) -> bool:
    return float(samples.visible[i, :68].float().mean()) >= config.min_points


def _face_sizes(rng: np.random.Generator, count: int, config: CollageConfig) -> list[float]:
    """Longer sides of the faces' boxes: one or two large ones, a crowd of about one size, or any."""
    least, top = config.min_face_px, config.max_face_px / math.sqrt(max(1, count))
    kind = rng.random()
    if count <= 2 and kind < config.portraits:
        least = max(least, 0.25 * top)
    elif count > 2 and kind < 0.5:
        middle = math.exp(rng.uniform(math.log(least), math.log(max(0.6 * top, least + 1.0))))
        return [min(top, max(least, middle * math.exp(rng.normal(0, 0.15)))) for _ in range(count)]
    return [math.exp(rng.uniform(math.log(least), math.log(top))) for _ in range(count)]


def _whole(rng: np.random.Generator, picture: _Picture, samples: Samples, config: CollageConfig) -> None:
    """One synthetic picture, cut or enlarged so that it covers the canvas."""
    tile, box = _tile(rng, samples, 0, rng.random() < config.faceless)
    tile[3] = 255
    least = picture.size / tile.shape[-1]
    scale = least * math.exp(rng.uniform(0.0, 0.7))
    room = max(0, round(tile.shape[-1] * scale) - picture.size)
    corner = (-int(rng.integers(0, room + 1)), -int(rng.integers(0, room + 1)))
    picture.paste(tile, scale, corner, box, _is_clear(samples, 0, config))


def _grey_margin(rng: np.random.Generator, picture: _Picture, kind: list[float]) -> None:
    """Greys everything outside a rectangle; faces of which too little is left lose their kind."""
    size = picture.size
    low = rng.uniform(0.0, 0.35, 2) * (rng.random(2) < 0.7) * size
    high = size - rng.uniform(0.0, 0.35, 2) * (rng.random(2) < 0.7) * size
    x0, y0, x1, y1 = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    kept = picture.canvas[:, y0:y1, x0:x1].clone()
    picture.canvas.fill_(_GREY if rng.random() < 0.8 else int(rng.integers(256)))
    picture.canvas[:, y0:y1, x0:x1] = kept
    for i, box in enumerate(picture.boxes):
        width = (box[2:] - box[:2]).clamp_min(1.0)
        part = torch.minimum(box[2:], box.new_tensor([x1, y1])) - torch.maximum(
            box[:2], box.new_tensor([x0, y0])
        )
        share = float((part.clamp_min(0) / width).prod())
        if share < 0.45:
            kind[i] = -1.0 if share > 0.05 else 0.0


@lru_cache(maxsize=4)
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
