# SPDX-License-Identifier: Apache-2.0
"""Training batches of the landmark network: augmented crops of synthetic pictures with their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from hiface.data.crops import CropFrame, box_of_points, eye_roll, frame_of_points, sampling_grid
from hiface.losses.box_losses import iou_and_giou
from hiface.networks.landmarker import LandmarkerConfig
from hiface.networks.poses import crop_rotation, mirror_rotation
from hiface.training.augment import BackgroundBank, chance, degrade, log_uniform, occlude, uniform
from hiface.training.shards import Samples


@dataclass(frozen=True)
class LandmarkBatch:
    """Crops and what the network should say of them.

    Attributes:
        crops: [B, 3, S, S] sRGB 0..1.
        points: [B, L, 2] crop coordinates, -1..1 inside.
        weights: [B, L] weight of each point: 1 visible, less if hidden or outside, 0 in crops without a face.
        R: [B, 3, 3] rotation from head to crop camera.
        presence: [B] 1 for a face well placed, 0 for none.
        visible: [B, L] whether a point can be seen.
    """

    crops: Tensor
    points: Tensor
    weights: Tensor
    R: Tensor
    presence: Tensor
    visible: Tensor


@dataclass(frozen=True)
class CropJitter:
    """How far a training crop may be off.

    Attributes:
        shift: Standard deviation of the centre's offset over the crop's side.
        log_scale: Standard deviation of the logarithm of the scale.
        roll: Standard deviation of the roll, radians.
        upright: Share of crops turned along the eyes before that, as the second look at a face is.
        negatives: Share of crops that hold no well-placed face.
        cut: Share of crops that pretend to reach beyond the picture.
        other_background: Share of pictures whose background is replaced.
        occluded: Share of crops with something pasted in front.
        degraded: Whether colours, blur, noise and compression are changed.
    """

    shift: float = 0.055
    log_scale: float = 0.11
    roll: float = 0.2
    upright: float = 0.7
    negatives: float = 0.14
    cut: float = 0.15
    other_background: float = 0.45
    occluded: float = 0.25
    degraded: bool = True


NO_JITTER = CropJitter(0.02, 0.03, 0.05, 1.0, 0.0, 0.0, 0.0, 0.0, False)


def make_batch(
    gen: Generator,
    samples: Samples,
    config: LandmarkerConfig,
    mirror: Tensor,
    jitter: CropJitter,
    backgrounds: BackgroundBank | None = None,
) -> LandmarkBatch:
    """Augmented crops of a batch of samples.

    Args:
        gen: All randomness comes from here.
        samples: Pictures and labels.
        config: Sizes of the network.
        mirror: [L] index of each point's mirror image.
        jitter: How far crops may be off.
        backgrounds: What may be put behind a person, of the crop's size; needed if `jitter` asks for it.

    Returns:
        The batch.
    """
    roll = eye_roll(samples.points_px) * chance(gen, jitter.upright, len(samples.images))
    true = frame_of_points(samples.points_px[:, :68], config.crop_scale, roll)
    frame = _negative_frames(gen, true, jittered_frames(gen, true, jitter), jitter.negatives)
    crops, inside = read_augmented(gen, samples, frame, config.crop_px, jitter, backgrounds)
    points = frame.to_crop(samples.points_px)
    crops, alpha = occlude(gen, crops, jitter.occluded)
    seen = samples.visible & uncovered(points, inside, alpha)
    presence = _presence(true, frame, seen)
    if backgrounds is not None and jitter.negatives > 0:
        empty = chance(gen, 0.3 * jitter.negatives, len(crops)).nonzero()[:, 0]
        crops[empty], presence[empty] = backgrounds.draw(gen, len(empty)), 0.0
    target = head_in_crop(samples, frame)
    flip = chance(gen, 0.5, len(crops))
    crops = torch.where(flip[:, None, None, None], crops.flip(-1), crops)
    points = torch.where(flip[:, None, None], points[:, mirror] * points.new_tensor([-1.0, 1.0]), points)
    seen = torch.where(flip[:, None], seen[:, mirror], seen)
    target = torch.where(flip[:, None, None], mirror_rotation(target), target)
    weights = point_weights(points, seen) * (presence > 0.5)[:, None]
    crops = degrade(gen, crops) if jitter.degraded else crops
    return LandmarkBatch(crops, points, weights, target, presence, seen)


def uncovered(points: Tensor, inside: Callable[[Tensor], Tensor], alpha: Tensor) -> Tensor:
    """[B, L] bool: points that lie in the crop and in the picture, with nothing pasted in front."""
    return inside(points) & (read_at(alpha, points) < 0.5) & _within(points)


def point_weights(points: Tensor, seen: Tensor) -> Tensor:
    """[B, L] what a point counts in a loss: 1 where it is seen, less where it is hidden or outside."""
    return torch.where(seen, 1.0, torch.where(_within(points), 0.35, 0.15))


def _within(points: Tensor) -> Tensor:
    return (points.abs() < 1).all(dim=-1)


def jittered_frames(gen: Generator, true: CropFrame, jitter: CropJitter) -> CropFrame:
    """Crops as far off as a finder's."""
    n = len(true.side_px)
    shift = torch.randn(n, 2, generator=gen).clamp(-2.5, 2.5) * jitter.shift
    scale = torch.exp(torch.randn(n, generator=gen).clamp(-2.5, 2.5) * jitter.log_scale)
    roll = torch.randn(n, generator=gen).clamp(-3, 3) * jitter.roll
    return CropFrame(true.centre_px + shift * true.side_px[:, None], true.side_px * scale, true.roll + roll)


