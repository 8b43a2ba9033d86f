# SPDX-License-Identifier: Apache-2.0
"""E_con: colours of object-attached samples against albedo times spherical-harmonics shading."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.colour import LUMINANCE
from hiface.fitting.observations import ImageCrop
from hiface.fitting.parameters import ParamLayout, PoseFrame, cross_matrix, pose_values
from hiface.fitting.point_basis import positions, project, project_px
from hiface.fitting.robust import gauss_newton, geman_energy, geman_weight
from hiface.fitting.samples import SurfaceSamples
from hiface.fitting.shading import sample_normals, sample_normals_jacobian, sh_basis_jacobian
from hiface.fitting.solver import Quadratic
from hiface.render.shade import sh_basis


@dataclass(frozen=True)
class BlurredCrop:
    """One level of the image pyramid.

    Attributes:
        planes: [9, H, W]: colour, its x derivative and its y derivative (per crop pixel).
        offset_px: (x, y) of the crop's corner, pixels of the original image.
        scale: Crop pixels per original pixel.
    """

    planes: Tensor
    offset_px: tuple[float, float]
    scale: float

    def lookup(self, px: Tensor) -> tuple[Tensor, Tensor]:
        """Colour [S, 3] and its derivative [S, 3, 2] per original pixel at px [S, 2]; edges are repeated."""
        height, width = self.planes.shape[-2:]
        local = (px - px.new_tensor(self.offset_px)) * self.scale
        grid = (local / local.new_tensor([width, height]) * 2 - 1)[None, None]
        found = F.grid_sample(self.planes[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T
        return found[:, :3], torch.stack([found[:, 3:6], found[:, 6:9]], dim=-1) * self.scale


def blur_crop(crop: ImageCrop, sigma_px: float, exposure: float, dtype: torch.dtype) -> BlurredCrop:
    """Gaussian-blurred crop divided by the exposure.

    Args:
        crop: The picture.
        sigma_px: Standard deviation of the blur, pixels of the original image.
        exposure: Brightness that becomes 1.
        dtype: Precision.

    Returns:
        BlurredCrop.
    """
    image = crop.image_linear.to(dtype)[:, None] / exposure
    sigma = max(sigma_px * crop.scale, 0.5)
    radius = min(int(3 * sigma) + 1, min(image.shape[-2:]) - 1)
    ticks = torch.arange(-radius, radius + 1, dtype=dtype)
    kernel = torch.exp(-0.5 * (ticks / sigma) ** 2)
    kernel = kernel / kernel.sum()
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), "replicate"), kernel.reshape(1, 1, 1, -1))
    image = F.conv2d(F.pad(image, (0, 0, radius, radius), "replicate"), kernel.reshape(1, 1, -1, 1))
    padded = F.pad(image, (1, 1, 1, 1), "replicate")[:, 0]
    dx = 0.5 * (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    dy = 0.5 * (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    return BlurredCrop(torch.cat([image[:, 0], dx, dy]), crop.offset_px, crop.scale)


@dataclass(frozen=True)
class PhotometricEnergy:
    """Robust sum over samples: weight * geman(|(I(pi(x)) - albedo * SH(n) light) / sigma|^2) per sample.

    Attributes:
        samples: S samples.
        image: Blurred picture divided by the exposure.
        visible: [S] 1 where a sample takes part, else 0.
        sigma: Standard deviation of a colour.
        weight: Weight of one sample.
        scale: Geman-McClure scale.
        moves_geometry: Whether derivatives to geometry parameters are wanted.
        layout: Layout of the parameters.
        frame: Pose frame, in the samples' dtype.
        transfer: [S, 9, 9] how the head's own shadow changes the light, camera axes of the pose where the
            level starts, or None without shadow.
        d_normals: [S, 3, K + E] derivative of the normals in object space to identity and expression where it
            was last computed (`with_noise`); it changes little within a level and takes most of the time.
            Computed anew at every step if None.
        still: Observed colours [S, 3] and shading by each light coefficient [S, 9] where geometry does not
            move, or None.
    """

    samples: SurfaceSamples
    image: BlurredCrop
    visible: Tensor
    sigma: float
    weight: float
    scale: float
    moves_geometry: bool
    layout: ParamLayout
    frame: PoseFrame
    transfer: Tensor | None = None
    d_normals: Tensor | None = None
    still: tuple[Tensor, Tensor] | None = None

    def colours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Observed and modelled colours [S, 3] at x [P], brightness of the face 1."""
        x = x.to(self.samples.albedo_mean.dtype)
        observed, basis = self.still or self._look(x)
        return observed, self._albedo(x) * (basis @ self._light(x))

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Observed colours [S, 3], and shading by each light coefficient [S, 9]."""
        vertices, _, _ = positions(self.samples.vertices, x, self.layout)
        pose = pose_values(x, self.layout, self.frame)
        normals = sample_normals(self.samples, vertices) @ pose.R.T
        observed = self.image.lookup(project_px(self.samples.points, x, self.layout, self.frame))[0]
        return observed, self._shaded(sh_basis(normals))

    def _shaded(self, basis: Tensor) -> Tensor:
        """[S, 9] harmonics of the normals with the head's own shadow."""
        return basis if self.transfer is None else torch.einsum("sk,skj->sj", basis, self.transfer)

    def _light_at(self, light: Tensor) -> Tensor:
        """[S, 9, 3] or [1, 9, 3] light that reaches the samples."""
        return light[None] if self.transfer is None else self.transfer @ light

    def _light(self, x: Tensor) -> Tensor:
        return x[self.layout["light"]].reshape(9, 3)

    def _albedo(self, x: Tensor) -> Tensor:
        offset = x[self.layout["albedo"]] @ self.samples.albedo_basis.flatten(1)
        return (self.samples.albedo_mean + offset.unflatten(-1, (-1, 3))).clamp(1e-3, 1.0)

    def squared(self, x: Tensor) -> Tensor:
        """[S] squared residual over the variance, summed over the colours."""
        observed, modelled = self.colours(x)
        return (((observed - modelled) / self.sigma) ** 2).sum(-1)

    def robust_weights(self, x: Tensor) -> Tensor:
        """[S] weight of each sample, 0 (hidden or not skin) to 1."""
        return self.visible * geman_weight(self.squared(x), self.scale)

    def cost(self, x: Tensor) -> Tensor:
        """E_con at x [P]."""
        return self._energy(self.squared(x))

    def _energy(self, squared: Tensor) -> Tensor:
        return (self.weight * self.visible * geman_energy(squared, self.scale)).sum().double()

    def linearise(self, x: Tensor) -> Quadratic:
        """Quadratic model at x [P]."""
        x = x.to(self.samples.albedo_mean.dtype)
        residual, jacobian = self.residual_jacobian(x)
        squared = (residual**2).sum(-1)
        weight = self.weight * self.visible * geman_weight(squared, self.scale)
        rows = weight[:, None].expand(-1, 3).flatten()
        part = gauss_newton(self._energy(squared), residual.flatten(), jacobian.flatten(0, 1), rows)
        start = self.layout.size - jacobian.shape[-1]
        gradient = torch.zeros(self.layout.size, dtype=part.gradient.dtype)
        hessian = torch.zeros(self.layout.size, self.layout.size, dtype=part.gradient.dtype)
        gradient[start:], hessian[start:, start:] = part.gradient, part.hessian
        return Quadratic(part.cost, gradient, hessian)

    def residual_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals [S, 3] and their derivative [S, 3, Q].

        Q is all parameters, or only albedo and light where geometry does not move.
        """
        albedo, light = self._albedo(x), self._light(x)
        if self.moves_geometry:
            observed, basis, geometry = self._geometry(x, albedo, light)
        else:
            observed, basis = self.still or self._look(x)
            geometry = observed.new_zeros(*observed.shape, 0)
        shading = basis @ light
        to_albedo = -self.samples.albedo_basis.permute(1, 2, 0) * shading[..., None]
        eye = torch.eye(3, dtype=x.dtype)
        to_light = -(albedo[:, :, None, None] * basis[:, None, :, None] * eye[:, None, :]).flatten(2)
        jacobian = torch.cat([geometry, to_albedo, to_light], dim=-1) / self.sigma
        return (observed - albedo * shading) / self.sigma, jacobian

    def _geometry(self, x: Tensor, albedo: Tensor, light: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observed colours, shading by each light coefficient, and the residual's derivative to geometry."""
        samples, layout = self.samples, self.layout
        vertices, d_vertices, _ = positions(samples.vertices, x, layout)
        n_shape = d_vertices.shape[-1]
        projection = project(samples.points, x, layout, self.frame)
        observed, slope = self.image.lookup(projection.px)
        if self.d_normals is None:
            normals, d_normals = sample_normals_jacobian(samples, vertices, d_vertices)
        else:
            normals, d_normals = sample_normals(samples, vertices), self.d_normals
        pose = pose_values(x, layout, self.frame)
        normals = normals @ pose.R.T
        to_normal = albedo[..., None] * (self._light_at(light).transpose(1, 2) @ sh_basis_jacobian(normals))
        result = slope @ projection.jacobian
        result[..., :n_shape] -= (to_normal @ pose.R) @ d_normals
        turn = -cross_matrix(normals) @ pose.rotation_jacobian
        result[..., layout["rotation"]] -= to_normal @ turn
        return observed, self._shaded(sh_basis(normals)), result

    def with_noise(self, x: Tensor, floor: float, effective: float) -> PhotometricEnergy:
        """Copy whose sigma is the robust spread of the residuals at x (median absolute deviation).

        Args:
            x: [P] parameters.
            floor: Least sigma.
            effective: Number of independent samples that the visible ones are worth.
        """
        observed, modelled = self.colours(x)
        seen = self.visible > 0
        spread = 1.4826 * float((observed - modelled)[seen].abs().median())
        weight = min(1.0, effective / (3.0 * float(seen.sum())))
        known = replace(self, sigma=max(spread, floor), weight=weight)
        x = x.to(observed.dtype)
        if not self.moves_geometry:
            return replace(known, still=self._look(x))
        vertices, d_vertices, _ = positions(self.samples.vertices, x, self.layout)
        return replace(known, d_normals=sample_normals_jacobian(self.samples, vertices, d_vertices)[1])


def luminance(colour: Tensor) -> Tensor:
    """Relative luminance of linear RGB, [..., 3] to [...]."""
    return colour @ colour.new_tensor(LUMINANCE)
