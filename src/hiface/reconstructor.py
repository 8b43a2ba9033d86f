# SPDX-License-Identifier: Apache-2.0
"""Photo in, faces out: finder -> landmarks -> the HiFace network, or -> fit."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hiface.animation.gaze import pose_from_expression
from hiface.assets import list_assets
from hiface.assets.loader import asset_path
from hiface.colour import srgb_to_linear
from hiface.data import Photo, PhotoStore, StoredPhoto, read_photo
from hiface.detail.basis import DetailBasis, load_detail_basis
from hiface.devices import check_device, pick_device
from hiface.errors import AssetError, FitError, NoFaceError, OptionError
from hiface.export.texture import ALBEDO_BLEND
from hiface.fitting.detail_codes import DetailFitConfig, fit_shared_codes
from hiface.fitting.fit import align_to_landmarks, default_focal_px, fit_face
from hiface.fitting.initialise import mean_face
from hiface.fitting.observe import landmark_observation, observation_from_detection
from hiface.fitting.priors import Start
from hiface.fitting.relief import fit_shared_relief
from hiface.fitting.same_person import one_person
from hiface.fitting.together import fit_together, shared_start
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection, FaceDetector
from hiface.networks.hiface_params import check_model
from hiface.networks.read_hiface import HifaceReader
from hiface.networks.sd_detail import SdDetail
from hiface.networks.weights import load_hiface, load_motion, weights_notes
from hiface.render.pyramid import resize
from hiface.render.texels import head_region
from hiface.result import DEFAULT_DETAIL_PX, FaceResult
from hiface.transfer.complete import complete_model
from hiface.types import FaceParams

LOGGER = logging.getLogger(__name__)

Method = Literal["hiface", "fit"]
METHODS = get_args(Method)
_EXPRESSION_SIGMA = 0.05  # of expressions about the network's, 0..1
_ALBEDO_SIGMA = 0.35  # of albedo coefficients about the network's
_CORRELATION = 0.7  # of the errors of the network's answers to two photos of a person
_REFINE_PX = 1024  # detail maps have 256 texels
_LARGEST_DETAIL_PX = 1024
_DETAIL_SIGMA = 0.5  # of detail codes about the network's, which have seen the same shading


class Reconstructor:
    """Turns photos into animatable 3D faces.

    Args:
        method: "hiface": all coefficients and detail in one pass of a network. "fit": inverse rendering,
            initialised from landmarks.
        face_model: "open", the path of a model of another project (FLAME, BFM, ...; for the method "fit") or
            a loaded model. What it lacks of landmarks, masks and albedo is taken from the open model
            (`hiface.transfer.completed`, some seconds).
        device: Device of the HiFace network, for example "cpu" or "cuda"; None takes CUDA if there is one.
            Detection and fits run on the CPU.
        weights: Weights of the HiFace network (`hiface train hiface`); the packaged ones if None.
        refine: Go on from the network's answer by inverse rendering, and read detail codes off the photo's
            shading; for the method "hiface".
        align: Move pose and expression of the network's answer to the landmarks; for the method "hiface".
        detail_px: Side of the displacement map where relief is read off the photo; 256 texels are 1.2 mm.
        albedo_blend: Share of the model's albedo in what is smooth in textures, 0..1.

    Raises:
        ValueError: Unknown method, or nothing to refine.
        OptionError: There is no such device, or a size or share out of range.
        AssetError: Weights or model files are missing, or weights are for another face model.
        ModelFormatError: A model file cannot be read, or no face is found on its mean shape.
    """

    def __init__(
        self,
        method: Method = "hiface",
        face_model: str | Path | MorphableModel = "open",
        device: str | torch.device | None = None,
        weights: Path | None = None,
        refine: bool = False,
        align: bool = True,
        detail_px: int = DEFAULT_DETAIL_PX,
        albedo_blend: float = ALBEDO_BLEND,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
        if refine and method != "hiface":
            raise ValueError(f"refine goes on from a network's answer; the method {method!r} has none")
        if not DEFAULT_DETAIL_PX <= detail_px <= _LARGEST_DETAIL_PX or detail_px & (detail_px - 1):
            raise OptionError(f"detail_px must be 256, 512 or {_LARGEST_DETAIL_PX}, got {detail_px}")
        if not 0.0 <= albedo_blend <= 1.0:
            raise OptionError(f"albedo_blend must be within 0..1, got {albedo_blend}")
        self.method, self.refine, self.align = method, refine, align
        self.detail_px, self.albedo_blend = detail_px, albedo_blend
        self.device = check_device(device) if device else pick_device()[0]
        loaded = face_model if isinstance(face_model, MorphableModel) else load_model(face_model)
        self.model = complete_model(loaded) if method == "fit" else loaded
        self.detector = FaceDetector()
        self.network, self.detail = None, None
        self._basis: DetailBasis | None = None  # says how deep people's lines are
        with suppress(AssetError):  # of another face model than the packaged one
            self._basis = load_detail_basis(self.model.name)
        if method == "hiface":
            _check_weights(weights)
            network = load_hiface(weights)
            check_model(network.config, self.model, load_detail_basis(self.model.name))
            self.detail = SdDetail.of(network, self.model.name)
            notes = weights_notes(weights or asset_path("weights/hiface.safetensors"))
            motion = load_motion() if weights is None else None
            self.network = HifaceReader.of(
                copy.deepcopy(network), self.model, str(self.device), notes, motion
            )

    def reconstruct(self, image: str | Path | np.ndarray | Photo) -> list[FaceResult]:
        """Reconstructs every face of a photo.

        Args:
            image: Path of a picture, or an array ([H, W, 3] uint8 or 0..1 float sRGB, grey or RGBA too).

        Returns:
            One result per person, largest face first; empty if there is no face.

        Raises:
            ImageError: The picture cannot be read.
            FitError: The fit of a face diverged.
        """
        photo = image if isinstance(image, Photo) else read_photo(image)
        detections, detect_s = self._detected(photo)
        if self.network is not None:
            return self._finished(self.read(photo, detections, detect_s))
        return [self.fit(photo, detection, detect_s) for detection in detections]

    def _detected(self, photo: Photo) -> tuple[list[Detection], float]:
        """Faces of a photo, largest first, and the seconds it took to find them."""
        started = time.perf_counter()
        detections = self.detector.detect(photo.image_srgb, photo.focal_px)
        return sorted(detections, key=_area, reverse=True), time.perf_counter() - started

    def _finished(self, faces: list[FaceResult]) -> list[FaceResult]:
        """What was asked for beyond the network's answer."""
        if self.refine:
            return [self.refined(face) for face in faces]
        return [self._aligned_if_possible(face) for face in faces] if self.align else faces

    def coefficients(
        self, image_srgb: np.ndarray, detections: list[Detection], focal_px: float, with_detail: bool = True
    ) -> FaceParams:
        """What the network reads of detected faces, without anything that is fitted.

        Args:
            image_srgb: [H, W, 3] uint8, upright.
            detections: N faces in it, at least one.
            focal_px: Focal length, pixels.
            with_detail: Whether static codes are read, a third of the work; else they are 0.

        Returns:
            FaceParams with a leading dimension of N, on the CPU.

        Raises:
            ValueError: This reconstructor has no network.
        """
        if self.network is None:
            raise ValueError("only a Reconstructor of the method 'hiface' has a network")
        batch = self.network.read(image_srgb, detections, focal_px, with_detail)
        return batch.replace(pose=pose_from_expression(self.model, batch.expression, batch.pose))

    def read(self, photo: Photo, detections: list[Detection], detect_s: float = 0.0) -> list[FaceResult]:
        """One pass of the HiFace network over all faces of a photo."""
        if not detections:
            return []
        started = time.perf_counter()
        height, width = photo.image_srgb.shape[:2]
        batch = self.coefficients(
            photo.image_srgb, detections, photo.focal_px or default_focal_px(width, height)
        )
        timings = {"detect": detect_s, "network": (time.perf_counter() - started) / len(detections)}
        return [self._result(batch[i], photo, detection, timings) for i, detection in enumerate(detections)]

    def _result(
        self, params: FaceParams, photo: Photo, detection: Detection, timings_s: dict[str, float]
    ) -> FaceResult:
        return FaceResult(
            params,
            self.model,
            photo,
            detection,
            fitted=params,
            timings_s=timings_s,
            detail=self.detail,
            albedo_blend=self.albedo_blend,
        )

    def _aligned_if_possible(self, face: FaceResult) -> FaceResult:
        try:
            return self.aligned(face)
        except FitError as error:
            LOGGER.warning("a face keeps the network's pose and expression: %s", error)
            return face

    def aligned(self, face: FaceResult) -> FaceResult:
        """The network's answer with pose and expression moved to the landmarks.

        Raises:
            ValueError: The face does not come from this reconstructor's network.
            FitError: No pose explains the landmarks.
        """
        started = time.perf_counter()
        believed = self._believed(face)
        height, width = face.photo.image_srgb.shape[:2]
        observation = landmark_observation(face.detection, width, height, face.photo.focal_px)
        params = align_to_landmarks(face.model, observation, believed)
        timings = {**face.timings_s, "align": time.perf_counter() - started}
        return replace(face, params=params, fitted=params, timings_s=timings, _textures={})

    def refined(self, face: FaceResult) -> FaceResult:
        """Goes on from a network's answer: inverse rendering of all coefficients, then of the detail codes.

        Raises:
            ValueError: The face does not come from this reconstructor's network.
            FitError: The fit diverged.
        """
        started = time.perf_counter()
        believed = self._believed(face)
        observation = observation_from_detection(face.detection, face.photo.image_srgb, face.photo.focal_px)
        params = fit_face(face.model, observation, believed=believed).params
        static = self._shared_codes([face], [params])
        timings = {**face.timings_s, "refine": time.perf_counter() - started}
        params = params.replace(static=static)
        face = replace(face, params=params, fitted=params, timings_s=timings, _textures={})
        (done,) = self._with_relief([face])
        return done

    def _with_relief(self, faces: list[FaceResult]) -> list[FaceResult]:
        """Adds the displacement that the shading of a person's photos shows beyond the detail codes."""
        started = time.perf_counter()
        region_px = max(_REFINE_PX, 2 * self.detail_px)

        def photos() -> Iterator[tuple[FaceParams, Tensor, Tensor]]:
            for face in faces:
                region, camera = head_region(face.model, face.params, face.photo.image_srgb, region_px)
                known = resize(replace(face, relief=None).displacement(), self.detail_px)
                yield face.params.replace(camera=camera), srgb_to_linear(region), known

        relief = fit_shared_relief(self.model, photos(), self._basis)
        seconds = (time.perf_counter() - started) / len(faces)
        return [
            replace(face, relief=relief, timings_s={**face.timings_s, "relief": seconds}) for face in faces
        ]

    def reconstruct_person(self, images: Sequence[str | Path | np.ndarray | Photo]) -> list[FaceResult]:
        """Reconstructs one person from several photos: one identity, albedo and static detail for all.

        Args:
            images: Photos, as for `reconstruct`.

        Returns:
            One result per photo that shows a face, in order, each with its own expression, pose, camera and
            light; all have the same texture.

        Raises:
            FitError: The fit diverged.
            HifaceError: As `find_person`.
        """
        return self.together(self.find_person(images)[0])

    def find_person(
        self, images: Sequence[str | Path | np.ndarray | Photo]
    ) -> tuple[list[FaceResult], list[float | None]]:
        """The faces that `reconstruct_person` fits together, as `together` takes them.

        In photos of several people the face most like those of the other photos is taken. Files are read
        again whenever their pixels are needed, so that few are in memory at a time.

        Args:
            images: Photos, as for `reconstruct`.

        Returns:
            One face per photo that shows any, in order, and how like the others' it is (`one_person`; None
            with a fit alone, which cannot tell).

        Raises:
            ImageError: A picture cannot be read.
            NoFaceError: No photo shows a face.
            DifferentPeopleError: A photo shows somebody else; not all of them are noticed.
        """
        store = PhotoStore()
        photos = [_stored_photo(image, store) for image in images]
        seen = [self._candidates(photo) for photo in photos]
        found = [candidates for candidates in seen if candidates]
        if not found:
            raise NoFaceError("no photo shows a face")
        if len(found) < len(seen):
            LOGGER.warning("%d of %d photos show no face", len(seen) - len(found), len(seen))
        if self.network is None:
            return [candidates[0] for candidates in found], [None] * len(found)
        sigma = self.network.identity_sigma
        return one_person(found, [[f.params.identity / sigma for f in group] for group in found])

    def _candidates(self, photo: Photo) -> list[FaceResult]:
        """Faces of a photo, largest first, before anything is fitted."""
        detections, detect_s = self._detected(photo)
        if self.network is not None:
            return self.read(photo, detections, detect_s)
        height, width = photo.image_srgb.shape[:2]
        nobody = mean_face(self.model, width, height, photo.focal_px or default_focal_px(width, height))
        return [self._result(nobody, photo, d, {"detect": detect_s}) for d in detections]

    def together(self, faces: list[FaceResult]) -> list[FaceResult]:
        """Fits photos of one person together: one identity, albedo, static detail and texture.

        Args:
            faces: One of each photo, at least one, from `read`; what is fitted starts there.

        Returns:
            As many, in order.

        Raises:
            FitError: The fit diverged.
        """
        started = time.perf_counter()
        observations = [
            observation_from_detection(f.detection, f.photo.image_srgb, f.photo.focal_px) for f in faces
        ]
        starts = None
        if self.network is not None:
            starts = shared_start([self._believed(face) for face in faces], _CORRELATION)
        fitted = [fit.params for fit in fit_together(self.model, observations, starts)]
        static = self._shared_codes(faces, fitted)
        seconds = (time.perf_counter() - started) / len(faces)
        results = []
        for face, params in zip(faces, fitted, strict=True):
            params = params.replace(static=static)
            timings = {**face.timings_s, "together": seconds}
            results.append(replace(face, params=params, fitted=params, timings_s=timings))
        textures = {}  # baked once for all: they are of the same photos
        results = [replace(face, _textures=textures) for face in self._with_relief(results)]
        return [
            replace(face, also=tuple(other for other in results if other is not face)) for face in results
        ]

    def _shared_codes(self, faces: list[FaceResult], fitted: list[FaceParams]) -> Tensor | None:
        """Static detail codes of all photos together, or None without the network's bases."""
        if self.detail is None:
            return None

        def photos() -> Iterator[tuple[FaceParams, Tensor]]:
            for face, params in zip(faces, fitted, strict=True):
                region, camera = head_region(face.model, params, face.photo.image_srgb, _REFINE_PX)
                yield params.replace(camera=camera), srgb_to_linear(region)

        config = DetailFitConfig(sigma=_DETAIL_SIGMA)
        return fit_shared_codes(self.model, self.detail.basis, self.detail.codes, photos(), config)

    def _believed(self, face: FaceResult) -> Start:
        if self.network is None or self.detail is None or face.detail is not self.detail:
            raise ValueError(
                "only a Reconstructor of the method 'hiface' can align or refine, and only its own faces"
            )
        return Start(face.fitted, self.network.identity_sigma, _EXPRESSION_SIGMA, _ALBEDO_SIGMA)

    def fit(self, photo: Photo, detection: Detection, detect_s: float = 0.0) -> FaceResult:
        """Fits one detected face; see `reconstruct`."""
        started = time.perf_counter()
        observation = observation_from_detection(detection, photo.image_srgb, photo.focal_px)
        params = fit_face(self.model, observation).params
        timings = {"detect": detect_s, "fit": time.perf_counter() - started}
        face = self._result(params, photo, detection, timings)
        (done,) = self._with_relief([face])
        return done


def _check_weights(weights: Path | None) -> None:
    if weights is None and "weights/hiface.safetensors" not in list_assets("weights", ".safetensors"):
        raise AssetError(
            "this package has no trained weights of the HiFace network; train some with hiface train hiface "
            "and name the file (weights=, or --weights), or use the method fit"
        )


def _stored_photo(image: str | Path | np.ndarray | Photo, store: PhotoStore) -> Photo:
    if isinstance(image, Photo):
        return image
    return read_photo(image) if isinstance(image, np.ndarray) else StoredPhoto(image, store)


def _area(detection: Detection) -> float:
    x0, y0, x1, y1 = (float(v) for v in detection.box)
    return (x1 - x0) * (y1 - y0)
