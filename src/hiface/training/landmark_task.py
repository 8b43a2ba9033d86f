# SPDX-License-Identifier: Apache-2.0
"""Trains the landmark network on synthetic crops."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiface.assets import load_json_asset
from hiface.data.crops import eye_roll, frame_of_points
from hiface.losses.landmark_points import gaussian_nll, point_distance, rotation_distance, weighted_mean
from hiface.networks.landmarker import LandmarkerConfig, LandmarkOutput, build_landmarker
from hiface.networks.poses import rotation_from_6d
from hiface.training.augment import BackgroundBank
from hiface.training.landmark_batches import NO_JITTER, CropJitter, LandmarkBatch, make_batch
from hiface.training.loop import Network
from hiface.training.shards import ShardSet


@dataclass(frozen=True)
class LandmarkRecipe:
    """Data and loss of the landmark network.

    Attributes:
        batch_size: Crops a step.
        network: Sizes; the numbers of dense and iris points are taken from the data.
        jitter: How far crops may be off.
        distance_weight: Weight of the mean distance (half crop sides) beside the likelihood.
        opening_weight: Weight of the error of the lids' and lips' openings, as the distance's.
        set_weights: Weights of the 68, dense and iris points.
        rotation_weight: Weight of the rotation's squared distance.
        presence_weight: Weight of the presence's cross entropy.
        visible_weight: Weight of the cross entropy of the points' visibility.
        more_turned: How much oftener heads in profile are drawn than there are (`ShardSet`).
        backgrounds: Number of procedural backgrounds.
        refresh_every: Steps between looks for new shards.
        seed: Of weights and batches.
    """

    batch_size: int = 64
    network: LandmarkerConfig = field(default_factory=LandmarkerConfig)
    jitter: CropJitter = field(default_factory=CropJitter)
    distance_weight: float = 20.0
    opening_weight: float = 10.0
    set_weights: tuple[float, float, float] = (1.0, 0.7, 0.3)
    rotation_weight: float = 1.0
    presence_weight: float = 0.5
    visible_weight: float = 0.5
    more_turned: float = 4.0
    backgrounds: int = 1024
    refresh_every: int = 500
    seed: int = 0


def opening_pairs() -> Tensor:
    """[2, N] upper and lower points of lids and lips among the 68."""
    groups = load_json_asset("landmarks/ibug68_groups.json")
    right, left = groups["lid_pairs_right_left"]
    return torch.tensor([*right, *left, *groups["lip_pairs"]]).T


def opening_error(points: Tensor, truth: Tensor, weights: Tensor, pairs: Tensor) -> Tensor:
    """Mean error of the vectors from upper to lower points.

    Args:
        points: [B, L, 2] predicted.
        truth: [B, L, 2].
        weights: [B, L]; a pair weighs as much as the lesser of its points.
        pairs: [2, N] indices.
    """
    upper, lower = pairs
    error = point_distance(points[:, lower] - points[:, upper], truth[:, lower] - truth[:, upper])
    return weighted_mean(error, torch.minimum(weights[:, upper], weights[:, lower]))


class LandmarkTask:
    """Batches, loss and validation of the landmark network.

    Args:
        recipe: Data and loss.
        folders: Folders of synthetic shards.
        mirror: [L] index of each point's mirror image, 68 + dense + iris.
    """

    def __init__(self, recipe: LandmarkRecipe, folders: tuple[Path, ...], mirror: Tensor) -> None:
        self.recipe, self.mirror = recipe, mirror
        self.data = ShardSet(folders, more_turned=recipe.more_turned)
        self.held = ShardSet(folders, validation=True)
        self.counts = self.data.counts
        sizes = {**vars(recipe.network), "n_dense": self.counts[1], "n_iris": self.counts[2]}
        self.config = LandmarkerConfig(**sizes)
        torch.manual_seed(recipe.seed)
        self.network: nn.Module = build_landmarker(self.config)
        self._set_layout()
        self.backgrounds = BackgroundBank(recipe.backgrounds, self.config.crop_px, recipe.seed)
        self.pairs = opening_pairs()
        self._held_batches: list[LandmarkBatch] = []

    def _set_layout(self) -> None:
        rng = np.random.default_rng(self.recipe.seed)
        samples = self.data.draw(rng, min(len(self.data), 1000), segmentation=False)
        frame = frame_of_points(
            samples.points_px[:, :68], self.config.crop_scale, eye_roll(samples.points_px)
        )
        mean = frame.to_crop(samples.points_px).mean(dim=0)
        mean = 0.5 * (mean + mean[self.mirror] * mean.new_tensor([-1.0, 1.0]))
        self.network.set_layout(mean, self.mirror)  # pyright: ignore[reportCallIssue]

    def batch(self, step: int) -> LandmarkBatch:
        """Batch number `step`."""
        if step % self.recipe.refresh_every == 0:
            self.data.refresh()
        rng = np.random.default_rng((self.recipe.seed, step))
        gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
        samples = self.data.draw(rng, self.recipe.batch_size, segmentation=False)
        return make_batch(gen, samples, self.config, self.mirror, self.recipe.jitter, self.backgrounds)

    def loss(self, network: Network, batch: LandmarkBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Likelihood and distance of the points, rotation, presence, visibility."""
        crops = batch.crops.contiguous(memory_format=torch.channels_last)
        out = LandmarkOutput(*network(crops))
        recipe, parts, start = self.recipe, [], 0
        nll = gaussian_nll(out.points, out.log_sigma, batch.points)
        distance = point_distance(out.points, batch.points)
        total = torch.zeros(())
        for weight, count in zip(recipe.set_weights, self.counts, strict=True):
            span = slice(start, start + count)
            start += count
            if count:
                parts.append(weighted_mean(distance[:, span], batch.weights[:, span]))
                likely = weighted_mean(nll[:, span], batch.weights[:, span])
                total = total + weight * (likely + recipe.distance_weight * parts[-1])
        opening = opening_error(out.points, batch.points, batch.weights, self.pairs)
        total = total + recipe.opening_weight * opening
        there = (batch.presence > 0.5).float()
        rotation = weighted_mean(rotation_distance(rotation_from_6d(out.rotation6d.float()), batch.R), there)
        presence = F.binary_cross_entropy_with_logits(out.presence, batch.presence)
        seen = F.binary_cross_entropy_with_logits(out.visible, batch.visible.float(), reduction="none")
        visible = weighted_mean(seen, there[:, None].expand_as(seen))
        total = total + recipe.rotation_weight * rotation + recipe.presence_weight * presence
        total = total + recipe.visible_weight * visible
        numbers = {"distance68": parts[0], "rotation": rotation, "presence": presence, "visible": visible}
        numbers["opening"] = opening
        return total, {k: v.detach() for k, v in numbers.items()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Scores on persons never trained on: NME in % of the outer eye distance, rotation in degrees."""
        if not self._held_batches:
            self._held_batches = [self._held_batch(i) for i in range(8)]
        groups = load_json_asset("landmarks/ibug68_groups.json")
        right, left = groups["outer_eye_corners"]
        nme51, nme_dense, angles, right_about, width = [], [], [], [], next(network.parameters()).device
        with torch.inference_mode():
            for batch in self._held_batches:
                out = LandmarkOutput(*(x.cpu() for x in network(batch.crops.to(width))))
                norm = (batch.points[:, right] - batch.points[:, left]).norm(dim=-1).clamp_min(0.15)
                error = (out.points - batch.points).norm(dim=-1) / norm[:, None]
                nme51.append(error[:, len(groups["jaw"]) : 68].mean(dim=1))
                nme_dense.append(error[:, 68 : 68 + self.counts[1]].mean(dim=1))
                distance = ((rotation_from_6d(out.rotation6d) - batch.R) ** 2).sum(dim=(1, 2))
                right_about.append(((out.visible > 0) == batch.visible).float().mean(dim=1))
                angles.append(torch.rad2deg(torch.acos((1 - distance / 4).clamp(-1, 1))))
        return {
            "nme51_percent": round(100 * float(torch.cat(nme51).mean()), 3),
            "nme51_median_percent": round(100 * float(torch.cat(nme51).median()), 3),
            "nme_dense_percent": round(100 * float(torch.cat(nme_dense).mean()), 3),
            "visible_right_percent": round(100 * float(torch.cat(right_about).mean()), 2),
            "rotation_degrees": round(float(torch.cat(angles).median()), 3),
        }

    def _held_batch(self, number: int) -> LandmarkBatch:
        rng = np.random.default_rng((7, number))
        gen = torch.Generator().manual_seed(number)
        return make_batch(
            gen, self.held.draw(rng, 64, segmentation=False), self.config, self.mirror, NO_JITTER
        )
