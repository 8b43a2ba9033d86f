# SPDX-License-Identifier: Apache-2.0
"""Coarse inverse rendering of one photo: E = E_con + w_lan E_lan + w_reg E_reg, in stages."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hiface.errors import FitError
from hiface.fitting.appearance import (
    Appearance,
    default_light,
    photometric_energy,
    read_appearance,
    with_exposure,
)
from hiface.fitting.config import FitConfig
from hiface.fitting.initialise import weak_perspective
from hiface.fitting.landmark_energy import N_SPARSE, LandmarkEnergy, build_landmark_energy, total_sigma
from hiface.fitting.observations import FaceObservation
from hiface.fitting.parameters import ParamLayout, PoseFrame, to_face_params
from hiface.fitting.photometric_energy import PhotometricEnergy
from hiface.fitting.point_basis import project_px
from hiface.fitting.prepared import FitModel, prepare_model
from hiface.fitting.priors import LightLevel, PriorEnergy, Start, build_prior, scale_evidence
from hiface.fitting.solver import Energy, EnergySum, SolverOptions, SolverResult, minimise
from hiface.morphable import MorphableModel
from hiface.types import FaceParams

_LOG = logging.getLogger(__name__)

FACE_SIZE_M = 0.09  # distance of the outer eye corners of an adult, the unit of `size_px`
EQUIVALENT_FOCAL_MM = 50.0  # prior of portraits; on the 43.27 mm diagonal of a 36 x 24 mm frame
FRAME_DIAGONAL_MM = 43.27


@dataclass(frozen=True)
class StageReport:
    """What one stage of the fit did.

    Attributes:
        name: "pose", "landmarks", "light", "photometric".
        energy: Energy at its end.
        n_iterations: Steps tried.
        seconds: Wall time.
    """

    name: str
    energy: float
    n_iterations: int
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """A fitted face.

    Attributes:
        params: Coefficients, unbatched, float32.
        stages: One report per stage, in order.
        landmark_residual: Median distance of projected and observed points over the face size.
        photometric_residual: Robust standard deviation of colour over the face's brightness, or None without
            image.
        sample_weights: [S] final robust weight of each photometric sample (0 where hidden), or None.
        seconds: Wall time.
    """

    params: FaceParams
    stages: Sequence[StageReport]
    landmark_residual: float
    seconds: float
    photometric_residual: float | None = None
    sample_weights: Tensor | None = None

    @property
    def n_iterations(self) -> int:
        """Steps of all stages."""
        return sum(stage.n_iterations for stage in self.stages)


@dataclass
class FaceFit:
    """State of one fit: the current parameters and what has been done."""

    prepared: FitModel
    observation: FaceObservation
    config: FitConfig
    layout: ParamLayout
    frame: PoseFrame
    x: Tensor
    prior: PriorEnergy
    tone: Sequence[int]
    appearance: Appearance | None = None
    photometric: PhotometricEnergy | None = None
    stages: list[StageReport] = field(default_factory=list)

    def landmark_energy(self) -> LandmarkEnergy:
        """E_lan with the jaw's outline of the present pose."""
        return build_landmark_energy(
            self.prepared.landmarks, self.observation, self.x, self.layout, self.frame, self.config
        )

    def terms(self, energies: Sequence[Energy], shape_is_free: bool) -> list[Energy]:
        """The data's energies and all that is known before; the size of the head matters to a free shape."""
        terms: list[Energy] = [self.prior, *energies]
        if self.appearance is not None:
            expected = self.config.light_level / self.appearance.exposure
            first = self.layout["light"].start
            terms.append(LightLevel(first, expected, self.config.light_level_sigma))
        if shape_is_free:
            data = EnergySum(energies).linearise(self.x)
            terms.append(scale_evidence(self.layout, data, self.prior.linearise(self.x), self.x))
        return terms

    def expand(self) -> None:
        """Expands a model that is not linear about the present state."""
        self.prepared = self.prepared.at(self.x)
        samples = self.prepared.samples
        if self.prepared.curved is not None and self.appearance is not None and samples is not None:
            seen = replace(self.appearance.samples, points=samples.points, vertices=samples.vertices)
            self.appearance = replace(self.appearance, samples=seen)

    def finest(self) -> list[Energy]:
        """Landmarks and, if the picture shows skin, its finest level about the present state."""
        self.expand()
        energies: list[Energy] = [self.landmark_energy()]
        if self.appearance is not None:
            level = (self.config.pyramid_px[-1], True)
            self.photometric = photometric_energy(
                self.prepared, self.appearance, self.x, self.frame, level, self.config
            )
            energies.append(self.photometric)
        return energies

    def run(
        self,
        name: str,
        energies: list[Energy],
        free: Sequence[str],
        max_iterations: int,
        held: Sequence[int] = (),
    ) -> None:
        """One stage: minimises over the named parts without the entries `held`, the others stay."""
        start = time.perf_counter()
        lower, upper = bounds(self.layout, self.x, free)
        for i in held:
            lower[i] = upper[i] = self.x[i]
        options = SolverOptions(max_iterations=max_iterations)
        terms = self.terms(energies, "identity" in free)
        result: SolverResult = minimise(EnergySum(terms), self.x, lower, upper, options)
        self.x = result.x
        self.expand()
        seconds = time.perf_counter() - start
        self.stages.append(StageReport(name, result.cost, result.n_iterations, seconds))
        _LOG.debug(
            "%s: energy %.3f after %d steps, %.1f ms", name, result.cost, result.n_iterations, 1e3 * seconds
        )


