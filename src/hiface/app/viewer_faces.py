# SPDX-License-Identifier: Apache-2.0
"""Faces for the interactive viewer: read from result folders, or fresh from a reconstruction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import DecompressionBombError as Bomb
from torch import Tensor

from hiface.animation.motion import Motion
from hiface.animation.motion_json import read_motion_json
from hiface.app.results import ResultFiles, json_object, read_glb_document
from hiface.colour import srgb_to_linear
from hiface.data.images import Photo, read_photo
from hiface.errors import AssetError, FaceFileError, HifaceError, MeshFileError, OptionError
from hiface.export.detail_maps import read_displacement_png
from hiface.export.glb_container import unpack_glb
from hiface.export.hollows import hollow_shade
from hiface.export.json_params import FaceRecord, read_face_json
from hiface.export.texture import ALBEDO_BLEND, TextureBake, model_texture
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection
from hiface.networks.sd_detail import SdDetail
from hiface.networks.weights import load_hiface
from hiface.result import FaceResult
from hiface.types import Camera

TEXTURE_PX = 1024
_SMALLEST_RELIEF_M = 2e-6


@dataclass(frozen=True, eq=False)
class ViewedFace:
    """A person that can be shown.

    Attributes:
        title: Shown in the list of people.
        face: The face with the photo's expression; without photo, `has_photo` is False and the photo of
            `face` is empty.
        texture_linear: [3, S, S] albedo, linear.
        hollow: [3, S, S] the same, where the mouth's inside is as dark as it looks.
        has_photo: Whether `face.photo` is the photo that `face.camera` belongs to.
        light_gain: [3] factors on the photo's light for the texture to look as the photo does.
        motion: Motion of a tracked video, or None.
        film: A video whose left third shows the frames of the motion, or None.
    """

    title: str
    face: FaceResult
    texture_linear: Tensor
    hollow: Tensor
    has_photo: bool
    light_gain: Tensor
    motion: Motion | None = None
    film: Path | None = None


def face_of_result(face: FaceResult, title: str) -> ViewedFace:
    """A fresh reconstruction; bakes its texture."""
    return _viewed(face, title, has_photo=True)


def load_faces(people: Sequence[ResultFiles]) -> list[ViewedFace]:
    """Reads the people of a result folder.

    Args:
        people: From `find_results`.

    Raises:
        OptionError: A file has no coefficients beside it, or is of another face model.
        FaceFileError: face.json or the motion is damaged.
        MeshFileError: The GLB file is damaged.
    """
    return [_load(files) for files in people]


def _load(files: ResultFiles) -> ViewedFace:
    if files.face_json is None:
        raise OptionError(
            f"{files.glb} has no face.json beside it, which the sliders need; reconstruct with --format "
            "glb,json, or write a page of it with --html"
        )
    record = read_face_json(files.face_json)
    model = _model(record, files)
    camera, motion, film = record.params.camera, None, None
    folder = files.glb.parent
    if (folder / "blendshapes.json").is_file():
        motion = read_motion_json(folder / "blendshapes.json", model.data.expression_names)
        camera = _video_camera(folder.parent / "track.json", camera)
        film = folder.parent / "overlay.mp4"
    photo = _photo(files, camera.width, camera.height)
    params = record.params.replace(camera=camera)
    texture = _texture(files, model, params.albedo)
    detail = _detail() if params.static is not None else None
    if detail is not None and params.static is not None and len(params.static) != detail.basis.static.count:
        detail = None
    face = FaceResult(
        params,
        model,
        photo or Photo(np.zeros((0, 0, 3), np.uint8)),
        _detection(record),
        fitted=params,
        scale_source=record.scale_source,
        detail=detail,
        _textures={(TEXTURE_PX, ALBEDO_BLEND): TextureBake(texture, torch.ones(texture.shape[1:]).bool())},
    )
    face = replace(face, relief=_relief(files, face))
    found = film if film is not None and film.is_file() else None
    return _viewed(face, files.title, photo is not None, motion, found)


def _video_camera(track: Path, camera: Camera) -> Camera:
    """The camera with the intrinsics that a video's track.json has, where it has some."""
    K = json_object(track).get("camera")
    if K is None:
        return camera
    try:
        intrinsics = torch.tensor(K, dtype=torch.float32)
        if not bool(intrinsics.isfinite().all()):
            raise ValueError("a number is not finite")
        return replace(camera, K=intrinsics)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise FaceFileError(f"the camera in {track} is damaged ({error}); track the video again") from error


