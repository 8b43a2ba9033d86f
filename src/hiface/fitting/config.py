# SPDX-License-Identifier: Apache-2.0
"""Every weight and limit of the fit, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FitConfig:
    """Weights of E = E_con + w_lan E_lan + w_reg E_reg and of the stages; docs/fitting.md has measurements.

    All energies are negative log-likelihoods in units where N(0, 1) coefficients cost x^2 / 2, so a weight
    other than 1 says how far a term's errors are from independent.

    Attributes:
        n_identity: Leading identity coefficients that are fitted; the rest stay 0, or as believed.
        landmark_floor: Part of the face size (outer eye corners) added in quadrature to each landmark's
            sigma: a network's points are never defined exactly like the model's.
        landmark_sigma_scale: Reported sigmas are over-confident on photos by this factor.
        landmark_degrees: Degrees of freedom of the Student-t penalty of a landmark (hair, hands: wild
            points).
        effective_sparse: How many independent points the 68 are worth: errors of neighbours are correlated.
        effective_dense: The same for the dense points; all of them stem from one network look at the photo.
        effective_dense_known: The same where a network's answer is believed in, which has seen the same look.
        jaw_slide: Sigma along the jaw line over sigma across it: where along the line a point sits is not
            defined.
        pair_sigma: Sigma of a lid or lip opening over the sigma of one of its points: their errors are
            shared.
        pair_weight: Weight of the openings, so that an eye can close alone against the symmetric prior.
        iris_weight: Weight of iris centres relative to the eye corners.
        reg_identity: Weight of N(0, 1) on identity; above 1 because the points of networks lean to the mean.
        reg_albedo: Weight of N(0, 1) on albedo.
        reg_light: Weight of the pull of the light to a grey, moderately directional one.
        tone_axes: Albedo axes that change all of the skin. They are found with the light, and held when
            everything moves: the model's errors of colour are the same all over a face, so that many samples
            say no more about them than a few.
        effective_tone: How many independent samples there are for light and tone.
        light_level: Light on a face in a photo that is expected, in units of the picture's white.
        light_level_sigma: Standard deviation of its logarithm: less than that of the brightness of skin.
        expression_sparsity: Price of one full expression unit (L1, one-sided as 0 <= e): most are 0 in a
            photo.
        expression_ridge: Quadratic price of expressions, for a unique answer among similar shapes.
        reg_expression: Weight of N(0, 1) on expressions of models that have them in sigma.
        jaw_sigma: Standard deviations of a jaw joint that opens the mouth, radians about x (opens), y and z.
        expression_symmetry: Weight of left = right, by expression in the asset; smiles are rarely one-sided.
        mouth_close: Weight of mouthClose <= jawOpen, of which it is a correction.
        gaze_sigma: Radians; eyes seldom turn further in a portrait.
        gaze_vergence: Radians; both eyes look at nearly the same point.
        gaze_lids: Weight of eyeLook* lids following the gaze.
        focal_sigma: Sigma of log focal length without metadata (50 mm equivalent, broad).
        focal_sigma_known: The same with metadata.
        samples: Photometric samples on the face skin.
        effective_samples: How many independent samples they are worth at most: shadows, texture and
            highlights that the model lacks cover regions.
        effective_per_px: The same per squared face size in crop pixels, for small faces.
        photometric_scale: Geman-McClure scale in robust standard deviations: hair, glasses and hands drop
            out.
        photometric_floor: Smallest standard deviation of a sample's colour over the face's brightness.
        pyramid_px: Sampling distances over the face size (outer eye corners), coarse to fine.
        iterations_pose: Limit of steps, pose stage.
        iterations_landmarks: Limit of steps of each round of the landmark stage.
        iterations_light: Limit of steps of each round of the light stage.
        iterations_photometric: Limit of steps of each pyramid level.
        rounds: Rounds of the landmark stage, between which the jaw contour is chosen anew.
        more_rounds: As many again for models that are not linear, expanded anew before each.
        dtype: Precision of the points and the solver; samples use single precision.
    """

    n_identity: int = 120
    landmark_floor: float = 0.006
    landmark_sigma_scale: float = 1.4
    landmark_degrees: float = 4.0
    effective_sparse: float = 60.0
    effective_dense: float = 120.0
    effective_dense_known: float = 30.0
    jaw_slide: float = 3.0
    pair_sigma: float = 0.6
    pair_weight: float = 1.0
    iris_weight: float = 1.0
    reg_identity: float = 4.0
    reg_albedo: float = 1.0
    reg_light: float = 1.0
    tone_axes: tuple[str, ...] = ("melanin", "haemoglobin", "carotene")
    effective_tone: float = 40.0
    light_level: float = 1.0
    light_level_sigma: float = 0.45
    expression_sparsity: float = 1.0
    expression_ridge: float = 1.0
    reg_expression: float = 1.0
    jaw_sigma: tuple[float, float, float] = (0.15, 0.03, 0.02)
    expression_symmetry: float = 1.0
    mouth_close: float = 200.0
    gaze_sigma: float = 0.25
    gaze_vergence: float = 0.06
    gaze_lids: float = 40.0
    focal_sigma: float = 0.35
    focal_sigma_known: float = 0.03
    samples: int = 2500
    effective_samples: float = 4000.0
    effective_per_px: float = 0.25
    photometric_scale: float = 2.0
    photometric_floor: float = 0.01
    pyramid_px: tuple[float, ...] = (0.05, 0.02, 0.01)
    iterations_pose: int = 8
    iterations_landmarks: int = 15
    iterations_light: int = 4
    iterations_photometric: int = 8
    rounds: int = 2
    more_rounds: int = 2
    dtype: torch.dtype = torch.float64
