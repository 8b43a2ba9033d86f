# SPDX-License-Identifier: Apache-2.0
"""What the landmark network says of crops of a photo."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.data.crops import CropFrame, crop_photo
from hiface.networks.landmarker import LandmarkOutput
from hiface.networks.poses import mirror_rotation, rotation_from_6d
from hiface.networks.runtime import Runner


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

    points: Tensor
    sigma: Tensor
    R_crop: Tensor
    presence: Tensor
    visible: Tensor

    def take(self, ids: Tensor | slice) -> Look:
        """The crops with these numbers."""
        return Look(
            self.points[ids], self.sigma[ids], self.R_crop[ids], self.presence[ids], self.visible[ids]
        )

    def mirrored(self, mirror: Tensor) -> Look:
        """The same faces as seen in a mirror.

        Args:
            mirror: [L] number of each point's partner on the other side.
        """
        points = self.points[:, mirror] * self.points.new_tensor([-1.0, 1.0])
        sigma, visible = self.sigma[:, mirror], self.visible[:, mirror]
        return Look(points, sigma, mirror_rotation(self.R_crop), self.presence, visible)


def mean_look(a: Look, b: Look) -> Look:
    """Mean of two looks at the same crops."""
    total = a.R_crop + b.R_crop
    R = rotation_from_6d(torch.cat([total[..., 0], total[..., 1]], dim=-1))
    return Look(
        0.5 * (a.points + b.points),
        0.5 * (a.sigma + b.sigma),
        R,
        0.5 * (a.presence + b.presence),
        0.5 * (a.visible + b.visible),
    )


def join_looks(looks: list[Look]) -> Look:
    """Several looks, one after another."""
    return Look(
        torch.cat([k.points for k in looks]),
        torch.cat([k.sigma for k in looks]),
        torch.cat([k.R_crop for k in looks]),
        torch.cat([k.presence for k in looks]),
        torch.cat([k.visible for k in looks]),
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
        self.mirror = torch.tensor(json.loads(runner.metadata["mirror"]))

    def crops(self, photo: Tensor, frame: CropFrame) -> Tensor:
        """[N, 3, crop_px, crop_px] float32 0..1 from a photo [H, W, 3] uint8."""
        return crop_photo(photo, frame, self.crop_px)

    def read(self, crops: Tensor) -> Look:
        """Looks at crops once."""
        out = LandmarkOutput(*(torch.from_numpy(x) for x in self._runner(crops.numpy())))
        R = rotation_from_6d(out.rotation6d)
        return Look(out.points, out.log_sigma.exp(), R, out.presence.sigmoid(), out.visible.sigmoid())

    def read_twice(self, crops: Tensor, known: Look | None = None) -> Look:
        """Looks at crops and at their mirror images; the mean of both.

        Args:
            crops: [N + M, 3, S, S].
            known: What the network said of the first N already.

        Returns:
            N + M crops.
        """
        done = 0 if known is None else known.presence.shape[0]
        new = crops.shape[0] - done
        both = self.read(torch.cat([crops[done:], crops.flip(-1)]))
        straight = both.take(slice(0, new))
        if known is not None:
            straight = join_looks([known, straight])
        return mean_look(straight, both.take(slice(new, None)).mirrored(self.mirror))
