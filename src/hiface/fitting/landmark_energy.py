# SPDX-License-Identifier: Apache-2.0
"""E_lan: landmark residuals with analytic Jacobians through the linear model and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import ModelFormatError
from hiface.fitting.config import FitConfig
from hiface.fitting.observations import FaceObservation
from hiface.fitting.parameters import ParamLayout, PoseFrame
from hiface.fitting.point_basis import (
    EYE_JOINTS,
    PointBasis,
    gather_points,
    gather_vertices,
    project,
    project_px,
)
from hiface.fitting.robust import gauss_newton, student_energy, student_weight
from hiface.fitting.solver import Quadratic
from hiface.morphable import MorphableModel, MorphableModelData
from hiface.morphable.contour import select_contour

N_SPARSE = 68
N_JAW = 17


@dataclass(frozen=True)
class LandmarkModel:
    """The linear model at every point that can be a landmark; made once per model.

    Attributes:
        sparse: PointBasis of the 68 points.
        contour: PointBasis of 17 * C jaw candidates, or None.
        contour_valid: [17, C] bool, or None.
        dense: PointBasis of the dense set, or None of a model without one.
        iris: PointBasis of the two iris centres, right and left eye, or None of a model without eye joints.
    """

    sparse: PointBasis
    contour: PointBasis | None
    contour_valid: Tensor | None
    dense: PointBasis | None
    iris: PointBasis | None


def build_landmark_model(model: MorphableModel, n_identity: int, dtype: torch.dtype) -> LandmarkModel:
    """Gathers the model at its landmark sets "ibug68" and "dense", the jaw contour and the irises.

    Args:
        model: Face model.
        n_identity: Leading identity coefficients to keep.
        dtype: Precision of the result.

    Returns:
        LandmarkModel.

    Raises:
        ModelFormatError: The model has no landmark set "ibug68".
    """
    return gather_landmarks(model.data, n_identity, dtype)


def gather_landmarks(data: MorphableModelData, n_identity: int, dtype: torch.dtype) -> LandmarkModel:
    """`build_landmark_model` of a model's tensors.

    Raises:
        ModelFormatError: The model has no landmark set "ibug68".
    """
    if "ibug68" not in data.landmark_sets:
        raise ModelFormatError(
            f"face model {data.name!r} has no landmark set 'ibug68', which fitting needs; complete it "
            "(hiface.transfer.completed)"
        )
    contour = data.contour
    sparse, dense = data.landmark_sets["ibug68"], data.landmark_sets.get("dense")
    iris = _iris_basis(data, n_identity)
    return LandmarkModel(
        sparse=gather_points(data, sparse, n_identity).to(dtype),
        contour=None if contour is None else gather_points(data, contour.points, n_identity).to(dtype),
        contour_valid=None if contour is None else contour.valid,
        dense=None if dense is None else gather_points(data, dense, n_identity).to(dtype),
        iris=None if iris is None else iris.to(dtype),
    )


def _iris_basis(data: MorphableModelData, n_identity: int) -> PointBasis | None:
    """Centres of the halves of the "iris" set (right, left), or the foremost vertex of each eyeball."""
    if not set(EYE_JOINTS) <= set(data.joint_names):
        return None  # eyes that cannot turn say nothing of the face by where they look
    if "iris" in data.landmark_sets:
        rim = gather_points(data, data.landmark_sets["iris"], n_identity)
        half = len(rim) // 2
        mean = rim.mean.reshape(2, half, 3).mean(1)
        basis = rim.basis.unflatten(0, (2, half)).mean(1)
        return PointBasis(mean, basis, rim.eye[[0, half]], rim.joint_mean, rim.joint_basis)
    ids = []
    for name in ("eye_right", "eye_left"):
        weight = data.skin_weights[:, data.joint_names.index(name)]
        ids.append(int(torch.where(weight > 0.5, data.template[:, 2], -torch.inf).argmax()))
    return gather_vertices(data, torch.tensor(ids), n_identity)


def select_jaw(landmarks: LandmarkModel, x: Tensor, layout: ParamLayout, frame: PoseFrame) -> PointBasis:
    """The 68 points with the jaw on the outline that the current pose shows (`model.landmarks_cam`)."""
    if landmarks.contour is None or landmarks.contour_valid is None:
        return landmarks.sparse
    cam = project(landmarks.contour, x, layout, frame).points_cam
    lines = cam.reshape(*landmarks.contour_valid.shape, 3)
    chosen = select_contour(lines, landmarks.contour_valid)
    flat = torch.arange(chosen.shape[0]) * landmarks.contour_valid.shape[1] + chosen
    rest = torch.arange(chosen.shape[0], N_SPARSE)
    return PointBasis.join([landmarks.contour[flat], landmarks.sparse[rest]])


@dataclass(frozen=True)
class LandmarkEnergy:
    """Robust sum over points, openings and irises.

    With d = px - observed of the N points, the rows are d of the first n_points points and then the
    combinations differences @ d. Row r is whitened by whiten[r]; its penalty is weight[r] * student(|whiten
    d|^2).

    Attributes:
        points: PointBasis of N points.
        observed_px: [N, 2] pixels.
        n_points: Leading points that are compared one by one.
        differences: [R - n_points, N].
        whiten: [R, 2, 2] inverse square roots of covariances, 1 / pixels.
        weight: [R].
        degrees: Degrees of freedom of the Student-t penalty.
        layout: Layout of the parameters.
        frame: Pose frame.
    """

    points: PointBasis
    observed_px: Tensor
    n_points: int
    differences: Tensor
    whiten: Tensor
    weight: Tensor
    degrees: float
    layout: ParamLayout
    frame: PoseFrame

    def residuals(self, x: Tensor) -> Tensor:
        """Whitened residuals [R, 2] at x [P]."""
        px = project_px(self.points, x, self.layout, self.frame)
        return self._whitened(px)

    def _whitened(self, px: Tensor) -> Tensor:
        return (self.whiten @ self._rows(px - self.observed_px)[..., None])[..., 0]

    def _rows(self, values: Tensor) -> Tensor:
        """[N, 2, ...] values of points to [R, 2, ...] of rows."""
        combined = (self.differences @ values.flatten(1)).unflatten(1, values.shape[1:])
        return torch.cat([values[: self.n_points], combined])

    def cost(self, x: Tensor) -> Tensor:
        """E_lan at x [P]."""
        return self._energy(self.residuals(x))

    def _energy(self, residual: Tensor) -> Tensor:
        return (self.weight * student_energy((residual**2).sum(-1), self.degrees)).sum()

    def linearise(self, x: Tensor) -> Quadratic:
        """Quadratic model at x [P]."""
        projection = project(self.points, x, self.layout, self.frame)
        residual = self._whitened(projection.px)
        jacobian = (self.whiten @ self._rows(projection.jacobian)).flatten(0, 1)
        weight = self.weight * student_weight((residual**2).sum(-1), self.degrees)
        small = gauss_newton(
            self._energy(residual), residual.flatten(), jacobian, weight[:, None].expand(-1, 2).flatten()
        )
        return _pad(small, self.layout.size)


def _pad(model: Quadratic, size: int) -> Quadratic:
    """Quadratic model of the leading parameters as one of all parameters."""
    n = model.gradient.shape[0]
    gradient = model.gradient.new_zeros(size)
    hessian = model.hessian.new_zeros(size, size)
    gradient[:n] = model.gradient
    hessian[:n, :n] = model.hessian
    return Quadratic(model.cost, gradient, hessian)


def build_landmark_energy(
    landmarks: LandmarkModel,
    observation: FaceObservation,
    x: Tensor,
    layout: ParamLayout,
    frame: PoseFrame,
    config: FitConfig,
) -> LandmarkEnergy:
    """E_lan around the current estimate, from which the jaw outline is chosen.

    Args:
        landmarks: The model at its landmarks.
        observation: Measured points.
        x: [P] current parameters.
        layout: Layout of the parameters.
        frame: Pose frame.
        config: Weights.

    Returns:
        LandmarkEnergy.
    """
    parts, observed, sigmas, weights = [select_jaw(landmarks, x, layout, frame)], [], [], []
    dtype = x.dtype
    observed.append(observation.landmarks68_px.to(dtype))
    sigmas.append(total_sigma(observation.landmarks68_sigma_px, N_SPARSE, frame.size_px, config).to(dtype))
    weights.append(torch.full((N_SPARSE,), min(1.0, config.effective_sparse / N_SPARSE), dtype=dtype))
    if observation.dense_px is not None and landmarks.dense is not None:
        n = observation.dense_px.shape[0]
        parts.append(landmarks.dense)
        observed.append(observation.dense_px.to(dtype))
        sigmas.append(total_sigma(observation.dense_sigma_px, n, frame.size_px, config).to(dtype))
        weights.append(torch.full((n,), min(1.0, config.effective_dense / n), dtype=dtype))
    n_points = sum(len(part) for part in parts)
    if observation.iris_px is not None and landmarks.iris is not None:
        parts.append(landmarks.iris)
        observed.append(observation.iris_px.to(dtype))
        sigmas.append(total_sigma(observation.iris_sigma_px, 2, frame.size_px, config).to(dtype))
    sigma = torch.cat(sigmas)
    rows, row_sigma, row_weight = _difference_rows(sigma, n_points, config)
    whiten = torch.diag_embed((1 / torch.cat([sigma[:n_points], row_sigma]))[:, None].expand(-1, 2))
    points = PointBasis.join(parts)
    if landmarks.contour is not None:
        jaw_px = project_px(points[torch.arange(N_JAW)], x, layout, frame)
        whiten[:N_JAW] = _across_line(jaw_px, config.jaw_slide) @ whiten[:N_JAW]
    return LandmarkEnergy(
        points,
        torch.cat(observed),
        n_points,
        rows,
        whiten,
        torch.cat([*weights, row_weight]),
        config.landmark_degrees,
        layout,
        frame,
    )


def total_sigma(sigma_px: Tensor | None, count: int, size_px: float, config: FitConfig) -> Tensor:
    """Standard deviations with the floor of the model added; a default of 2 % of the face size if unknown.

    Args:
        sigma_px: [N] reported standard deviations, pixels, or None.
        count: N.
        size_px: Face size, pixels.
        config: Weights.

    Returns:
        [N] pixels.
    """
    if sigma_px is None:
        sigma_px = torch.full((count,), 0.02 * size_px / config.landmark_sigma_scale, dtype=torch.float64)
    scaled = config.landmark_sigma_scale * sigma_px.double()
    return (scaled**2 + (config.landmark_floor * size_px) ** 2).sqrt()


def _difference_rows(sigma: Tensor, n_points: int, config: FitConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [R, N] of openings (lids, lips) and of irises relative to eye corners, with sigma and weight."""
    groups = load_json_asset("landmarks/ibug68_groups.json")
    entries: list[tuple[dict[int, float], float, float]] = []
    right, left = groups["lid_pairs_right_left"]
    for a, b in right + left + groups["lip_pairs"] + groups["lip_outline_pairs"]:
        spread = config.pair_sigma * float((sigma[a] ** 2 + sigma[b] ** 2).sqrt())
        entries.append(({a: 1.0, b: -1.0}, spread, config.pair_weight))
    if sigma.shape[0] > n_points:
        for eye, (a, b) in enumerate(groups["eye_corners"]):
            iris = n_points + eye
            spread = float((sigma[iris] ** 2 + 0.25 * (sigma[a] ** 2 + sigma[b] ** 2)).sqrt())
            entries.append(({iris: 1.0, a: -0.5, b: -0.5}, spread, config.iris_weight))
    rows = sigma.new_zeros(len(entries), sigma.shape[0])
    for r, (terms, _, _) in enumerate(entries):
        for index, value in terms.items():
            rows[r, index] = value
    spreads = sigma.new_tensor([spread for _, spread, _ in entries])
    return rows, spreads, sigma.new_tensor([weight for _, _, weight in entries])


def _across_line(jaw_px: Tensor, slide: float) -> Tensor:
    """[17, 2, 2] rotation of jaw residuals into (along, across) the line, `along` divided by `slide`."""
    neighbours = torch.cat([jaw_px[:1], jaw_px, jaw_px[-1:]])
    along = neighbours[2:] - neighbours[:-2]
    along = along / along.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    across = torch.stack([-along[:, 1], along[:, 0]], dim=-1)
    return torch.stack([along / slide, across], dim=1)
