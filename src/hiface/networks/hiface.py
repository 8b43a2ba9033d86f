# SPDX-License-Identifier: Apache-2.0
"""The HiFace network: a face crop and its landmarks to all coefficients and detail codes in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hiface.errors import ShapeError
from hiface.networks.backbones import ResNet50, SmallTrunk
from hiface.networks.dynamic_codes import DynamicCodes, Reading
from hiface.networks.layers import set_to_ridge


@dataclass(frozen=True)
class HifaceConfig:
    """Sizes of the network.

    Attributes:
        backbone: "small", or "resnet50" as in the paper.
        crop_px: Side of the square input, pixels.
        crop_scale: Side of the crop over the longer side of the face's box (tight around the 68 points).
        n_points: Landmarks that enter beside the picture, 0 for none.
        n_identity: Identity coefficients.
        n_expression: Expression coefficients.
        n_albedo: Albedo coefficients.
        n_static: Static detail codes.
        n_compressed: Detail codes of what compression adds.
        n_stretched: Detail codes of what stretching adds.
        adain: How expression enters the dynamic codes (`DynamicCodes`).
        hidden: Width of the fully connected layers.
        dynamic_hidden: Width of the layers of the dynamic codes.
        dynamic_dropout: Of these layers, while training.
        dynamic_linear: Whether a linear map of the static codes is added to them.
    """

    backbone: Literal["small", "resnet50"] = "small"
    crop_px: int = 160
    crop_scale: float = 1.6
    n_points: int = 398
    n_identity: int = 150
    n_expression: int = 52
    n_albedo: int = 21
    n_static: int = 300
    n_compressed: int = 100
    n_stretched: int = 60
    adain: Reading = "style"
    hidden: int = 512
    dynamic_hidden: int = 256
    dynamic_dropout: float = 0.5
    dynamic_linear: bool = True


PRESETS: dict[str, HifaceConfig] = {
    "small": HifaceConfig(),
    "paper": HifaceConfig(
        backbone="resnet50",
        crop_px=224,
        n_points=0,
        n_compressed=26,
        n_stretched=26,
        adain="moments",
        dynamic_dropout=0.0,
        dynamic_linear=False,
    ),
}


class HifaceOutput(NamedTuple):
    """What the network says of B crops.

    Attributes:
        identity: [B, K] sigma.
        expression: [B, E] 0..1.
        rotation6d: [B, 6] first two columns of the head's rotation as seen along the crop's axis.
        place: [B, 3] where the head's anchor is seen, x and y in half crop sides from the crop's centre, and
            the logarithm of half crop sides per metre at its depth.
        albedo: [B, A] sigma.
        light: [B, 27] spherical harmonics, 9 x RGB row by row, in the axes of the crop's camera.
        static: [B, S] static detail codes.
        dynamic: [B, D] compressed and stretched detail codes for this expression.
    """

    identity: Tensor
    expression: Tensor
    rotation6d: Tensor
    place: Tensor
    albedo: Tensor
    light: Tensor
    static: Tensor
    dynamic: Tensor


class Hiface(nn.Module):
    """Backbone, landmarks' encoder, one head for each group of coefficients, and the dynamic codes.

    Args:
        config: Sizes.
    """

    def __init__(self, config: HifaceConfig) -> None:
        super().__init__()
        self.config = c = config
        self.trunk = ResNet50() if c.backbone == "resnet50" else SmallTrunk(c.crop_px)
        width = self.trunk.n_features
        self.points = None
        if c.n_points:
            self.points = nn.Sequential(nn.Linear(3 * c.n_points, c.hidden // 2), nn.ReLU())
            self.shape_of_points = nn.Linear(3 * c.n_points, c.n_identity)
            nn.init.zeros_(self.shape_of_points.weight)
            nn.init.zeros_(self.shape_of_points.bias)
            width += c.hidden // 2
        self.hidden = nn.Sequential(
            nn.Linear(width, c.hidden), nn.ReLU(), nn.Linear(c.hidden, c.hidden), nn.ReLU()
        )
        heads = {
            "identity": c.n_identity,
            "expression": c.n_expression,
            "pose": 9,
            "albedo": c.n_albedo,
            "light": 27,
            "static": c.n_static,
        }
        self.heads = nn.ModuleDict({name: nn.Linear(c.hidden, size) for name, size in heads.items()})
        self.dynamic = DynamicCodes(
            c.n_static,
            c.n_expression,
            c.n_compressed + c.n_stretched,
            c.dynamic_hidden,
            c.adain,
            dropout=c.dynamic_dropout,
            linear=c.dynamic_linear,
        )
        self.layout: Tensor
        self.register_buffer("layout", torch.zeros(max(1, c.n_points), 2))
        for head in self.heads.values():
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        pose, expression = self.heads["pose"], self.heads["expression"]
        assert isinstance(pose, nn.Linear) and isinstance(expression, nn.Linear)
        with torch.no_grad():
            # A frontal head: its left is the picture's right, its up is -y, it looks along -z.
            pose.bias[:6] = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
            expression.bias.fill_(-3.0)

    def start_heads(self, place: Tensor, light: Tensor) -> None:
        """Starts two heads at the mean of the data: place [3] and light [27]."""
        pose, lamp = self.heads["pose"], self.heads["light"]
        assert isinstance(pose, nn.Linear) and isinstance(lamp, nn.Linear)
        with torch.no_grad():
            pose.bias[6:] = place
            lamp.bias.copy_(light)

    def start_shape(self, points: Tensor, identity: Tensor) -> None:
        """Fits the linear way from landmarks [N, P, 3] to identity [N, K], which the heads then correct."""
        set_to_ridge(self.shape_of_points, relative_points(points, self.layout), identity)

    def _landmarks(self, points: Tensor | None) -> Tensor:
        """[B, 3 P] landmarks as the layers read them, for networks that want them."""
        if points is None or points.shape[-2:] != (self.config.n_points, 3):
            found = None if points is None else tuple(points.shape)
            raise ShapeError(f"points must be [B, {self.config.n_points}, 3], got {found}")
        return relative_points(points, self.layout)

    def forward(
        self, crops_srgb: Tensor, points: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The fields of `HifaceOutput`, in order.

        Args:
            crops_srgb: [B, 3, S, S] sRGB 0..1.
            points: [B, P, 3] landmarks in crop coordinates and the logarithm of their standard deviation
                (`LandmarkOutput`), for networks that want them.

        Raises:
            ShapeError: The network wants landmarks and there are none, or of another number.
        """
        x = self.trunk(crops_srgb)
        landmarks = None
        if self.points is not None:
            landmarks = self._landmarks(points)
            x = torch.cat([x, self.points(landmarks)], dim=1)
        x = self.hidden(x)
        out = {name: head(x) for name, head in self.heads.items()}
        expression = torch.sigmoid(out["expression"])
        dynamic = self.dynamic(out["static"], expression)
        rotation6d, place = out["pose"][:, :6], out["pose"][:, 6:]
        identity = out["identity"]
        if landmarks is not None:
            identity = identity + self.shape_of_points(landmarks)
        return (
            identity,
            expression,
            rotation6d,
            place,
            out["albedo"],
            out["light"],
            out["static"],
            dynamic,
        )


def relative_points(points: Tensor, layout: Tensor) -> Tensor:
    """Landmarks as the network reads them: offsets from a mean layout and certainty, flat.

    Args:
        points: [B, P, 3] crop coordinates and log sigma.
        layout: [P, 2] mean places, crop coordinates.

    Returns:
        [B, 3 P].
    """
    offset = 4.0 * (points[..., :2] - layout)
    certainty = 0.5 * (points[..., 2:] + 4.0)
    return torch.cat([offset, certainty], dim=-1).flatten(1)


def build_hiface(config: HifaceConfig | None = None) -> Hiface:
    """A network with random weights (`config` defaults to the shipped sizes)."""
    return Hiface(config or HifaceConfig())
