# SPDX-License-Identifier: Apache-2.0
"""Convolutional trunks: a small one of our own, and ResNet-50 with torchvision's names of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hiface.errors import AssetError
from hiface.networks.landmarker import standardise
from hiface.networks.layers import ConvNorm, ResidualBlock, residual_stage

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class SmallTrunk(nn.Module):
    """The landmark network's trunk with more blocks where the map is small; its features keep their place.

    Args:
        crop_px: Side of the square input.
        stem: Channels at stride 2.
        widths: Channels at strides 4, 8, 16, 32.
        blocks: Residual blocks at strides 4, 8, 16, 32.
        spatial: Channels that the last map is squeezed to before it is flattened.

    Attributes:
        n_features: Number of features.
        widths: Channels of the maps at strides 2, 4 and 8.
    """

    def __init__(
        self,
        crop_px: int,
        stem: int = 16,
        widths: tuple[int, ...] = (32, 80, 144, 208),
        blocks: tuple[int, ...] = (1, 1, 2, 2),
        spatial: int = 64,
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, stem, 5, 2)
        channels = (stem, *widths)
        self.stages = nn.Sequential(
            *(residual_stage(channels[i], channels[i + 1], blocks[i]) for i in range(len(widths)))
        )
        side = -(-crop_px // 32)
        self.squeeze = ConvNorm(widths[-1], spatial, 1)
        self.n_features = spatial * side * side + widths[-1]
        self.widths = channels[:3]
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for block in list(stage)[1:]:
                assert isinstance(block, ResidualBlock)
                norm = block.second[1]
                assert isinstance(norm, nn.BatchNorm2d)
                nn.init.zeros_(norm.weight)  # starts as the identity

    def forward(self, crops_srgb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 3, S, S] sRGB 0..1 to [B, n_features] and the maps of `widths`."""
        maps = [self.stem(standardise(crops_srgb))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x = maps[-1]
        return torch.cat([self.squeeze(x).flatten(1), x.mean(dim=(2, 3))], dim=1), maps[: len(self.widths)]

    def start_from_landmarker(self, state: Mapping[str, Tensor]) -> int:
        """Copies what fits from the weights of a landmark network; returns the number of tensors copied."""
        own = self.state_dict()
        fits = {
            name: value
            for name, value in state.items()
            if name in own and own[name].shape == value.shape and name.startswith(("stem.", "stages."))
        }
        self.load_state_dict({**own, **fits})
        return len(fits)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a short cut (He et al. 2016); the stride is in the 3x3."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, 4 width, H / s, W / s]."""
        short = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + short)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier; a state dict of torchvision's `resnet50` loads into it.

    Attributes:
        n_features: 2048.
        widths: Channels of the maps at strides 2 and 4, before its first stage.
    """

    n_features = 2048
    widths = (64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        cin = 64
        for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            stage = nn.Sequential()
            for i in range(blocks):
                stage.append(Bottleneck(cin, width, 2 if i == 0 and number > 1 else 1))
                cin = 4 * width
            self.add_module(f"layer{number}", stage)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, crops_srgb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 3, S, S] sRGB 0..1 to [B, 2048] and the maps of `widths`."""
        x = torch.relu(self.bn1(self.conv1((crops_srgb - self.mean) / self.std)))
        maps = [x, self.maxpool(x)]
        x = maps[-1]
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3)), maps

    def start_from_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Copies the weights of torchvision's `resnet50`, for example a user's ImageNet weights.

        Raises:
            AssetError: Names or shapes differ.
        """
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        try:
            self.load_state_dict(kept)
        except RuntimeError as error:
            raise AssetError(
                f"these are not weights of torchvision's resnet50 ({str(error).splitlines()[-1].strip()}); "
                "give the state dict of torchvision.models.resnet50"
            ) from error
