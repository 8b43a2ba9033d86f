# SPDX-License-Identifier: Apache-2.0
"""The colour of somebody's irises, read from crops of both eyes, with how sure that is.

Irises are a few pixels of most photos, half hidden by lids and lashes, dark under the brow, with the sky
mirrored in them: a median of their pixels says almost nothing of their albedo. A small network weighs all of
that, and says by its standard deviation when there is nothing to see: shut lids, sunglasses, tiny faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hiface.data.crop_arrays import eye_corners, frames_of_boxes, read_crops, tight_boxes
from hiface.networks.eye_colour_net import EyeColourNet
from hiface.networks.weights import load_eye_colour


def eye_crops(image_srgb: np.ndarray, points68_px: np.ndarray, side_px: int, scale: float) -> Tensor:
    """Crops of both eyes and of the face.

    Args:
        image_srgb: [H, W, 3] uint8.
        points68_px: [68, 2] iBUG points, pixels.
        side_px: Side of the crops.
        scale: Side of an eye's crop over the eye's width.

    Returns:
        [3, 3, side_px, side_px] sRGB, 0..1: the right eye, the left eye in a mirror (so that noses lie on the
        same side), and the face.
    """
    right, left = (points68_px[pair].astype(np.float32) for pair in eye_corners())
    frames = np.zeros((3, 4), np.float32)
    for row, (a, b) in enumerate((right, left)):
        along = b - a
        frames[row, :2] = 0.5 * (a + b)
        frames[row, 2] = scale * max(float(np.hypot(*along)), 1.0)
        frames[row, 3] = np.arctan2(along[1], along[0])
    frames[2] = frames_of_boxes(tight_boxes(points68_px[None]), 1.0)[0]
    crops = torch.from_numpy(read_crops(image_srgb, frames, side_px))
    crops[1] = crops[1].flip(-1)
    return crops


@dataclass(frozen=True)
class IrisColour:
    """A belief about somebody's irises.

    Attributes:
        log_mean: [3] logarithm of linear albedo.
        log_sigma: [3] its standard deviations.
        population_mean: [3] of all people.
        population_sigma: [3] of all people.
    """

    log_mean: Tensor
    log_sigma: Tensor
    population_mean: Tensor
    population_sigma: Tensor

    @property
    def colour(self) -> Tensor:
        """[3] linear albedo."""
        return self.log_mean.exp()


def shared_colour(beliefs: list[IrisColour]) -> IrisColour:
    """The belief after several photos of one person: what all people have in common counts once."""
    first = beliefs[0]
    common = first.population_sigma**-2
    mean, precision = common * first.population_mean, common
    for belief in beliefs:
        own = belief.log_sigma.clamp_max(0.999 * first.population_sigma) ** -2
        mean = mean + own * belief.log_mean - common * first.population_mean
        precision = precision + own - common
    mean = mean / precision
    return IrisColour(mean, precision**-0.5, first.population_mean, first.population_sigma)


class EyeColourReader:
    """Reads the colour of irises from photos.

    Args:
        network: The network; the packaged one if None.
    """

    def __init__(self, network: EyeColourNet | None = None) -> None:
        self._network = network or load_eye_colour()

    def read(self, image_srgb: np.ndarray, points68_px: Tensor) -> IrisColour:
        """Reads one face.

        Args:
            image_srgb: [H, W, 3] uint8.
            points68_px: [68, 2] pixels.
        """
        config = self._network.config
        crops = eye_crops(image_srgb, points68_px.cpu().numpy(), config.side_px, config.scale)
        with torch.inference_mode():
            mean, log_sigma = self._network(crops[None])
        population = self._network.population
        return IrisColour(mean[0].clone(), log_sigma[0].exp(), population[0].clone(), population[1].clone())


@lru_cache(maxsize=1)
def packaged_eye_colour() -> EyeColourReader:
    """The reader with the packaged weights; loaded once."""
    return EyeColourReader()
