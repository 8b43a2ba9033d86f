# SPDX-License-Identifier: Apache-2.0
"""Face recogniser: a crop to a vector that tells people apart, for the identity loss.

Ours learns from synthetic people alone. Any other module with the same signature takes its place, for example
a recogniser trained on real photos that its user may use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiface.networks.backbones import SmallTrunk


@dataclass(frozen=True)
class RecogniserConfig:
    """Sizes of the recogniser.

    Attributes:
        crop_px: Side of the square input, pixels.
        crop_scale: Side of the crop over the longer side of the face's box.
        n_embedding: Length of the vector.
        hidden: Width of the fully connected layer.
    """

    crop_px: int = 112
    crop_scale: float = 1.6
    n_embedding: int = 128
    hidden: int = 256


class Recogniser(nn.Module):
    """Trunk and a projection to the unit sphere.

    Args:
        config: Sizes.
    """

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = SmallTrunk(config.crop_px, blocks=(1, 1, 1, 1))
        self.project = nn.Sequential(
            nn.Linear(self.trunk.n_features, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.n_embedding),
        )

    def forward(self, crops_srgb: Tensor) -> Tensor:
        """[B, 3, S, S] sRGB 0..1, eyes level, to unit vectors [B, n]; cosines say how alike people are."""
        return nn.functional.normalize(self.project(self.trunk(crops_srgb)[0]), dim=1)


def at_own_size(network: Recogniser) -> Callable[[Tensor], Tensor]:
    """A recogniser that takes crops of any size; its weights are frozen, gradients pass to the crops."""
    side = network.config.crop_px
    network = network.eval().requires_grad_(False)

    def embed(crops_srgb: Tensor) -> Tensor:
        resized = nn.functional.interpolate(crops_srgb, size=(side, side), mode="bilinear", antialias=True)
        return network.to(crops_srgb.device)(resized)

    return embed


def same_person_margin(embeddings: Tensor, persons: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of pairs of one person and of pairs of two.

    Args:
        embeddings: [N, n] unit vectors.
        persons: [N] number of each one's person.

    Returns:
        Cosines of the pairs of one person, and of the others.
    """
    cosines = embeddings @ embeddings.T
    first, second = torch.triu_indices(len(persons), len(persons), 1, device=persons.device)
    same = persons[first] == persons[second]
    values = cosines[first, second]
    return values[same], values[~same]
