# SPDX-License-Identifier: Apache-2.0
"""Static detail read from the picture where the face lies: its brightness over texture space, to codes.

Landmarks say where each texel is seen, pose and light how relief would change its brightness; a few
convolutions over texture space turn fine brightness into relief, and the basis turns relief into codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiface.colour import LUMINANCE, srgb_to_linear
from hiface.detail.basis import DetailBasis
from hiface.detail.displacement import relief_slopes
from hiface.detail.sd_detail import detail_space
from hiface.errors import AssetError
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.networks.poses import rotation_from_6d
from hiface.render.pyramid import blur, push_pull, smoothstep
from hiface.render.shade import rotate_light, sh_basis
from hiface.render.texels import FACING

_FINER = 2  # texels of the basis along one of the reader
_COARSER = 4  # texels of the reader along one of the control grid
_SLOPE = 1e-3  # metres of difference that slopes are measured by
_PATH = 8.0  # log brightness is multiplied by this
_RADIUS = 4  # texels of the bell that is taken away


@dataclass(frozen=True)
class ReliefGrid:
    """What is known before any picture: where the reader's texels lie on the mean face.

    Attributes:
        size: Rows H and columns W of the reader's map.
        shading: [3, 9, H W] spherical harmonics of the smooth normals and what a difference of a millimetre
            along u and along v adds to them, in the head's axes.
        facing: [H W, 3] smooth normals.
        place: [h w, P] weights of the landmarks in the place of each control point.
        texels: [T] int64 texels of the map that the basis reaches.
        codes: [S, T] codes of a relief in tenths of a millimetre.
    """

    size: tuple[int, int]
    shading: Tensor
    facing: Tensor
    place: Tensor
    texels: Tensor
    codes: Tensor


def relief_grid(model: MorphableModel, basis: DetailBasis, n_codes: int) -> ReliefGrid:
    """Works out the reader's constants for a face model and the first `n_codes` static codes of its basis.

    The place of a control point is the linear function of the landmarks that follows best all shapes and
    expressions of the model; being the same for x, y and z, it holds in pictures too.
    """
    rows, columns = basis.texels // basis.size, basis.texels % basis.size
    step = _FINER * _COARSER
    top, left = (int(v.min()) // step * step for v in (rows, columns))
    height, width = (-(-(int(v.max()) + 1 - low) // step) * step for v, low in ((rows, top), (columns, left)))

    def window(maps: Tensor, factor: int) -> Tensor:
        cut = maps[..., top : top + height, left : left + width]
        return F.avg_pool2d(cut.reshape(-1, 1, height, width), factor).reshape(*maps.shape[:-2], -1)

    space = detail_space(model, basis.size)
    known = (space.triangle_id >= 0).float()
    mean, bases = model.template, torch.cat([model.identity_basis, model.expression_basis])
    maps = space.lift(torch.cat([mean, vertex_normals(mean, model.triangles)], dim=1))
    position, normal = push_pull(maps[:3], known), unit(push_pull(maps[3:], known), 0)
    slopes = relief_slopes(position, normal)
    flat_normal = unit(window(normal, _FINER), 0).T
    bent = [_SLOPE * window(s, _FINER).T for s in slopes]
    shading = torch.stack(
        [
            sh_basis(flat_normal),
            *(0.5 * (sh_basis(flat_normal - v) - sh_basis(flat_normal + v)) for v in bent),
        ]
    )
    moved = torch.stack([push_pull(space.lift(b), known) for b in bases])
    seen = torch.cat([10.0 * position[None], moved])
    targets = window(seen, step).flatten(0, 1)
    sets = [model.landmark_set(name) for name in ("ibug68", "dense", "iris")]
    vertices = torch.cat([10.0 * mean[None], bases])
    points = torch.cat([s.positions(vertices, model.triangles) for s in sets], dim=1)
    place = _weights(points.transpose(1, 2).flatten(0, 1), targets)
    inside = torch.zeros(basis.size**2).index_fill_(0, basis.texels, 1.0).reshape(basis.size, basis.size)
    texels = (window(inside, _FINER) >= 0.5).nonzero()[:, 0]
    return ReliefGrid(
        (height // _FINER, width // _FINER),
        shading.transpose(1, 2).contiguous(),
        flat_normal,
        place,
        texels,
        _encoder(basis, n_codes, (top, left, height, width), texels),
    )


def _weights(points: Tensor, targets: Tensor) -> Tensor:
    """[Q, P] with weights @ points = targets, small and of sum 1: points [N, P], targets [N, Q]."""
    a, b = points.double(), targets.double()
    heavy = 10.0 * a.abs().max() * torch.ones(1, a.shape[1], dtype=a.dtype)
    a, b = torch.cat([a, heavy]), torch.cat([b, heavy[:, :1].expand(1, b.shape[1])])
    normal = a @ a.T
    normal.diagonal().add_(1e-5 * normal.diagonal()[:-1].mean())
    return (a.T @ torch.linalg.solve(normal, b)).T.float()


def _encoder(basis: DetailBasis, n_codes: int, window: tuple[int, int, int, int], texels: Tensor) -> Tensor:
    """[S, T] codes of one unit (0.1 mm) of each of the reader's texels, spread over those of the basis."""
    top, left, height, width = window
    part = basis.static.first(n_codes)
    rows = part.rows * part.weight**2 / part.variances[:, None]
    maps = torch.zeros(len(rows), basis.size**2)
    maps[:, basis.texels] = rows
    cut = maps.reshape(-1, 1, basis.size, basis.size)[..., top : top + height, left : left + width]
    sums = _FINER**2 * F.avg_pool2d(cut, _FINER)
    return 1e-4 * sums.flatten(1)[:, texels]


