# SPDX-License-Identifier: Apache-2.0
"""Writes a head as binary glTF 2.0: morph targets (52 of the open model), joints, texture, camera, clips.

Nodes: `head_rig` (carries the joints neck > head > jaw, eye_left, eye_right), `head_mesh` (skinned, one
primitive per material) and `photo_camera`. The head stands upright at the origin in object space, which has
glTF's axes; the camera is placed so that it sees the head as in the photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface import __version__
from hiface.animation.gaze import EYE_JOINTS, EYELOOK_NAMES
from hiface.atomic import atomic_write_bytes
from hiface.errors import OutputError, ShapeError
from hiface.export.clips import (
    Clip,
    continuous_quaternions,
    matrix_to_quaternion,
    rotvec_to_quaternion,
)
from hiface.export.glb_mesh import GlbDetail, head_arrays, numbers, primitives
from hiface.export.gltf_builder import GltfBuilder
from hiface.export.morphs import check_single, exported_names, exported_weights, morph_weights
from hiface.export.parts import SKIN, Material, split_by_material
from hiface.export.pictures import jpeg_bytes, png_bytes
from hiface.export.units import ExportInfo, units_per_metre
from hiface.morphable import MorphableModel
from hiface.types import Camera, FaceParams

_CV_TO_GL = np.diag([1.0, -1.0, -1.0])
_RIG, _HEAD, _CAMERA, _FIRST_JOINT = 0, 1, 2, 3


def write_glb(
    path: str | Path,
    model: MorphableModel,
    params: FaceParams,
    texture_srgb: Tensor | None,
    *,
    detail: GlbDetail | None = None,
    units: str = "m",
    animations: Sequence[Clip] = (),
    info: ExportInfo | None = None,
) -> Path:
    """Writes one face as a GLB file.

    Args:
        path: File to write.
        model: The face model.
        params: One face, without batch dimensions.
        texture_srgb: [3, H, W] sRGB, 0..1, in the model's UV layout; plain colours if None.
        detail: Relief and wrinkles, or None.
        units: "m", as glTF demands; "cm" and "mm" go against the specification and are noted in the extras.
        animations: Clips to store.
        info: Where the face came from, for the file's extras.

    Returns:
        The path.

    Raises:
        ShapeError: `params` is a batch, or an array has the wrong shape.
        OutputError: The file cannot be written or the unit is unknown.
    """
    check_single(params)
    scale = units_per_metre(units)
    builder = GltfBuilder()
    arrays = head_arrays(model, params, scale, detail is not None)
    weights = exported_weights(model, morph_weights(model, params.expression, params.pose))
    parts = split_by_material(model.data)
    images, relief = [], None
    if texture_srgb is not None:
        images.append(_image(builder, "texture", "image/jpeg", jpeg_bytes(texture_srgb)))
    if detail is not None:
        relief = len(images)
        images.append(_image(builder, "normals", "image/png", png_bytes(detail.normal_map)))
    document: dict[str, Any] = {
        "asset": _asset(model, params, units, info or ExportInfo()),
        "scene": 0,
        "scenes": [{"name": "scene", "nodes": [_RIG, _HEAD, _CAMERA]}],
        "nodes": _nodes(model, params, scale),
        "meshes": [
            {
                "name": "head",
                "primitives": primitives(builder, arrays, parts, detail, scale),
                "weights": _floats(weights),
                "extras": {"targetNames": exported_names(model)},
            }
        ],
        "materials": [_material(part.material, texture_srgb is not None, relief) for part in parts],
        "skins": [_skin(builder, model, params, scale)],
        "cameras": [_camera(params.camera)],
    }
    if images:
        document["images"] = images
        document["textures"] = [{"source": i, "sampler": 0} for i in range(len(images))]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
    if animations:
        document["animations"] = [_animation(builder, clip, model, scale) for clip in animations]
    return atomic_write_bytes(path, builder.to_glb(document))


def _floats(values: Tensor) -> list[float]:
    """Values as JSON numbers, rounded to 6 decimals."""
    return [round(v, 6) for v in values.detach().cpu().double().flatten().tolist()]


def _material(material: Material, textured: bool, relief: int | None) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": material.roughness}
    if textured:
        surface["baseColorTexture"] = {"index": 0}
    else:
        surface["baseColorFactor"] = [*material.colour_linear, 1.0]
    out = {"name": material.name, "pbrMetallicRoughness": surface, "doubleSided": material.double_sided}
    return out if relief is None or material.name != SKIN else out | {"normalTexture": {"index": relief}}


def _image(builder: GltfBuilder, name: str, mime: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": mime, "bufferView": builder.view(content)}


def _rest_joints(model: MorphableModel, params: FaceParams, scale: float) -> np.ndarray:
    return numbers(model.joints(params.identity, params.expression)) * scale


def _nodes(model: MorphableModel, params: FaceParams, scale: float) -> list[dict[str, Any]]:
    """Rig, mesh, camera, then the joints; eye joints rest where eyeLook targets turn the eyes."""
    data = model.data
    looks = set(EYELOOK_NAMES) <= set(data.expression_names)
    joints = _rest_joints(model, params, scale)
    roots = [_FIRST_JOINT + j for j, parent in enumerate(data.joint_parents) if parent < 0]
    nodes: list[dict[str, Any]] = [
        {"name": "head_rig", "children": roots},
        {"name": "head_mesh", "mesh": 0, "skin": 0},
        _camera_node(params.camera, scale),
    ]
    quaternions = rotvec_to_quaternion(numbers(params.pose))
    for j, name in enumerate(data.joint_names):
        parent = data.joint_parents[j]
        offset = joints[j] - (joints[parent] if parent >= 0 else 0.0)
        node: dict[str, Any] = {"name": name, "translation": offset.tolist()}
        if name not in EYE_JOINTS or not looks:
            node["rotation"] = quaternions[j].tolist()
        children = [_FIRST_JOINT + c for c, p in enumerate(data.joint_parents) if p == j]
        if children:
            node["children"] = children
        nodes.append(node)
    return nodes


def _skin(builder: GltfBuilder, model: MorphableModel, params: FaceParams, scale: float) -> dict[str, Any]:
    joints = _rest_joints(model, params, scale)
    inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
    inverse_bind[:, 3, :3] = -joints
    return {
        "name": "head_rig",
        "joints": list(range(_FIRST_JOINT, _FIRST_JOINT + len(joints))),
        "inverseBindMatrices": builder.accessor(inverse_bind),
        "skeleton": _RIG,
    }


def _camera(camera: Camera) -> dict[str, Any]:
    fy = float(camera.K[1, 1])
    return {
        "name": "photo_camera",
        "type": "perspective",
        "perspective": {
            "yfov": 2.0 * math.atan(camera.height / (2.0 * fy)),
            "aspectRatio": camera.width / camera.height,
            "znear": 0.01,
            "zfar": 100.0,
        },
    }


def _camera_node(camera: Camera, scale: float) -> dict[str, Any]:
    T = numbers(camera.T_cam_object)
    R_object_gl = T[:3, :3].T @ _CV_TO_GL
    return {
        "name": "photo_camera",
        "camera": 0,
        "translation": (-T[:3, :3].T @ T[:3, 3] * scale).tolist(),
        "rotation": matrix_to_quaternion(R_object_gl).tolist(),
    }


def _animation(builder: GltfBuilder, clip: Clip, model: MorphableModel, scale: float) -> dict[str, Any]:
    data = model.data
    if clip.weights.shape[1] != len(data.expression_names):
        raise ShapeError(f"clip {clip.name!r} must have {len(data.expression_names)} weights per key")
    times = builder.accessor(clip.times, bounds=True)
    values = clip.weights.clip(0.0, 1.0) if data.expression_kind == "unit" else clip.weights
    values = exported_weights(model, torch.from_numpy(np.ascontiguousarray(values))).numpy()
    tracks: list[tuple[int, str, np.ndarray]] = [(_HEAD, "weights", values.ravel())]
    for joint, rotvec in clip.rotations.items():
        if joint not in data.joint_names:
            raise OutputError(
                f"clip {clip.name!r} turns {joint!r}; the joints are {', '.join(data.joint_names)}"
            )
        node = _FIRST_JOINT + data.joint_names.index(joint)
        tracks.append((node, "rotation", continuous_quaternions(rotvec_to_quaternion(rotvec))))
    if clip.T_head is not None:
        tracks.append((_RIG, "translation", clip.T_head[:, :3, 3] * scale))
        tracks.append(
            (_RIG, "rotation", continuous_quaternions(matrix_to_quaternion(clip.T_head[:, :3, :3])))
        )
    samplers, channels = [], []
    for node, target, values in tracks:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": target}})
        samplers.append({"input": times, "output": builder.accessor(values), "interpolation": "LINEAR"})
    return {"name": clip.name, "channels": channels, "samplers": samplers}


def _asset(model: MorphableModel, params: FaceParams, units: str, info: ExportInfo) -> dict[str, Any]:
    data, camera = model.data, params.camera
    return {
        "version": "2.0",
        "generator": f"hiface {__version__}",
        "extras": {
            "software": {"name": "hiface", "version": __version__},
            "model": {"name": data.name, "version": data.version, "licence": data.licence},
            "units": units,
            "scale_source": info.scale_source,
            "camera": {
                "convention": "OpenCV: x right, y down, z forward; K in pixels of the upright photo; metres",
                "K": numbers(camera.K).tolist(),
                "T_cam_object": numbers(camera.T_cam_object).tolist(),
                "width": camera.width,
                "height": camera.height,
            },
            "provenance": dict(info.provenance),
        },
    }
