# SPDX-License-Identifier: Apache-2.0
"""What the landmark network says of crops of a photo, in numpy."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from hiface.data.crop_arrays import read_crops
from hiface.networks.pose_arrays import mirrored_rotations, rotations_from_6d
from hiface.networks.runtime import Runner

_FLIP_X = np.array([-1.0, 1.0], np.float32)


@dataclass(frozen=True)
class Look:
    """Landmarks of N crops in crop coordinates (-1..1 across the side).

    Attributes:
        points: [N, L, 2] 68, dense and iris points.
        sigma: [N, L] standard deviation per axis.
        R_crop: [N, 3, 3] rotation from object space to a camera that looks at the crop's centre.
        presence: [N] probability that there is a face.
        visible: [N, L] probability that a point can be seen.
    """

    points: np.ndarray
    sigma: np.ndarray
    R_crop: np.ndarray
    presence: np.ndarray
    visible: np.ndarray

    def take(self, ids: np.ndarray | slice) -> Look:
        """The crops with these numbers."""
        return Look(
            self.points[ids], self.sigma[ids], self.R_crop[ids], self.presence[ids], self.visible[ids]
        )

    def mirrored(self, mirror: np.ndarray) -> Look:
        """The same faces as seen in a mirror.

        Args:
            mirror: [L] number of each point's partner on the other side.
        """
        points = self.points[:, mirror] * _FLIP_X
        sigma, visible = self.sigma[:, mirror], self.visible[:, mirror]
        return Look(points, sigma, mirrored_rotations(self.R_crop), self.presence, visible)


def mean_look(a: Look, b: Look) -> Look:
    """Mean of two looks at the same crops."""
    total = a.R_crop + b.R_crop
    R = rotations_from_6d(np.concatenate([total[:, :, 0], total[:, :, 1]], axis=1))
    return Look(
        0.5 * (a.points + b.points),
        0.5 * (a.sigma + b.sigma),
        R,
        0.5 * (a.presence + b.presence),
        0.5 * (a.visible + b.visible),
    )


def join_looks(looks: list[Look]) -> Look:
    """Several looks, one after another."""
    if len(looks) == 1:
        return looks[0]
    return Look(
        np.concatenate([k.points for k in looks]),
        np.concatenate([k.sigma for k in looks]),
        np.concatenate([k.R_crop for k in looks]),
        np.concatenate([k.presence for k in looks]),
        np.concatenate([k.visible for k in looks]),
    )


class LandmarkReader:
    """Owns the landmark network.

    Args:
        runner: The network, ready to run.

    Attributes:
        crop_px: Side of the network's input, pixels.
        crop_scale: Side of a crop over the longer side of the box of the 68 points.
        n_dense: Number of dense points.
        mirror: [L] number of each point's partner on the other side.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        sizes = json.loads(runner.metadata["config"])
        self.crop_px, self.crop_scale = int(sizes["crop_px"]), float(sizes["crop_scale"])
        self.n_dense = int(sizes["n_dense"])
        self.mirror = np.array(json.loads(runner.metadata["mirror"]))

    def crops(self, photo: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[N, 3, crop_px, crop_px] float32 0..1 from a photo [H, W, 3] uint8 and crops [N, 4]."""
        return read_crops(photo, frames, self.crop_px)

    def read(self, crops: np.ndarray) -> Look:
        """Looks at crops once."""
        points, log_sigma, rotation6d, presence, visible = self._runner(crops)
        R = rotations_from_6d(rotation6d)
        return Look(points, np.exp(log_sigma), R, _probability(presence), _probability(visible))

    def read_twice(self, crops: np.ndarray, known: Look | None = None) -> Look:
        """Looks at crops and at their mirror images; the mean of both.

        Args:
            crops: [N + M, 3, S, S].
            known: What the network said of the first N already.

        Returns:
            N + M crops.
        """
        done = 0 if known is None else len(known.presence)
        new = len(crops) - done
        both = self.read(np.concatenate([crops[done:], crops[..., ::-1]]))
        straight = both.take(slice(0, new))
        if known is not None:
            straight = join_looks([known, straight]) if new else known
        return mean_look(straight, both.take(slice(new, None)).mirrored(self.mirror))


def _probability(logit: np.ndarray) -> np.ndarray:
    """Sigmoid that does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logit)
