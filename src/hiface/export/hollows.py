# SPDX-License-Identifier: Apache-2.0
"""How dark the inside of the mouth and the eye sockets look, which a light without shadows does not know."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.detail.sd_detail import detail_space
from hiface.morphable import MorphableModel

REACHING = {"mouth_interior": 0.3, "socket_left": 0.3, "socket_right": 0.3, "tongue": 0.55}
"""Of the light outside, what reaches parts of the model."""
_MARGIN_PX = 2


def hollow_shade(model: MorphableModel, size: int) -> Tensor:
    """[size, size] factors on a texture: what of the light reaches its texels, with a margin."""
    share = torch.tensor([REACHING.get(name, 1.0) for name in model.data.part_names])
    lost = detail_space(model, size).of_triangles(1.0 - share[model.data.triangle_parts.cpu()], 0.0).cpu()
    return 1.0 - F.max_pool2d(lost[None], 2 * _MARGIN_PX + 1, 1, _MARGIN_PX)[0]
