# SPDX-License-Identifier: Apache-2.0
"""Training batches of the HiFace network: augmented crops, what the landmark network says of them, truths."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from hiface.data.crops import CropFrame, eye_roll, frame_of_points
from hiface.networks.hiface import HifaceConfig
from hiface.networks.hiface_params import translation_to_place
from hiface.networks.landmarker import Landmarker
from hiface.networks.poses import crop_rotation
from hiface.render.shade import rotate_light
from hiface.training.augment import BackgroundBank, chance, degrade, occlude
from hiface.training.landmark_batches import (
    CropJitter,
    jittered_frames,
    point_weights,
    read_augmented,
    uncovered,
)
from hiface.training.shards import Samples

LABELS = ("identity", "expression", "albedo", "light", "T_cam_head")
CODES = "map.detail_codes"
HIFACE_JITTER = CropJitter(
    shift=0.025, log_scale=0.05, roll=0.06, upright=1.0, negatives=0.0, cut=0.1, occluded=0.15
)
_WORSE = 0.5  # share of crops that lose quality beyond what their camera did: fine lines need good ones too
STILL = CropJitter(0.01, 0.02, 0.02, 1.0, 0.0, 0.0, 0.0, 0.0, False)


@dataclass(frozen=True)
class HifaceBatch:
    """Crops and what the network should say of them.

    Attributes:
        crops: [B, 3, S, S] sRGB 0..1.
        seen_points: [B, P, 3] what the landmark network says: crop coordinates and log sigma.
        points: [B, P, 2] true landmarks (68, dense, iris), crop coordinates.
        weights: [B, P] 1 visible, less if hidden or outside.
        identity: [B, K].
        expression: [B, E].
        rotation: [B, 3, 3] head to the axes of a camera that looks at the crop's centre.
        place: [B, 3], see `HifaceOutput`.
        albedo: [B, A].
        light: [B, 9, 3] in the axes of the crop's camera.
        codes: [B, n] static, compressed and stretched detail codes; nan for pictures made without.
        K: [B, 3, 3] of the pictures.
        frames: [B, 4] crops in the pictures: centre x and y, side (pixels), roll.
        photo_crops: [N, 3, S, S] faces of photos without any truth; N may be 0.
        photo_points: [N, P, 3] what the landmark network says of them.
        photo_K: [N, 3, 3].
        photo_frames: [N, 4].
    """

    crops: Tensor
    seen_points: Tensor
    points: Tensor
    weights: Tensor
    identity: Tensor
    expression: Tensor
    rotation: Tensor
    place: Tensor
    albedo: Tensor
    light: Tensor
    codes: Tensor
    K: Tensor
    frames: Tensor
    photo_crops: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 1, 1))
    photo_points: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 3))
    photo_K: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 3))
    photo_frames: Tensor = field(default_factory=lambda: torch.zeros(0, 4))

    @property
    def frame(self) -> CropFrame:
        """Where the crops lie."""
        return CropFrame.unpacked(self.frames)

    @property
    def photo_frame(self) -> CropFrame:
        """Where the crops of photos lie."""
        return CropFrame.unpacked(self.photo_frames)


@torch.no_grad()
def look_at(landmarker: Landmarker, crops: Tensor) -> Tensor:
    """What a landmark network says of crops of another size: [B, 3, S, S] to [B, P, 3]."""
    side = landmarker.config.crop_px
    small = F.interpolate(crops, size=(side, side), mode="bilinear", antialias=True)
    points, log_sigma = landmarker(small)[:2]
    return torch.cat([points, log_sigma[..., None]], dim=-1)


def make_hiface_batch(
    gen: Generator,
    samples: Samples,
    config: HifaceConfig,
    jitter: CropJitter,
    landmarker: Landmarker,
    anchor: Tensor,
    backgrounds: BackgroundBank | None = None,
) -> HifaceBatch:
    """Augmented crops of a batch of samples.

    Args:
        gen: All randomness comes from here.
        samples: Pictures with the further labels `LABELS` and `CODES`.
        config: Sizes of the network.
        jitter: How far crops may be off.
        landmarker: Landmark network, in evaluation mode.
        anchor: [3] point of the head that `place` speaks of.
        backgrounds: What may be put behind a person; needed if `jitter` asks for it.

    Returns:
        The batch.
    """
    points_px, more = samples.points_px, samples.more
    true = frame_of_points(points_px[:, :68], config.crop_scale, eye_roll(points_px))
    frame = jittered_frames(gen, true, jitter)
    crops, inside = read_augmented(gen, samples, frame, config.crop_px, jitter, backgrounds)
    crops, alpha = occlude(gen, crops, jitter.occluded)
    if jitter.degraded:
        worse = chance(gen, _WORSE, len(crops)).nonzero()[:, 0]
        crops[worse] = degrade(gen, crops[worse])
    points = frame.to_crop(points_px)
    seen = samples.visible & uncovered(points, inside, alpha)
    turn = crop_rotation(frame, samples.K).transpose(1, 2)
    T = more["T_cam_head"].float()
    return HifaceBatch(
        crops=crops,
        seen_points=look_at(landmarker, crops) if config.n_points else crops.new_zeros(len(crops), 0, 3),
        points=points,
        weights=point_weights(points, seen),
        identity=more["identity"].float(),
        expression=more["expression"].float(),
        rotation=turn @ T[:, :3, :3],
        place=translation_to_place(T, anchor, frame, samples.K),
        albedo=more["albedo"].float(),
        light=rotate_light(more["light"].float(), turn),
        codes=more[CODES].float(),
        K=samples.K,
        frames=frame.packed(),
    )
