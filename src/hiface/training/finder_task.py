# SPDX-License-Identifier: Apache-2.0
"""Trains the finder on collages: which places answer for which face, loss, validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hiface.losses.box_losses import iou_and_giou, quality_focal
from hiface.networks.boxes import decode_maps, iou_matrix, suppress
from hiface.networks.finder import FinderConfig, build_finder, decode, place_grid
from hiface.training.augment import BackgroundBank
from hiface.training.collages import (
    CollageBatch,
    CollageConfig,
    compose_collages,
    flip_collages,
    make_collages,
    photograph,
)
from hiface.training.loop import Network
from hiface.training.shards import ShardSet


@dataclass(frozen=True)
class FinderRecipe:
    """Data and loss of the finder.

    Attributes:
        batch_size: Pictures a step.
        uses: Steps that use the same collages, each degraded anew and every second one mirrored.
        network: Sizes.
        collage: What the pictures hold.
        level_px: Range of the longer side of the boxes that each level answers for, pixels.
        radius: A place answers for a face if it is nearer to its centre than this many strides in x and y.
        box_weight: Weight of the boxes' loss.
        backgrounds: Number of procedural backgrounds.
        refresh_every: Steps between looks for new shards.
        seed: Of weights and batches.
    """

    batch_size: int = 16
    uses: int = 2
    network: FinderConfig = field(default_factory=FinderConfig)
    collage: CollageConfig = field(default_factory=CollageConfig)
    level_px: tuple[tuple[float, float], ...] = ((0.0, 42.0), (34.0, 96.0), (80.0, 1e9))
    radius: float = 1.1
    box_weight: float = 1.5
    backgrounds: int = 512
    refresh_every: int = 500
    seed: int = 0


class FinderTask:
    """Batches, loss and validation of the finder.

    Args:
        recipe: Data and loss.
        folders: Folders of synthetic shards.
    """

    def __init__(self, recipe: FinderRecipe, folders: tuple[Path, ...]) -> None:
        self.recipe = recipe
        self.data = ShardSet(folders)
        self.held = ShardSet(folders, validation=True)
        torch.manual_seed(recipe.seed)
        self.network: nn.Module = build_finder(recipe.network)
        self.backgrounds = BackgroundBank(recipe.backgrounds, recipe.collage.size, recipe.seed)
        self._held_batches: list[CollageBatch] = []
        self._clean: tuple[int, CollageBatch] | None = None

    def batch(self, step: int) -> CollageBatch:
        """Batch number `step`."""
        if step % self.recipe.refresh_every == 0:
            self.data.refresh()
        recipe = self.recipe
        number, repeat = divmod(step, recipe.uses)
        if self._clean is None or self._clean[0] != number:
            rng = np.random.default_rng((recipe.seed, number))
            collages = compose_collages(rng, self.data, recipe.batch_size, recipe.collage, self.backgrounds)
            self._clean = number, collages
        clean = self._clean[1]
        rng = np.random.default_rng((recipe.seed, step, 1))
        return photograph(rng, flip_collages(clean) if repeat % 2 else clean, recipe.collage)

    def loss(self, network: Network, batch: CollageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Quality focal loss of all places, GIoU loss of those that answer for a face.

        The score is trained towards the square root of the IoU: small faces, whose boxes are rarely exact,
        keep a score that tells them from the background.
        """
        maps = network(batch.images.contiguous(memory_format=torch.channels_last))
        strides = self.recipe.network.strides
        logits, boxes = decode(maps, strides)
        centres = torch.cat(
            [place_grid(m.shape[-2], m.shape[-1], s, m) for m, s in zip(maps, strides, strict=True)]
        )
        level = torch.cat([torch.full((m.shape[-2] * m.shape[-1],), i) for i, m in enumerate(maps)]).to(
            logits.device
        )
        owner, ignored = assign(centres, level, batch.boxes, batch.kind, self.recipe)
        picture, place = (owner >= 0).nonzero(as_tuple=True)
        truth = batch.boxes[picture, owner[picture, place]]
        iou, giou = iou_and_giou(boxes[picture, place], truth)
        targets = torch.zeros_like(logits)
        targets[picture, place] = iou.detach().clamp(0.05, 1.0).sqrt()
        count = max(1, len(picture))
        score = (quality_focal(logits, targets) * (~ignored)).sum() / count
        size = (1.0 - giou).sum() / count
        mean_iou = iou.detach().sum() / count
        return score + self.recipe.box_weight * size, {
            "score": score.detach(),
            "box": size.detach(),
            "iou": mean_iou,
        }

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Recall and false boxes per picture at score 0.4, and recall at 0.2, on held persons."""
        if not self._held_batches:
            rng, collage = np.random.default_rng(7), self.recipe.collage
            self._held_batches = [
                make_collages(rng, self.held, 16, collage, self.backgrounds) for _ in range(6)
            ]
        device = next(network.parameters()).device
        found = {0.2: 0, 0.4: 0}
        faces, false, pictures = 0, 0, 0
        with torch.inference_mode():
            for batch in self._held_batches:
                maps = tuple(m.cpu().numpy() for m in network(batch.images.to(device)))
                for i in range(len(batch.images)):
                    truth = batch.boxes[i].numpy()
                    kind = batch.kind[i].numpy()
                    one = tuple(m[i : i + 1] for m in maps)
                    boxes, scores = decode_maps(one, self.recipe.network.strides, 0.2)
                    kept = suppress(boxes, scores, 0.45)
                    overlap = iou_matrix(truth, boxes[kept]) if len(kept) else np.zeros((len(truth), 1))
                    strong = scores[kept] >= 0.4 if len(kept) else np.zeros(1, bool)
                    found[0.2] += int(((overlap > 0.5).any(axis=1) & (kind > 0)).sum())
                    found[0.4] += int((((overlap > 0.5) & strong).any(axis=1) & (kind > 0)).sum())
                    false += int((strong & ~((overlap > 0.3) & (kind != 0)[:, None]).any(axis=0)).sum())
                    faces, pictures = faces + int((kind > 0).sum()), pictures + 1
        return {
            "recall_at_0.4": round(found[0.4] / max(1, faces), 4),
            "recall_at_0.2": round(found[0.2] / max(1, faces), 4),
            "false_per_picture": round(false / max(1, pictures), 4),
        }


def assign(
    centres: Tensor, level: Tensor, boxes: Tensor, kind: Tensor, recipe: FinderRecipe
) -> tuple[Tensor, Tensor]:
    """Which place answers for which face.

    Args:
        centres: [A, 2] pixels of the places.
        level: [A] int64 level of each place.
        boxes: [B, N, 4] pixels.
        kind: [B, N] 1 a face, -1 neither face nor background, 0 padding.
        recipe: Ranges and radius.

    Returns:
        owner [B, A] int64, the number of the face or -1; ignored [B, A] bool, places without a score loss.
        Those are places of a fitting level around the middle of a face; the middle of a large face is
        background to the levels of small faces, which else see faces in its eyes and mouth.
    """
    size = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    middle = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    offset = (centres[None, :, None] - middle[:, None]).abs().amax(dim=-1)  # [B, A, N]
    stride = centres.new_tensor(recipe.network.strides)[level]
    low = centres.new_tensor([r[0] for r in recipe.level_px])[level]
    high = centres.new_tensor([r[1] for r in recipe.level_px])[level]
    fits = (size[:, None] >= low[:, None]) & (size[:, None] < high[:, None])
    near = offset <= torch.maximum((recipe.radius * stride)[:, None], 0.08 * size[:, None])
    good = fits & near & (kind > 0)[:, None]
    cost = torch.where(good, size[:, None].expand_as(good), torch.inf)
    best, owner = cost.min(dim=-1)
    owner = torch.where(torch.isfinite(best), owner, -1)
    of_level = (size[:, None] >= 0.7 * low[:, None]) & (size[:, None] < 1.4 * high[:, None])
    around = (offset <= 0.3 * size[:, None]) & of_level & (kind != 0)[:, None]
    hidden = (offset <= 0.5 * size[:, None]) & (kind < 0)[:, None]
    ignored = (around | hidden).any(dim=-1) & (owner < 0)
    return owner, ignored
