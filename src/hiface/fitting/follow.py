# SPDX-License-Identifier: Apache-2.0
"""A person whose shape is known, followed through the frames of a video: pose, expression and gaze.

The energies are those of `align_to_landmarks`; the shape is put into the points once, so that a frame has a
third of the unknowns, and each frame starts at the pose that a network has read.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hiface.errors import FitError, OptionError
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import FACE_SIZE_M, MOTION_PARTS, FaceFit
from hiface.fitting.landmark_energy import LandmarkModel
from hiface.fitting.observations import FaceObservation
from hiface.fitting.parameters import ParamLayout, PoseFrame, to_face_params
from hiface.fitting.point_basis import PointBasis
from hiface.fitting.prepared import FitModel, prepare_model
from hiface.fitting.priors import PriorEnergy, Start, build_prior
from hiface.morphable import MorphableModel
from hiface.types import FaceParams

_PARTS = tuple(part for part in MOTION_PARTS if part != "log_focal")
_ITERATIONS = 4


class PersonFollower:
    """Moves the coefficients of one person's face to the landmarks of a frame.

    Args:
        model: Face model whose points are linear in its coefficients.
        person: Any face of the person; identity, albedo and static detail are taken from it.
        expression_sigma: Standard deviation of expressions about those that a frame's network has read, 0..1.
        config: Weights.

    Raises:
        OptionError: The face model is not linear (bilinear, or with a jaw joint).
    """

    def __init__(
        self,
        model: MorphableModel,
        person: FaceParams,
        expression_sigma: float,
        config: FitConfig | None = None,
    ) -> None:
        self._config = config = config or FitConfig()
        prepared = prepare_model(model, config)
        if prepared.curved is not None:
            raise OptionError(f"faces of the model {model.data.name!r} cannot be followed; use the open one")
        self._model, self.person = model, person
        self._prepared = with_identity(prepared, person.identity)
        layout = self._prepared.layout
        unknown = person.replace(
            identity=person.identity[:0],
            albedo=person.albedo[:0],
            expression=torch.zeros_like(person.expression),
        )
        start = Start(unknown, person.identity[:0], expression_sigma, 1.0)
        self._prior = build_prior(layout, model.data.expression_names, config, True, start)
        self._sure = expression_sigma**-2

    def follow(self, observation: FaceObservation, read: FaceParams) -> FaceParams:
        """The face of one frame.

        Args:
            observation: Landmarks of the frame.
            read: What a network read of it: expression, pose and camera, whose intrinsics are kept.

        Returns:
            The person with what the landmarks say of expression, joints and camera, in the light of `read`.

        Raises:
            FitError: The landmarks, or what was read, are not finite.
        """
        observation.check_finite()
        with torch.no_grad():
            fit = self._start(observation, read)
            fit.run("landmarks", [fit.landmark_energy()], _PARTS, _ITERATIONS)
            if not bool(torch.isfinite(fit.x).all()):
                raise FitError("following left finite numbers; check the landmarks")
            found = to_face_params(fit.x, fit.layout, fit.frame, self._model.data)
        return self.person.replace(
            expression=found.expression, pose=found.pose, camera=found.camera, light=read.light
        )

    def _start(self, observation: FaceObservation, read: FaceParams) -> FaceFit:
        layout, dtype = self._prepared.layout, self._config.dtype
        x = torch.zeros(layout.size, dtype=dtype)
        layout.split_expression(x)[0][:] = read.expression.to(dtype)
        sparse = self._prepared.landmarks.sparse
        anchor = (sparse.mean + sparse.basis @ x[layout["expression"]]).mean(0)
        camera = read.camera
        R, K = camera.R.to(dtype), camera.K.to(dtype)
        at = R @ anchor + camera.T_cam_object[:3, 3].to(dtype)
        focal = float(K[0, 0])
        if not float(at[2]) > 1e-3:
            raise FitError("the network sees the face behind the camera; leave this frame out")
        scale = focal / float(at[2])
        frame = PoseFrame(
            R=R,
            anchor=anchor,
            centre_px=focal * at[:2] / at[2] + K[:2, 2],
            scale_px=scale,
            focal_px=focal,
            principal_px=K[:2, 2],
            size_px=scale * FACE_SIZE_M,
            width=observation.width,
            height=observation.height,
        )
        return FaceFit(self._prepared, observation, self._config, layout, frame, x, self._prior_of(read), ())

    def _prior_of(self, read: FaceParams) -> PriorEnergy:
        """The prior about the expression that was read."""
        names = self._prepared.layout["expression"]
        gradient = self._prior.gradient.clone()
        gradient[names] -= self._sure * read.expression.double()
        return replace(self._prior, gradient=gradient)


def with_identity(prepared: FitModel, identity: Tensor) -> FitModel:
    """A gathered linear model whose shape has no unknowns but expressions.

    Args:
        prepared: From `prepare_model`.
        identity: [K] sigma; those beyond the fitted ones count too little at landmarks to be there.

    Returns:
        The model without identity, albedo and photometric samples.
    """
    n = prepared.layout.n_identity
    known = identity[:n].to(prepared.dtype)
    marks, layout = prepared.landmarks, prepared.layout
    return replace(
        prepared,
        layout=ParamLayout(0, layout.n_expression, 0, layout.n_jaw, layout.sigma_expressions),
        landmarks=LandmarkModel(
            sparse=_of_person(marks.sparse, known),
            contour=None if marks.contour is None else _of_person(marks.contour, known),
            contour_valid=marks.contour_valid,
            dense=None if marks.dense is None else _of_person(marks.dense, known),
            iris=None if marks.iris is None else _of_person(marks.iris, known),
        ),
        samples=None,
        template=prepared.template + (identity[:n] @ prepared.basis[:n]).unflatten(-1, (-1, 3)),
        basis=prepared.basis[n:],
    )


def _of_person(points: PointBasis, identity: Tensor) -> PointBasis:
    n = len(identity)
    return PointBasis(
        points.mean + points.basis[..., :n] @ identity,
        points.basis[..., n:].contiguous(),
        points.eye,
        points.joint_mean + points.joint_basis[..., :n] @ identity,
        points.joint_basis[..., n:].contiguous(),
    )