class ReliefReader(nn.Module):
    """Convolutions over texture space.

    Args:
        size: Rows and columns of its map.
        n_points: Number of landmarks.
        n_texels: Number of texels that the basis reaches.
        n_codes: Number of codes.
        channels: Of the convolutions.
    """

    def __init__(
        self, size: tuple[int, int], n_points: int, n_texels: int, n_codes: int, channels: int
    ) -> None:
        super().__init__()
        self.size = size
        controls = (size[0] // _COARSER) * (size[1] // _COARSER)
        count = size[0] * size[1]
        self.shading: Tensor
        self.facing: Tensor
        self.place: Tensor
        self.texels: Tensor
        self.register_buffer("shading", torch.zeros(3, 9, count))
        self.register_buffer("facing", torch.zeros(count, 3))
        self.register_buffer("place", torch.zeros(controls, n_points))
        self.register_buffer("texels", torch.zeros(n_texels, dtype=torch.int64))
        self.first = nn.Conv2d(6, channels, 3, padding=1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.wide = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        self.codes = nn.Linear(n_texels, n_codes)
        for bias in (self.codes.bias, self.last.bias):
            assert bias is not None
            nn.init.zeros_(bias)
        nn.init.zeros_(self.last.weight)

    def start(self, grid: ReliefGrid) -> None:
        """Takes the constants of a face model.

        Raises:
            AssetError: The network is for other numbers of texels or codes.
        """
        has = (grid.size, tuple(grid.place.shape), tuple(grid.codes.shape))
        wants = (tuple(self.size), tuple(self.place.shape), tuple(self.codes.weight.shape))
        if has != wants:
            raise AssetError(
                f"the network reads relief on {wants} (map, control points, codes), the face model has "
                f"{has}; train with a preset made for its detail basis"
            )
        with torch.no_grad():
            for name in ("shading", "facing", "place", "texels"):
                getattr(self, name).copy_(getattr(grid, name))
            self.codes.weight.copy_(grid.codes)

    def forward(self, crops_srgb: Tensor, points: Tensor, rotation6d: Tensor, light: Tensor) -> Tensor:
        """Static codes that the fine brightness speaks for.

        Args:
            crops_srgb: [B, 3, S, S] sRGB 0..1.
            points: [B, P, 2] landmarks, crop coordinates.
            rotation6d: [B, 6] first two columns of the rotation, head to the crop's camera.
            light: [B, 27] nine rows of RGB, in the axes of the crop's camera.

        Returns:
            [B, n_codes]. Differentiable to the layers' weights only.
        """
        # Half precision would move the places by tenths of a pixel.
        with torch.no_grad(), torch.autocast(crops_srgb.device.type, enabled=False):
            rotation = rotation_from_6d(rotation6d.float())
            lamp = turned_to_head(light.float(), rotation)
            seen = self.guidance(crops_srgb, points.float(), rotation, lamp)
        x = torch.relu(self.first(seen))
        x = x + torch.relu(self.middle(x))
        x = x + torch.relu(self.wide(x))
        relief = self.last(x).flatten(1)[:, self.texels]
        return self.codes(relief)

    def guidance(self, crops_srgb: Tensor, points: Tensor, rotation: Tensor, light: Tensor) -> Tensor:
        """[B, 6, H, W]: fine log brightness, how well it is seen, its slopes, and both products."""
        height, width = self.size
        controls = (self.place @ points).transpose(1, 2)
        controls = controls.unflatten(2, (height // _COARSER, width // _COARSER))
        places = F.interpolate(controls, size=(height, width), mode="bilinear", align_corners=False)
        grid = places.permute(0, 2, 3, 1)
        weights = crops_srgb.new_tensor(LUMINANCE)[:, None, None]
        bright = (srgb_to_linear(crops_srgb) * weights).sum(dim=1, keepdim=True)
        logs = _PATH * torch.log(bright + 0.01)
        logs = F.grid_sample(logs, grid.clamp(-1.0, 1.0), align_corners=False, padding_mode="border")
        facing = -(rotation[:, 2] @ self.facing.T).unflatten(1, (height, width))
        inside = (grid.abs().amax(dim=-1) < 1.0).to(logs.dtype)[:, None]
        weight = smoothstep(facing, *FACING) * inside[:, 0]
        broad = blur(logs[:, 0] * weight, _RADIUS) / blur(weight, _RADIUS).clamp_min(1e-3)
        weight, fine = weight[:, None], (weight * (logs[:, 0] - broad))[:, None]
        shading = torch.stack([light @ part for part in self.shading], dim=1)
        floor = 0.1 * shading[:, :1].amax(dim=2, keepdim=True).clamp_min(1e-3)
        slopes = shading[:, 1:] / torch.maximum(shading[:, :1], floor)
        slopes = weight * slopes.clamp(-2.0, 2.0).unflatten(2, (height, width))
        return torch.cat([fine.clamp(-4.0, 4.0), weight, slopes, fine * slopes], dim=1)


def turned_to_head(light: Tensor, rotation: Tensor) -> Tensor:
    """[B, 9] light of brightness in the head's axes, of light [B, 27] in the axes of the crop's camera.

    Args:
        light: Nine rows of RGB, flat.
        rotation: [B, 3, 3] head to the crop's camera.
    """
    bright = light.unflatten(1, (9, 3)) @ light.new_tensor(LUMINANCE)
    return rotate_light(bright[..., None], rotation.transpose(1, 2))[..., 0]