def _viewed(
    face: FaceResult, title: str, has_photo: bool, motion: Motion | None = None, film: Path | None = None
) -> ViewedFace:
    albedo = srgb_to_linear(face.texture(TEXTURE_PX))
    hollow = albedo * hollow_shade(face.model, TEXTURE_PX)
    return ViewedFace(title, face, albedo, hollow, has_photo, face.light_gain(TEXTURE_PX), motion, film)


def _model(record: FaceRecord, files: ResultFiles) -> MorphableModel:
    try:
        model = load_model(record.model[0])
    except (AssetError, OSError) as error:
        raise OptionError(
            f"{files.face_json} belongs to the face model {record.model[0]!r}, which is not packaged; add "
            "--html to look at its GLB file"
        ) from error
    if model.data.expression_names != record.expression_names:
        raise OptionError(
            f"{files.face_json} has other expressions than the model; write it again with this hiface"
        )
    return model


@cache
def _detail() -> SdDetail | None:
    """The packaged network's detail, or None without its weights."""
    try:
        return SdDetail.of(load_hiface(None))
    except AssetError:
        return None


def _detection(record: FaceRecord) -> Detection:
    """What the record still says of what the networks saw."""
    points = record.landmarks_px.get("ibug68", torch.zeros(68, 2))
    none = torch.zeros(0)
    return Detection(
        box=torch.tensor(record.box_px or (0.0, 0.0, 0.0, 0.0)),
        score=record.score or 0.0,
        landmarks68_px=points,
        landmarks68_sigma_px=torch.ones(68),
        landmarks68_visible=torch.ones(68),
        dense_px=torch.zeros(0, 2),
        dense_sigma_px=none,
        dense_visible=none,
        iris_px=torch.zeros(0, 2),
        iris_sigma_px=none,
        R_cam_object=record.params.camera.R,
    )


def _photo(files: ResultFiles, width: int, height: int) -> Photo | None:
    """The photo, if it is the one of the camera."""
    if files.photo is None:
        return None
    try:
        photo = read_photo(files.photo)
    except HifaceError:
        return None
    return photo if (photo.width, photo.height) == (width, height) else None


def _texture(files: ResultFiles, model: MorphableModel, albedo: Tensor) -> Tensor:
    """[3, S, S] sRGB: the first texture of the GLB file, or the model's own."""
    try:
        content = files.glb.read_bytes()
    except OSError as error:
        raise MeshFileError(f"{files.glb} cannot be read ({error.strerror}); check the path") from error
    document = read_glb_document(content, str(files.glb))
    if not document.get("images"):
        return model_texture(model, albedo, size=TEXTURE_PX)
    try:
        view = document["bufferViews"][document["images"][0]["bufferView"]]
        start = view.get("byteOffset", 0)
        encoded = (unpack_glb(content).binary or b"")[start : start + view["byteLength"]]
        picture = Image.open(io.BytesIO(encoded)).convert("RGB")
        pixels = np.array(picture.resize((TEXTURE_PX, TEXTURE_PX), Image.Resampling.BICUBIC))
    except (KeyError, IndexError, TypeError, OSError, SyntaxError, ValueError, Bomb) as error:
        raise MeshFileError(f"the texture of {files.glb} is damaged ({error}); export it again") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0


def _relief(files: ResultFiles, face: FaceResult) -> Tensor | None:
    """[1, S, S] metres: what the static map beside the file holds beyond what the codes make."""
    if files.static is None:
        return None
    stored = read_displacement_png(files.static.read_bytes(), str(files.static))
    known = face.displacement("static")
    known = torch.nn.functional.interpolate(known[None], size=stored.shape[-1], mode="bilinear")[0]
    rest = stored - known
    return rest if float(rest.abs().max()) > _SMALLEST_RELIEF_M else None
