# SPDX-License-Identifier: Apache-2.0
"""Tracks faces while frames arrive: every answer is made from the frames up to now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hiface.animation.smoothing import OneEuro
from hiface.detail.sd_detail import detailed_normals
from hiface.errors import FitError, OptionError
from hiface.export.morphs import morph_weights
from hiface.fitting.fit import default_focal_px
from hiface.fitting.follow import PersonFollower
from hiface.fitting.initialise import mean_face
from hiface.fitting.observe import landmark_observation
from hiface.morphable import MorphableModel
from hiface.networks.detect import Detection
from hiface.networks.motion_net import MotionNet
from hiface.reconstructor import Reconstructor
from hiface.tracking.follow import EXPRESSION_SIGMA
from hiface.tracking.motions import MotionSoFar
from hiface.tracking.paths import FacePath, FacePaths
from hiface.tracking.people import Acquaintances
from hiface.tracking.sightings import FaceWatcher, Sighting, WatchConfig
from hiface.types import FaceParams

_LEARNT_AT = (1, 4, 12, 30, 75)  # sightings after which a person's shape is taken anew
_DETAIL_FRAMES = 12  # of a person from which static codes are learnt
_FORGOTTEN_S = 0.5  # without a face, after which the filters begin anew


@dataclass(frozen=True)
class LiveConfig:
    """Filters of a live track (One-Euro): the cutoff at rest and what speed adds to it.

    Attributes:
        expression: Hertz, and hertz per change a second.
        gaze: Hertz, and hertz per radian a second.
        turn: The same of the head.
        place: Hertz, and hertz per face size a second.
        watch: How frames are searched.
    """

    expression: tuple[float, float] = (1.0, 5.0)
    gaze: tuple[float, float] = (1.0, 5.0)
    turn: tuple[float, float] = (1.0, 10.0)
    place: tuple[float, float] = (1.0, 10.0)
    watch: WatchConfig = field(default_factory=WatchConfig)


@dataclass(frozen=True)
class LiveFace:
    """One person in the newest frame.

    Attributes:
        person: Number, from 1 in the order of appearance; whoever comes back keeps it.
        params: Coefficients, steadied; `params.static` is the mean of what was seen so far.
        blendshapes: [E] what a program that knows the 52 shapes alone must be given.
        detection: Landmarks of this frame.
    """

    person: int
    params: FaceParams
    blendshapes: Tensor
    detection: Detection


class LiveTracker:
    """Tracks the faces of a camera, or of any frames that come one by one.

    Args:
        reconstructor: Of the method "hiface".
        focal_px: Focal length, pixels; that of a normal lens if None.
        config: Filters.

    Raises:
        OptionError: The reconstructor has no network.
    """

    def __init__(
        self, reconstructor: Reconstructor, focal_px: float | None = None, config: LiveConfig | None = None
    ) -> None:
        if reconstructor.network is None:
            raise OptionError("videos are tracked with the network; use the method hiface")
        self._reconstructor, self._focal_px = reconstructor, focal_px
        self._network = reconstructor.network
        self._config = config or LiveConfig()
        sigma = self._network.identity_sigma
        self._watcher = FaceWatcher(reconstructor.detector, self._read, sigma, self._config.watch)
        self._acquaintances = Acquaintances(sigma)
        self._paths = FacePaths(reconstructor.model)
        self._people: dict[int, _LivePerson] = {}
        self._frame, self._focal, self._with_detail = 0, 0.0, True

    def warm_up(self, width: int, height: int) -> None:
        """Does once what is slow the first time, so that the first frames are not late.

        Args:
            width: Of the frames, pixels.
            height: Of the frames, pixels.
        """
        model, grey = self._reconstructor.model, np.full((height, width, 3), 128, np.uint8)
        self._focal = self._focal_px or default_focal_px(width, height)
        nobody = mean_face(model, width, height, self._focal)
        seen = drawn_face(model, nobody)
        self._reconstructor.detector.detect(grey)
        self._reconstructor.detector.look_again(grey, seen.landmarks68_px.numpy()[None])
        read = self._read(grey, [seen])[0][0]
        follower = PersonFollower(model, read, EXPRESSION_SIGMA)
        follower.follow(landmark_observation(seen, width, height, self._focal), nobody)

    def step(self, image_srgb: np.ndarray, time_s: float) -> Sequence[LiveFace]:
        """The faces of the next frame.

        Args:
            image_srgb: [H, W, 3] uint8, upright, of the same size in all frames.
            time_s: Its time, later than the last one's.

        Returns:
            A face for each person in the frame, in the order of their numbers.

        Raises:
            ImageError: The array has another shape or type.
        """
        height, width = image_srgb.shape[:2]
        self._focal = self._focal_px or default_focal_px(width, height)
        sightings = self._watcher.step(image_srgb, self._frame, time_s, self._focal)
        self._frame += 1
        numbers = self._acquaintances.people_of(sightings)
        self._people = {n: person for n, person in self._people.items() if n in self._acquaintances}
        found = []
        for number, sighting in zip(numbers, sightings, strict=True):
            person = self._people.get(number)
            if person is None:
                person = _LivePerson(
                    self._reconstructor.model, self._network.motion, self._paths, self._config
                )
                self._people[number] = person
            face = person.step(number, sighting, self._focal, self._with_detail)
            if face is not None:
                found.append(face)
        return sorted(found, key=lambda face: face.person)

    def landmarks(self, face: LiveFace, name: str = "ibug68") -> Tensor:
        """Landmarks of the steadied face: [L, 2] pixels of the frame. The jaw of "ibug68" is its outline."""
        p, model = face.params, self._reconstructor.model
        with torch.no_grad():
            vertices = model.vertices(p.identity, p.expression, p.pose)
            return p.camera.cam_to_px(model.landmarks_cam(name, p.camera.to_cam(vertices)))

    def detail_maps(self, face: LiveFace) -> tuple[Tensor, Tensor]:
        """Relief of a face under its present expression.

        Args:
            face: From `step`.

        Returns:
            Displacement [1, S, S], metres along the normals, and unit normals of the displaced surface
            [3, S, S] over the texture square, object space.
        """
        model, detail, p = self._reconstructor.model, self._reconstructor.detail, face.params
        assert detail is not None and p.static is not None
        with torch.no_grad():
            maps = detail.maps(model, p.identity, p.expression, p.static)
            vertices = model.vertices(p.identity, p.expression, p.pose)
            return maps.displacement, detailed_normals(model, vertices, maps.displacement)

    def _read(self, image_srgb: np.ndarray, detections: list[Detection]) -> tuple[FaceParams, Tensor | None]:
        """Reads detail as long as that of somebody in the frame is not known well, newcomers' for one."""
        followed = self._acquaintances.followed
        present = [self._people[followed[tracklet]] for tracklet in self._watcher.going_on]
        known = [person for person in present if person.count >= _DETAIL_FRAMES]
        self._with_detail = len(known) < len(detections)
        return self._network.read_traced(image_srgb, detections, self._focal, self._with_detail)