def _negative_frames(gen: Generator, true: CropFrame, frame: CropFrame, share: float) -> CropFrame:
    """Moves or scales some crops so far off that they hold no face, or only a piece of one."""
    n = len(true.side_px)
    angle = uniform(gen, 0, 2 * torch.pi, n)
    direction = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)
    far = true.centre_px + direction * (uniform(gen, 0.35, 1.2, n) * true.side_px)[:, None]
    scale = torch.where(chance(gen, 0.5, n), log_uniform(gen, 0.12, 0.45, n), log_uniform(gen, 2.2, 4.0, n))
    negative, moved = chance(gen, share, n), chance(gen, 0.65, n)
    centre = torch.where((negative & moved)[:, None], far, frame.centre_px)
    size = torch.where(moved, log_uniform(gen, 0.12, 1.5, n), scale) * true.side_px
    return CropFrame(centre, torch.where(negative, size, frame.side_px), frame.roll)


def read_augmented(
    gen: Generator,
    samples: Samples,
    frame: CropFrame,
    size: int,
    jitter: CropJitter,
    backgrounds: BackgroundBank | None,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Crops [B, 3, size, size], and a test of which crop points lie in the (possibly cut) picture."""
    n, side = len(frame.side_px), samples.images.shape[-1]
    grid = sampling_grid(frame, size, side, side)
    low, high = _cut_bounds(gen, n, samples, jitter.cut)
    within = ((grid >= low[:, None, None]) & (grid <= high[:, None, None])).all(dim=-1)
    clamped = torch.minimum(torch.maximum(grid, low[:, None, None]), high[:, None, None])
    out = torch.nn.functional.grid_sample(
        samples.images.float(), clamped, padding_mode="border", align_corners=False
    ).div_(255.0)
    colour, alpha = out[:, :3], out[:, 3:]
    if backgrounds is not None and jitter.other_background > 0:
        colour = _other_background(gen, colour, alpha, jitter.other_background, backgrounds)
    fill = torch.where(
        chance(gen, 0.5, n)[:, None], torch.rand(n, 1, generator=gen), torch.rand(n, 3, generator=gen)
    )
    fill = torch.where(chance(gen, 0.3, n)[:, None], 0.0, fill)
    filled = (~within)[:, None] & chance(gen, 0.35, n)[:, None, None, None]
    colour = torch.where(filled, fill[:, :, None, None], colour)

    def inside(points: Tensor) -> Tensor:
        px = frame.to_picture(points) * (2.0 / side) - 1.0
        return ((px >= low[:, None]) & (px <= high[:, None])).all(dim=-1)

    return colour, inside


def _cut_bounds(gen: Generator, n: int, samples: Samples, share: float) -> tuple[Tensor, Tensor]:
    """Limits [B, 2] of the picture in -1..1; for some, one edge is moved into the face, up to half of it."""
    low, high = torch.full((n, 2), -1.0), torch.full((n, 2), 1.0)
    box = box_of_points(samples.points_px[:, :68]) * (2.0 / samples.images.shape[-1]) - 1.0
    depth = uniform(gen, -0.1, 0.5, n, 2)
    size = box[:, 2:] - box[:, :2]
    for axis in range(2):
        for edge, sign in ((low, 1), (high, -1)):
            cut = chance(gen, share / 3, n)
            start = box[:, axis] if sign > 0 else box[:, 2 + axis]
            edge[:, axis] = torch.where(cut, start + sign * depth[:, axis] * size[:, axis], edge[:, axis])
    return low.clamp(-1, 0.9), torch.maximum(high.clamp(-0.9, 1), low.clamp(-1, 0.9) + 0.05)


def _other_background(
    gen: Generator, colour: Tensor, alpha: Tensor, share: float, backgrounds: BackgroundBank
) -> Tensor:
    """Puts a procedural background or a neighbour's picture, upside down, behind some of the people."""
    n = colour.shape[0]
    chosen = chance(gen, share, n).nonzero()[:, 0]
    behind = backgrounds.draw(gen, len(chosen))
    neighbour = chance(gen, 0.35, len(chosen)).nonzero()[:, 0]
    behind[neighbour] = colour[(chosen[neighbour] + 1) % n].flip(-2)
    out = colour.clone()
    out[chosen] = colour[chosen] * alpha[chosen] + behind * (1 - alpha[chosen])
    return out


def read_at(maps: Tensor, points: Tensor) -> Tensor:
    """Value of [B, 1, S, S] maps at crop points [B, L, 2]: [B, L]."""
    return torch.nn.functional.grid_sample(maps, points[:, None], align_corners=False)[:, 0, 0]


def _presence(true: CropFrame, frame: CropFrame, seen: Tensor) -> Tensor:
    """1 where the crop's own face box overlaps the true one and enough of the face can be seen."""
    corners = []
    for f in (true, frame):
        half = 0.5 * f.side_px[:, None]
        corners.append(torch.cat([f.centre_px - half, f.centre_px + half], dim=1))
    overlap = iou_and_giou(corners[0], corners[1])[0]
    return ((overlap > 0.45) & (seen[:, :68].float().mean(dim=1) > 0.2)).float()


def head_in_crop(samples: Samples, frame: CropFrame) -> Tensor:
    """Head rotation as seen along the crop's own axis: undo the turn to the crop's ray, then the roll."""
    return crop_rotation(frame, samples.K).transpose(1, 2) @ samples.R_cam_head
