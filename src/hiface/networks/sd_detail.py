# SPDX-License-Identifier: Apache-2.0
"""SD-DeTail of a trained network: from a person's static codes and any expression to displacement.

It needs no picture, so that a face that was reconstructed once wrinkles under every expression, and an
optimisation can use it in place of the network (the paper's "plug and play").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.detail.basis import DetailBasis, load_detail_basis
from hiface.detail.sd_detail import DetailMaps, Parts, compose_detail
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel
from hiface.networks.dynamic_codes import DynamicCodes
from hiface.networks.hiface import Hiface


@dataclass(frozen=True, eq=False)
class SdDetail:
    """Detail basis and the part of the network that makes dynamic codes.

    Attributes:
        basis: Detail basis with the network's numbers of codes.
        codes: Dynamic codes from static ones and the expression.
    """

    basis: DetailBasis
    codes: DynamicCodes

    @staticmethod
    def of(network: Hiface, model: str = "open") -> SdDetail:
        """The part of a network that needs no picture.

        Args:
            network: Trained network.
            model: Name of the face model.
        """
        c = network.config
        return SdDetail(
            load_detail_basis(model).first(c.n_static, c.n_compressed, c.n_stretched), network.dynamic
        )

    def maps(
        self,
        model: MorphableModel,
        identity: Tensor,
        expression: Tensor,
        static: Tensor,
        parts: Parts = "both",
    ) -> DetailMaps:
        """Displacement of a person under an expression.

        Args:
            model: Face model.
            identity: [*B, K] sigma.
            expression: [*B, E] 0..1.
            static: [*B, S] static codes.
            parts: What to keep.

        Returns:
            DetailMaps. Differentiable.

        Raises:
            ShapeError: The static codes have another number.
        """
        if static.shape[-1] != self.basis.static.count:
            raise ShapeError(
                f"this network has {self.basis.static.count} static codes, got {static.shape[-1]}; "
                "use codes of the same network"
            )
        neutral = model.shape(identity, torch.zeros_like(expression))
        shape = model.shape(identity, expression)
        batch = static.shape[:-1]
        flat = self.codes(static.reshape(-1, static.shape[-1]), expression.reshape(-1, expression.shape[-1]))
        return compose_detail(
            model, self.basis, neutral, shape, static, flat.reshape(*batch, flat.shape[-1]), parts
        )