class _LivePerson:
    """What is known of a person so far, and the filters of the motion."""

    def __init__(
        self, model: MorphableModel, motion: MotionNet | None, paths: FacePaths, config: LiveConfig
    ) -> None:
        self._model, self._paths = model, paths
        pairs = (config.expression, config.gaze, config.turn, config.place)
        self._filters = [OneEuro(*pair) for pair in pairs]
        self._means: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self.count, self._last_s = 0, -np.inf
        self._follower: PersonFollower | None = None
        self._motion = None if motion is None else MotionSoFar(motion)
        self._R: Tensor | None = None

    def step(self, number: int, sighting: Sighting, focal_px: float, with_detail: bool) -> LiveFace | None:
        """The face of a frame, in which detail was read or not; None where it cannot be fitted."""
        self._learn(sighting, with_detail)
        assert self._follower is not None
        read, detection = sighting.read, sighting.detection
        if self._motion is not None:
            read = read.replace(expression=self._motion.step(sighting))
        width, height = read.camera.width, read.camera.height
        try:
            fitted = self._follower.follow(landmark_observation(detection, width, height, focal_px), read)
        except FitError:
            return None
        if self._R is None or sighting.time_s - self._last_s > _FORGOTTEN_S:
            self._R = fitted.camera.R.double()
            for each in self._filters:
                each.reset()
        self._last_s = sighting.time_s
        params = self._steadied(fitted, sighting.time_s)
        weights = morph_weights(self._model, params.expression, params.pose)
        return LiveFace(number, params, weights, detection)

    def _learn(self, sighting: Sighting, with_detail: bool) -> None:
        """Means of who it is; the shape is taken anew now and then, ever more seldom."""
        read, weight = sighting.read, sighting.detection.score
        for name in ("identity", "albedo", "static") if with_detail else ("identity", "albedo"):
            value = getattr(read, name)
            self._weights[name] = self._weights.get(name, 0.0) + weight
            mean = self._means.get(name, value)
            self._means[name] = mean + (weight / self._weights[name]) * (value - mean)
        self.count += 1
        if self._follower is None or self.count in _LEARNT_AT:
            self._follower = PersonFollower(self._model, read.replace(**self._means), EXPRESSION_SIGMA)

    def _steadied(self, fitted: FaceParams, time_s: float) -> FaceParams:
        assert self._R is not None
        raw = self._paths.path_of([fitted], self._R)
        unit = raw.face_angle()
        scale = torch.tensor([unit, unit, 1.0], dtype=torch.float64)
        parts = (raw.expression, raw.gaze, raw.turn, raw.place / scale)
        values = [
            torch.from_numpy(each.step(part.numpy(), time_s))
            for each, part in zip(self._filters, parts, strict=True)
        ]
        expression, gaze, turn, place = values
        path = FacePath(expression.clamp(0.0, 1.0), gaze, turn, place * scale, self._R)
        pose, T = self._paths.pose_of(path, self._model.data.n_joints)
        camera = type(fitted.camera)(fitted.camera.K, T[0], fitted.camera.width, fitted.camera.height)
        return fitted.replace(expression=path.expression[0].float(), pose=pose[0], camera=camera)


def drawn_face(model: MorphableModel, person: FaceParams) -> Detection:
    """What a perfect detector would say of a face."""
    vertices = model.vertices(person.identity, person.expression, person.pose)
    sets = [model.landmarks(name, vertices) for name in ("ibug68", "dense", "iris")]
    sparse, dense, iris = (person.camera.project(points) for points in sets)
    ones = [torch.ones(len(points)) for points in sets]
    return Detection(
        box=torch.cat([sparse.amin(0), sparse.amax(0)]),
        score=1.0,
        landmarks68_px=sparse,
        landmarks68_sigma_px=ones[0],
        landmarks68_visible=ones[0],
        dense_px=dense,
        dense_sigma_px=ones[1],
        dense_visible=ones[1],
        iris_px=iris,
        iris_sigma_px=ones[2],
        R_cam_object=person.camera.R,
    )