POSE_PARTS = ("rotation", "centre", "log_scale", "log_focal")
MOTION_PARTS = (*POSE_PARTS, "expression", "gaze")
SHAPE_PARTS = (*MOTION_PARTS, "identity")
ALL_PARTS = (*SHAPE_PARTS, "albedo", "light")


def bounds(layout: ParamLayout, x: Tensor, free: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Box of the solver: expression 0..1 or in 4 sigma, identity in 4 sigma, gaze in 45 degrees; others held.

    Args:
        layout: Layout of the parameters.
        x: [P] current values, kept where a part is not in `free`.
        free: Names of the parts that move.

    Returns:
        lower [P] and upper [P].
    """
    lower = torch.full_like(x, -torch.inf)
    upper = torch.full_like(x, torch.inf)
    for name, low, high in (
        ("identity", -4.0, 4.0),
        ("albedo", -4.0, 4.0),
        ("gaze", -math.pi / 4, math.pi / 4),
        ("log_focal", -1.5, 1.5),
    ):
        lower[layout[name]], upper[layout[name]] = low, high
    lower[layout["expression"]], upper[layout["expression"]] = layout.expression_bounds(x)
    held = ~layout.mask(*free)
    return torch.where(held, x, lower), torch.where(held, x, upper)


def default_focal_px(width: int, height: int) -> float:
    """Focal length of a 50 mm lens on a full-frame camera, in pixels of an image of this size."""
    return EQUIVALENT_FOCAL_MM / FRAME_DIAGONAL_MM * math.hypot(width, height)


def fit_face(
    model: MorphableModel,
    observation: FaceObservation,
    config: FitConfig | None = None,
    believed: Start | None = None,
) -> FitResult:
    """Fits identity, expression, pose, focal length, gaze and, with an image, albedo and light.

    Stages: pose with the shape that is believed in; shape, expression and gaze from landmarks, the jaw
    outline chosen anew in each round; light and albedo; everything together, from a coarse to a fine image.

    Args:
        model: Face model.
        observation: Landmarks and, optionally, the picture.
        config: Weights.
        believed: Identity, expression and albedo where the fit starts and that it stays near; the mean face
            if None. Identity coefficients beyond those that are fitted are added to the result as they are.

    Returns:
        FitResult.

    Raises:
        FitError: The observation is not finite or no pose explains it.
    """
    start = time.perf_counter()
    config = config or FitConfig()
    observation.check_finite()
    with torch.no_grad():
        fit = fit_points(model, observation, config, believed)
        fit_photometric(fit)
        return result_of(fit, model, believed, time.perf_counter() - start)


def result_of(fit: FaceFit, model: MorphableModel, believed: Start | None, seconds: float) -> FitResult:
    """What a fit has found.

    Raises:
        FitError: It left finite numbers.
    """
    if not bool(torch.isfinite(fit.x).all()):
        raise FitError("the fit left finite numbers; check the landmarks")
    exposure = 1.0 if fit.appearance is None else fit.appearance.exposure
    params = to_face_params(with_exposure(fit.layout, fit.x, exposure), fit.layout, fit.frame, model.data)
    if believed is not None:
        params = _with_the_rest(params, believed.params, fit.layout)
    noise = None if fit.photometric is None else fit.photometric.sigma
    weights = None if fit.photometric is None else fit.photometric.robust_weights(fit.x)
    return FitResult(params, tuple(fit.stages), _landmark_residual(fit), seconds, noise, weights)


def align_to_landmarks(
    model: MorphableModel, observation: FaceObservation, believed: Start, config: FitConfig | None = None
) -> FaceParams:
    """Moves pose, expression and gaze of a face to its landmarks; who it is stays as believed.

    A network's coefficients are means over all faces that look alike to it, so its mesh lies beside the
    features that its landmarks have found. Identity would only be pulled to the mean face by landmarks.

    Args:
        model: Face model.
        observation: Landmarks; a picture is not looked at.
        believed: The face; expression stays near it by its `expression_sigma`.
        config: Weights.

    Returns:
        `believed.params` with another expression, pose and camera.

    Raises:
        FitError: The observation is not finite or no pose explains it.
    """
    config = config or FitConfig()
    observation.check_finite()
    with torch.no_grad():
        fit = start_fit(model, observation, config, believed)
        fit_landmarks(fit, MOTION_PARTS)
        if not bool(torch.isfinite(fit.x).all()):
            raise FitError("the alignment left finite numbers; check the landmarks")
        params = to_face_params(fit.x, fit.layout, fit.frame, model.data)
    return believed.params.replace(expression=params.expression, pose=params.pose, camera=params.camera)


def _with_the_rest(params: FaceParams, believed: FaceParams, layout: ParamLayout) -> FaceParams:
    """Takes over what is not fitted: identity coefficients of little weight, and detail."""
    identity = params.identity.clone()
    identity[layout.n_identity :] = believed.identity[layout.n_identity :]
    return params.replace(identity=identity, static=believed.static)


def start_fit(
    model: MorphableModel, observation: FaceObservation, config: FitConfig, believed: Start | None
) -> FaceFit:
    """Robust weak-perspective pose of the face that is believed in, or of the mean face."""
    dtype = config.dtype
    data = model.data
    prepared = prepare_model(model, config)
    layout, landmarks = prepared.layout, prepared.landmarks
    focal = observation.focal_px or default_focal_px(observation.width, observation.height)
    principal = observation.principal_px
    if principal is None:
        principal = torch.tensor([observation.width / 2, observation.height / 2])
    x = torch.zeros(layout.size, dtype=dtype)
    if believed is not None:
        x[layout["identity"]] = believed.params.identity[: layout.n_identity].to(dtype)
        layout.split_expression(x)[0][:] = believed.params.expression.to(dtype)
        x[layout["albedo"]] = believed.params.albedo.to(dtype)
    coefficients = x[: layout.n_identity + layout.n_expression]
    points = landmarks.sparse.mean + landmarks.sparse.basis @ coefficients
    px = observation.landmarks68_px.to(dtype)
    rough_size = float((px.amax(0) - px.amin(0)).norm()) / 2
    if rough_size < 1.0:
        raise FitError("the landmarks lie within one pixel; there is no face to fit")
    sigma = total_sigma(observation.landmarks68_sigma_px, N_SPARSE, rough_size, config).to(dtype)
    sigma[:17] *= 3  # the jaw of the mean face is not the outline of a turned one
    known = None if observation.R_cam_object is None else observation.R_cam_object.to(dtype)
    R, scale, centre = weak_perspective(points, px, sigma, known)
    frame = PoseFrame(
        R=R,
        anchor=points.mean(0),
        centre_px=centre,
        scale_px=scale,
        focal_px=focal,
        principal_px=principal.to(dtype),
        size_px=scale * FACE_SIZE_M,
        width=observation.width,
        height=observation.height,
    )
    prior = build_prior(layout, data.expression_names, config, observation.focal_px is not None, believed)
    first = layout["albedo"].start
    tone = [first + i for i, name in enumerate(data.albedo_names) if name in config.tone_axes]
    return FaceFit(prepared, observation, config, layout, frame, x, prior, tone)


def fit_points(
    model: MorphableModel, observation: FaceObservation, config: FitConfig, believed: Start | None
) -> FaceFit:
    """A fit after its landmark stages.

    Where a picture is to follow, who a network has seen is not moved by landmarks alone, which lean to the
    mean face; and dense points say less anew, because the network's answer stems from the same look.

    Args:
        model: Face model.
        observation: Landmarks and, optionally, the picture.
        config: Weights; those of the result say how much dense points count.
        believed: As for `fit_face`.

    Returns:
        The fit, light and albedo not yet found.

    Raises:
        FitError: No pose explains the landmarks.
    """
    if believed is None or observation.crop is None:
        fit = start_fit(model, observation, config, believed)
        fit_landmarks(fit)
        return fit
    dense = min(config.effective_dense, config.effective_dense_known)
    fit = start_fit(model, observation, replace(config, effective_dense=dense), believed)
    fit_landmarks(fit, MOTION_PARTS)
    return fit


def fit_landmarks(fit: FaceFit, parts: Sequence[str] = SHAPE_PARTS) -> None:
    """Pose, then the named parts, from landmarks alone."""
    fit.run("pose", [fit.landmark_energy()], POSE_PARTS[:3], fit.config.iterations_pose)
    for _ in range(fit.config.rounds + fit.config.more_rounds * (fit.prepared.curved is not None)):
        fit.run("landmarks", [fit.landmark_energy()], parts, fit.config.iterations_landmarks)


def fit_photometric(fit: FaceFit) -> None:
    """Light and albedo, then everything, from a coarse to a fine picture; nothing where there is no skin."""
    fit.x = default_light(fit.layout, fit.x)
    crop = fit.observation.crop
    if crop is None:
        return
    fit.appearance = read_appearance(fit.prepared, crop, fit.x, fit.frame)
    if fit.appearance is None:
        _LOG.info("the picture shows too little skin to fit light and albedo; landmarks alone are used")
        return
    coarse = fit.config.pyramid_px[0]
    for parts in (("light",), ("light", "albedo"), ("light", "albedo")):
        energy = photometric_energy(
            fit.prepared, fit.appearance, fit.x, fit.frame, (coarse, False), fit.config
        )
        fit.run("light", [energy], parts, fit.config.iterations_light)
    for distance in fit.config.pyramid_px:
        energy = photometric_energy(
            fit.prepared, fit.appearance, fit.x, fit.frame, (distance, True), fit.config
        )
        fit.photometric = energy
        energies = [fit.landmark_energy(), energy]
        fit.run("photometric", energies, ALL_PARTS, fit.config.iterations_photometric, fit.tone)


def _landmark_residual(fit: FaceFit) -> float:
    energy = fit.landmark_energy()
    px = project_px(energy.points, fit.x, fit.layout, fit.frame)
    return float((px - energy.observed_px).norm(dim=-1).median() / fit.frame.size_px)
