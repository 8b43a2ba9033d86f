# SPDX-License-Identifier: Apache-2.0
"""The HiFace network: a face crop and its landmarks to all coefficients and detail codes in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiface.errors import ShapeError
from hiface.networks.backbones import ResNet50, SmallTrunk
from hiface.networks.dynamic_codes import DynamicCodes, Reading
from hiface.networks.layers import set_to_ridge
from hiface.networks.point_features import PointFeatures
from hiface.networks.relief_reader import ReliefReader

_COLOURS = 68  # landmarks whose colours tell tone and light; the trunk sees crops of equal brightness
_REFIT = 1000.0  # weight of the squared coefficients of the last regression, crops
_POINT_NOISE = 0.01  # half crop sides; what no network can see
_QUIET = 0.2  # spread of places along the main directions; the larger, the noisier are steps of Adam


@dataclass(frozen=True)
class HifaceConfig:
    """Sizes of the network.

    Attributes:
        backbone: "small", or "resnet50" as in the paper.
        crop_px: Side of the square input, pixels.
        trunk_px: Side that the backbone sees of it.
        crop_scale: Side of the crop over the longer side of the face's box (tight around the 68 points).
        n_points: Landmarks that enter beside the picture, 0 for none.
        n_whitened: Directions of the landmarks that enter, most important first.
        relief_size: Rows and columns of the map over texture space that static detail is read from.
        relief_texels: Texels of it that the detail basis reaches, 0 to read no detail there.
        relief_channels: Channels of the convolutions over it.
        relief_codes: Codes that are read there, the first ones; finer ones no picture shows.
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
    crop_px: int = 224
    trunk_px: int = 160
    crop_scale: float = 1.6
    n_points: int = 398
    n_whitened: int = 192
    relief_size: tuple[int, int] = (84, 88)
    relief_texels: int = 3802
    relief_channels: int = 24
    relief_codes: int = 128
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
        trunk_px=224,
        n_points=0,
        relief_texels=0,
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
        landmarks: [B, P, 2] the landmarks that entered, corrected, crop coordinates.
    """

    identity: Tensor
    expression: Tensor
    rotation6d: Tensor
    place: Tensor
    albedo: Tensor
    light: Tensor
    static: Tensor
    dynamic: Tensor
    landmarks: Tensor


class Look(NamedTuple):
    """What the network makes of B crops before its heads.

    Attributes:
        features: [B, hidden] of the picture and the landmarks.
        landmarks: [B, n_whitened + P] corrected landmarks along their main directions, and their certainty.
        corrected: [B, P, 2] corrected landmarks, crop coordinates.
        own: [B, 2 P] local features of the landmarks.
    """

    features: Tensor
    landmarks: Tensor
    corrected: Tensor
    own: Tensor


class Hiface(nn.Module):
    """Backbone, landmarks' encoder, one head for each group of coefficients, and the dynamic codes.

    Args:
        config: Sizes.
    """

    def __init__(self, config: HifaceConfig) -> None:
        super().__init__()
        self.config = c = config
        self.trunk = ResNet50() if c.backbone == "resnet50" else SmallTrunk(c.trunk_px)
        width = self.trunk.n_features
        self.points = self.relief = None
        if c.n_points:
            n_own = 2
            self.local = PointFeatures(self.trunk.widths, c.n_points, n_own=n_own)
            n_seen = c.n_whitened + c.n_points
            self.points = nn.Sequential(nn.Linear(n_seen + n_own * c.n_points, c.hidden // 2), nn.ReLU())
            self.shape_of_points = nn.Linear(n_seen, c.n_identity + c.n_expression)
            self.colours = nn.Sequential(nn.Linear(3 * _COLOURS, _COLOURS), nn.ReLU())
            self.look_of_colours = nn.Linear(_COLOURS, c.n_albedo + 27)
            for layer in (self.shape_of_points, self.look_of_colours):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
            width += c.hidden // 2
        if c.relief_texels:
            sizes = (c.n_points, c.relief_texels, c.relief_codes, c.relief_channels)
            self.relief = ReliefReader(c.relief_size, *sizes)
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
        self.whiten: Tensor
        self.register_buffer("layout", torch.zeros(max(1, c.n_points), 2))
        self.register_buffer("whiten", torch.zeros(2 * c.n_points, c.n_whitened))
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

    def start_points(self, true_points: Tensor) -> None:
        """Takes mean places and main directions of landmarks from true ones [N, P, 2] in crops.

        Directions are scaled to one spread with `_POINT_NOISE` added, so that what differs little between
        people counts as much as what differs much, as far as it can be seen.
        """
        offsets = (true_points - true_points.mean(dim=0)).flatten(1).double()
        spread, axes = torch.linalg.eigh(offsets.T @ offsets / len(offsets))
        last = self.config.n_whitened
        axes, spread = axes.flip(1)[:, :last], spread.flip(0)[:last].clamp_min(0.0)
        with torch.no_grad():
            self.layout.copy_(true_points.mean(dim=0))
            self.whiten.copy_(_QUIET * axes / (spread + _POINT_NOISE**2).sqrt())

    def start_shape(self, points: Tensor, identity: Tensor, expression: Tensor) -> None:
        """Fits the linear way from landmarks to identity, and to expression, which training then changes.

        Args:
            points: [N, P, 3] crop coordinates and log sigma.
            identity: [N, K].
            expression: [N, E] 0..1.
        """
        logits = torch.logit(expression.clamp(0.05, 0.95))
        seen = self._landmarks(points[..., :2], points[..., 2])
        set_to_ridge(self.shape_of_points, seen, torch.cat([identity, logits], dim=1))
        bias = self.heads["expression"].bias
        assert isinstance(bias, Tensor)
        nn.init.zeros_(bias)

    def _landmarks(self, points: Tensor, log_sigma: Tensor) -> Tensor:
        """[B, n_whitened + P] places along the main directions, and certainty."""
        places = (points - self.layout).flatten(1) @ self.whiten
        return torch.cat([places, 0.5 * (log_sigma + 4.0)], dim=1)

    def forward(
        self, crops_srgb: Tensor, points: Tensor | None = None, with_detail: bool = True
    ) -> tuple[Tensor, ...]:
        """The fields of `HifaceOutput`, in order.

        Args:
            crops_srgb: [B, 3, S, S] sRGB 0..1.
            points: [B, P, 3] landmarks in crop coordinates and the logarithm of their standard deviation
                (`LandmarkOutput`), for networks that want them.
            with_detail: Whether detail is read, which is a third of the work; else its codes are 0.

        Raises:
            ShapeError: The network wants landmarks and there are none, or of another number.
        """
        return self.answers(crops_srgb, self.look(crops_srgb, points), with_detail)

    def answers(self, crops_srgb: Tensor, seen: Look, with_detail: bool = True) -> tuple[Tensor, ...]:
        """`forward` from what `look` gave."""
        c = self.config
        out = {name: head(seen.features) for name, head in self.heads.items()}
        identity, logits, albedo, light, static = (
            out[name] for name in ("identity", "expression", "albedo", "light", "static")
        )
        if self.points is not None:
            shape = self.shape_of_points(seen.landmarks)
            identity, logits = identity + shape[:, : c.n_identity], logits + shape[:, c.n_identity :]
            look = self.look_of_colours(self.colours(colours_at(crops_srgb, seen.corrected[:, :_COLOURS])))
            albedo, light = albedo + look[:, : c.n_albedo], light + look[:, c.n_albedo :]
        expression = torch.sigmoid(logits)
        rotation6d, place = out["pose"][:, :6], out["pose"][:, 6:]
        if not with_detail:
            static = torch.zeros_like(static)
            dynamic = static.new_zeros(len(static), c.n_compressed + c.n_stretched)
            return identity, expression, rotation6d, place, albedo, light, static, dynamic, seen.corrected
        if self.relief is not None:
            read = self.relief(crops_srgb, seen.corrected, rotation6d, light)
            static = static + F.pad(read, (0, c.n_static - c.relief_codes))
        dynamic = self.dynamic(static, expression)
        return identity, expression, rotation6d, place, albedo, light, static, dynamic, seen.corrected

    def look(self, crops_srgb: Tensor, points: Tensor | None = None) -> Look:
        """What the heads speak from; see `forward`."""
        c, small = self.config, crops_srgb
        if c.trunk_px != c.crop_px:
            size = (c.trunk_px, c.trunk_px)
            small = F.interpolate(crops_srgb, size=size, mode="bilinear", align_corners=False)
        x, maps = self.trunk(small)
        if self.points is None:
            nothing = x.new_zeros(len(x), 0)
            return Look(self.hidden(x), nothing, nothing.unflatten(1, (0, 2)), nothing)
        if points is None or points.shape[-2:] != (c.n_points, 3):
            found = None if points is None else tuple(points.shape)
            raise ShapeError(f"points must be [B, {c.n_points}, 3], got {found}")
        moved, own = self.local(maps, points[..., :2])
        corrected = points[..., :2] + 0.1 * moved
        # Corrections learn from true points alone: shape losses would drown these.
        landmarks = self._landmarks(corrected.detach(), points[..., 2])
        x = torch.cat([x, self.points(torch.cat([landmarks, own], dim=1))], dim=1)
        return Look(self.hidden(x), landmarks, corrected, own)

    def refit_identity(self, features: Tensor, landmarks: Tensor, identity: Tensor) -> None:
        """Sets the last layers of identity to the ridge regression of people's identity [N, K] on `look`'s.

        Args:
            features: [N, hidden].
            landmarks: [N, n_whitened + P], or [N, 0] for networks without landmarks.
            identity: [N, K].
        """
        head, n = self.heads["identity"], features.shape[1]
        assert isinstance(head, nn.Linear)
        both = nn.Linear(n + landmarks.shape[1], len(head.bias))
        set_to_ridge(both, torch.cat([features, landmarks], dim=1), identity, _REFIT)
        with torch.no_grad():
            head.weight.copy_(both.weight[:, :n])
            head.bias.copy_(both.bias)
            if self.points is not None:
                self.shape_of_points.weight[: len(head.bias)] = both.weight[:, n:]
                self.shape_of_points.bias[: len(head.bias)] = 0.0


class WithEvidence(nn.Module):
    """The network with what it saw at the landmarks, from which changes between frames are read.

    Args:
        network: Whose weights are used.
        with_detail: Whether detail is read; else its codes are 0.
    """

    def __init__(self, network: Hiface, with_detail: bool = True) -> None:
        super().__init__()
        self.network, self.config, self.with_detail = network, network.config, with_detail

    def forward(self, crops_srgb: Tensor, points: Tensor | None = None) -> tuple[Tensor, ...]:
        """`Hiface.forward`, and the evidence [B, n_whitened + 3 P]: places, certainty, local features."""
        seen = self.network.look(crops_srgb, points)
        evidence = torch.cat([seen.landmarks, seen.own], dim=1)
        return *self.network.answers(crops_srgb, seen, self.with_detail), evidence


def colours_at(crops_srgb: Tensor, points: Tensor) -> Tensor:
    """Colours around points, means over a twentieth of the side: [B, 3, S, S], [B, P, 2] to [B, 3 P]."""
    small = F.avg_pool2d(crops_srgb, crops_srgb.shape[-1] // 20)
    grid = points.detach().clamp(-1.0, 1.0)[:, :, None]
    return F.grid_sample(small, grid, align_corners=False, padding_mode="border").flatten(1)


def build_hiface(config: HifaceConfig | None = None) -> Hiface:
    """A network with random weights (`config` defaults to the shipped sizes)."""
    return Hiface(config or HifaceConfig())
