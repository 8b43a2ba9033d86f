# SPDX-License-Identifier: Apache-2.0
"""E_reg: what is known about faces, eyes, lenses and light before looking at the photo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.fitting.config import FitConfig
from hiface.fitting.parameters import ParamLayout
from hiface.fitting.solver import Quadratic
from hiface.render.shade import SH_C0
from hiface.types import FaceParams


@dataclass(frozen=True)
class PriorEnergy:
    """0.5 x H x + g x + hinges: E_reg of all parameters.

    Attributes:
        hessian: [P, P] of the quadratic part.
        gradient: [P] at x = 0.
        hinge_rows: [R, P]; each costs 0.5 weight max(0, row x)^2.
        hinge_weights: [R].
    """

    hessian: Tensor
    gradient: Tensor
    hinge_rows: Tensor
    hinge_weights: Tensor

    def cost(self, x: Tensor) -> Tensor:
        """E_reg at x [P]."""
        over = (self.hinge_rows @ x).clamp_min(0.0)
        return 0.5 * x @ (self.hessian @ x) + self.gradient @ x + 0.5 * (self.hinge_weights * over**2).sum()

    def linearise(self, x: Tensor) -> Quadratic:
        """Quadratic model at x [P]."""
        over = self.hinge_rows @ x
        weight = self.hinge_weights * (over > 0)
        rows = self.hinge_rows * weight[:, None]
        gradient = self.hessian @ x + self.gradient + rows.T @ over
        return Quadratic(self.cost(x), gradient, self.hessian + rows.T @ self.hinge_rows)


@dataclass(frozen=True)
class Start:
    """What is believed of a face before it is fitted, for example by a network.

    Attributes:
        params: Identity, expression, albedo and static detail, without batch dimensions; pose, camera and
            light are found anew.
        identity_sigma: [K] standard deviation of each identity coefficient about `params`, sigma; 1 about the
            mean face is what a fit assumes without a start.
        expression_sigma: Standard deviation of all expressions, 0..1, beside the prior of expressions.
        albedo_sigma: Standard deviation of all albedo coefficients about `params`, sigma.
    """

    params: FaceParams
    identity_sigma: Tensor
    expression_sigma: float
    albedo_sigma: float


class _Builder:
    """Collects quadratic residuals 0.5 weight (row x - target)^2."""

    def __init__(self, size: int) -> None:
        self.hessian = torch.zeros(size, size, dtype=torch.float64)
        self.gradient = torch.zeros(size, dtype=torch.float64)
        self.hinges: list[tuple[Tensor, float]] = []

    def row(self, entries: dict[int, float]) -> Tensor:
        row = torch.zeros_like(self.gradient)
        for index, value in entries.items():
            row[index] = value
        return row

    def square(self, entries: dict[int, float], weight: float) -> None:
        row = self.row(entries)
        self.hessian += weight * torch.outer(row, row)

    def near(self, where: slice, target: Tensor, weight: Tensor) -> None:
        """Pulls neighbouring parameters [n] to `target` [n] with weights [n]."""
        self.hessian.diagonal()[where] += weight.double()
        self.gradient[where] -= (weight * target).double()

    def hinge(self, entries: dict[int, float], weight: float) -> None:
        self.hinges.append((self.row(entries), weight))


def build_prior(
    layout: ParamLayout,
    expression_names: tuple[str, ...],
    config: FitConfig,
    focal_known: bool,
    start: Start | None = None,
) -> PriorEnergy:
    """Builds E_reg.

    Args:
        layout: Layout of the parameters.
        expression_names: The model's expressions.
        config: Weights.
        focal_known: Whether the focal length came from metadata.
        start: What is believed of this face; it takes the place of the mean face.

    Returns:
        PriorEnergy over [P] parameters, in double precision.
    """
    builder = _Builder(layout.size)
    diagonal = builder.hessian.diagonal()
    if start is None:
        diagonal[layout["identity"]] += config.reg_identity
        diagonal[layout["albedo"]] += config.reg_albedo
    else:
        n = layout.n_identity
        known = config.reg_identity * start.identity_sigma[:n].clamp_min(1e-3) ** -2
        builder.near(layout["identity"], start.params.identity[:n], known)
        names = layout["expression"]
        sure = torch.full((layout.n_expression - layout.n_jaw,), start.expression_sigma**-2)
        builder.near(slice(names.start, names.stop - layout.n_jaw), start.params.expression, sure)
        tinted = torch.full((layout.n_albedo,), config.reg_albedo * start.albedo_sigma**-2)
        builder.near(layout["albedo"], start.params.albedo, tinted)
    expressions, jaw = layout.split_expression(diagonal)
    expressions += config.reg_expression if layout.sigma_expressions else config.expression_ridge
    jaw += diagonal.new_tensor(config.jaw_sigma[: layout.n_jaw]) ** -2
    sigma = config.focal_sigma_known if focal_known else config.focal_sigma
    diagonal[layout["log_focal"]] += 1 / sigma**2
    diagonal[layout["gaze"]] += 1 / config.gaze_sigma**2
    gaze = layout["gaze"].start
    for axis in range(2):
        builder.square({gaze + axis: 1.0, gaze + 2 + axis: -1.0}, 1 / config.gaze_vergence**2)
    _add_expression_prior(builder, layout, expression_names, config)
    _add_light_prior(builder, layout, config)
    rows = torch.stack([row for row, _ in builder.hinges])
    weights = torch.tensor([weight for _, weight in builder.hinges], dtype=torch.float64)
    return PriorEnergy(builder.hessian, builder.gradient, rows, weights)


def _add_expression_prior(
    builder: _Builder, layout: ParamLayout, names: tuple[str, ...], config: FitConfig
) -> None:
    table = load_json_asset("expressions/fit_prior.json")
    start = layout["expression"].start
    index = {name: start + i for i, name in enumerate(names)}
    for name, i in index.items() if not layout.sigma_expressions else ():
        builder.gradient[i] += config.expression_sparsity * table["sparsity"].get(name, 1.0)
    for left, right, weight in table["symmetry"]:
        if left in index and right in index:
            builder.square({index[left]: 1.0, index[right]: -1.0}, config.expression_symmetry * weight)
    for small, large in table["at_most"]:
        if small in index and large in index:
            builder.hinge({index[small]: 1.0, index[large]: -1.0}, config.mouth_close)
    gaze = layout["gaze"].start
    degrees = load_json_asset("expressions/gaze.json")["degrees_at_one"]
    for eye, axis, positive, negative in table["gaze"]:
        if positive in index and negative in index:
            at_one = math.radians(degrees["Down"] if axis == 0 else degrees["Out"])
            entries = {index[positive]: 1.0, index[negative]: -1.0, gaze + 2 * eye + axis: -1.0 / at_one}
            builder.square(entries, config.gaze_lids)


def _add_light_prior(builder: _Builder, layout: ParamLayout, config: FitConfig) -> None:
    """Grey, moderately directional, not negative; how bright it is, is the matter of `LightLevel`."""
    start = layout["light"].start
    for band, count, sigma in ((0, 1, 1.5), (1, 3, 1.0), (4, 5, 0.5)):
        for k in range(band, band + count):
            for channel in range(3):
                index = start + 3 * k + channel
                tint = {start + 3 * k + c: (2 / 3 if c == channel else -1 / 3) for c in range(3)}
                builder.square(tint, config.reg_light / (0.3 * sigma) ** 2)
                if k > 0:
                    builder.square({index: 1.0}, config.reg_light / sigma**2)
    for channel in range(3):
        builder.hinge({start + channel: -1.0}, 100.0)


@dataclass(frozen=True)
class LightLevel:
    """How brightly faces in photos are lit: 0.5 (log(level / expected) / sigma)^2.

    A bright face under little light and a dark one under much give the same picture. What tells them apart
    is that photos are exposed for the whole scene, so that the light on faces, in units of the picture's
    white, varies less than human skin does.

    Attributes:
        start: Position of the first light coefficient in the parameters; the level is the mean of the first
            three (band 0 of red, green and blue) as brightness from all sides.
        expected: Level that is expected, in the units of the parameters.
        sigma: Standard deviation of its logarithm.
    """

    start: int
    expected: float
    sigma: float

    def _level(self, x: Tensor) -> Tensor:
        level = x[self.start : self.start + 3].double().mean() * SH_C0
        return level.clamp_min(0.01 * self.expected)

    def _residual(self, x: Tensor) -> Tensor:
        return (self._level(x) / self.expected).log() / self.sigma

    def cost(self, x: Tensor) -> Tensor:
        """Energy at x [P]."""
        return 0.5 * self._residual(x) ** 2

    def linearise(self, x: Tensor) -> Quadratic:
        """Quadratic model at x [P]."""
        row = torch.zeros(x.shape[0], dtype=torch.float64)
        row[self.start : self.start + 3] = SH_C0 / (3.0 * self.sigma * self._level(x))
        residual = self._residual(x)
        return Quadratic(self.cost(x), residual * row, torch.outer(row, row))


@dataclass(frozen=True)
class ScaleEvidence:
    """Keeps the size of the head unbiased: count * log(pixels per metre).

    With a free scale, the most probable coefficients alone prefer too small a head, because every deviation
    from the mean, in metres, shrinks with it. Integrating the coefficients out (Laplace's approximation) adds
    0.5 log det(H); the data part of H grows with the square of the pixels per metre, so its derivative to the
    log of the scale is trace(H^-1 H_data), the number of coefficients that the data determine.

    Attributes:
        count: Number of determined coefficients.
        index: Position of the log scale in the parameters.
    """

    count: float
    index: int

    def cost(self, x: Tensor) -> Tensor:
        """Energy at x [P]."""
        return self.count * x[self.index].double()

    def linearise(self, x: Tensor) -> Quadratic:
        """Linear model at x [P]."""
        gradient = torch.zeros(x.shape[0], dtype=torch.float64)
        gradient[self.index] = self.count
        return Quadratic(self.cost(x), gradient, gradient.new_zeros(x.shape[0], x.shape[0]))


def scale_evidence(layout: ParamLayout, data: Quadratic, prior: Quadratic, x: Tensor) -> ScaleEvidence:
    """ScaleEvidence from the Hessians of the data terms and of the prior at x [P].

    Pose and focal length are integrated out as well; their part of H does not grow as the head shrinks.
    Expressions on their bounds are left out: nothing is integrated there.
    """
    counted = layout.mask("identity", "expression")
    expression, (lower, upper) = x[layout["expression"]], layout.expression_bounds(x)
    counted[layout["expression"]] = (expression > lower + 1e-3) & (expression < upper - 1e-3)
    kept = torch.nonzero(counted | layout.mask("rotation", "centre", "log_focal"))[:, 0]
    block = data.hessian[kept][:, kept]
    total = block + prior.hessian[kept][:, kept]
    total.diagonal().add_(1e-9 * float(total.diagonal().max()))
    shares = torch.linalg.solve(total, block).diagonal()
    return ScaleEvidence(float(shares[counted[kept]].sum()), layout["log_scale"].start)
