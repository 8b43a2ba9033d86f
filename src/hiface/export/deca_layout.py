# SPDX-License-Identifier: Apache-2.0
"""One face in files with the names of DECA's (Feng et al. 2021), for scripts that look for those.

Names and formats only: numbers are hiface's, of its own face model, and what they mean is in docs/outputs.md.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.detail.sd_detail import detailed_normals
from hiface.export.deca_pictures import DecaView, deca_view
from hiface.export.dense import dense_mesh
from hiface.export.detail_maps import tangent_normal_map
from hiface.export.draw import grid
from hiface.export.morphs import check_single
from hiface.export.obj import write_coloured_obj, write_obj
from hiface.export.pictures import pil_jpeg
from hiface.export.ply import mesh_colours
from hiface.export.units import ExportInfo
from hiface.morphable import MorphableModel
from hiface.optional import needed
from hiface.render.pyramid import resize
from hiface.types import Camera, FaceParams

MAP_PX = 256
"""Side of the maps in the .mat file, as DECA's."""
PICTURES = (
    "inputs",
    "rendered_images",
    "albedo_images",
    "shape_images",
    "shape_detail_images",
    "landmarks2d",
)
_UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
_COLUMNS = 4


@dataclass(frozen=True)
class DecaFace:
    """What the files are made from.

    Attributes:
        model: Face model.
        params: Coefficients that explain the photo, without batch dimensions.
        image_srgb: [H, W, 3] uint8 sRGB, the upright photo.
        texture_srgb: [3, S, S] sRGB, 0..1.
        displacement: [1, D, D] metres; zero where there is no detail.
        units: "m", "cm" or "mm", of the .obj files.
        info: Where the face came from.
    """

    model: MorphableModel
    params: FaceParams
    image_srgb: np.ndarray
    texture_srgb: Tensor
    displacement: Tensor
    units: str = "m"
    info: ExportInfo = field(default_factory=ExportInfo)


def check_deca_extra() -> None:
    """Raises MissingExtraError if SciPy, which writes the .mat file, is not installed."""
    needed("scipy.io", "the .mat file of --layout deca needs scipy", "deca")


def write_deca_layout(face: DecaFace, out: str | Path, name: str) -> list[Path]:
    """Writes OUT/<name>/<name>.obj and the other files, and OUT/<name>_vis.jpg.

    Args:
        face: The face.
        out: Output folder; OUT/<name> is made.
        name: Stem of all files.

    Returns:
        The files written.

    Raises:
        OutputError: A file cannot be written or the unit is unknown.
        ShapeError: `face.params` is a batch.
        MissingExtraError: SciPy is not installed.
    """
    check_single(face.params)
    check_deca_extra()
    folder, how = Path(out) / name, {"units": face.units, "info": face.info}
    model, params = face.model, face.params
    with torch.no_grad():
        vertices = model.vertices(params.identity, params.expression, params.pose)
        view = deca_view(model, params, face.image_srgb, face.texture_srgb, face.displacement)
        relief = tangent_normal_map(model, vertices, face.displacement)
        values = deca_values(face, view)
    written = write_obj(folder / f"{name}.obj", model, vertices, face.texture_srgb, normal_map=relief, **how)
    dense = dense_mesh(model, vertices, face.displacement).mesh
    colours = mesh_colours(dense, face.texture_srgb)
    path = folder / f"{name}_detail.obj"
    written.append(write_coloured_obj(path, dense.vertices, dense.triangles, colours, **how))
    for ending, key in (("kpt2d", "landmarks2d"), ("kpt3d", "landmarks3d")):
        written.append(atomic_write_text(folder / f"{name}_{ending}.txt", _table(values[key][0])))
    written.append(atomic_write_bytes(folder / f"{name}.mat", _mat(values)))
    pictures = {f"{name}_{key}.jpg": view.pictures[key] for key in PICTURES}
    pictures[f"{name}_depth.jpg"] = view.pictures["depth_images"]
    for file, picture in pictures.items():
        written.append(atomic_write_bytes(folder / file, pil_jpeg(picture)))
    sheet = grid(list(view.pictures.items()), _COLUMNS)
    return [*written, atomic_write_bytes(Path(out) / f"{name}_vis.jpg", pil_jpeg(sheet))]


def deca_values(face: DecaFace, view: DecaView) -> dict[str, np.ndarray]:
    """Arrays of the .mat file by DECA's names, float32 with a batch dimension of 1.

    Args:
        face: The face.
        view: What `deca_view` drew of it.

    Returns:
        See docs/outputs.md for shapes, units and for what means something else than with DECA.
    """
    model, params, camera = face.model, face.params, face.params.camera
    vertices = model.vertices(params.identity, params.expression, params.pose)
    verts_cam = camera.to_cam(vertices)
    landmarks_cam = model.landmarks_cam("ibug68", verts_cam)
    landmarks = (landmarks_cam - camera.t) @ camera.R
    values = {
        "shape": params.identity,
        "exp": params.expression,
        "pose": _pose(model, params),
        "cam": weak_perspective(view.camera),
        "tex": params.albedo,
        "light": params.light,
        "verts": vertices,
        "trans_verts": verts_cam,
        "landmarks2d": camera.cam_to_px(landmarks_cam),
        "landmarks3d": landmarks_cam,
        "landmarks3d_world": landmarks,
        "albedo": resize(face.texture_srgb, MAP_PX),
        "displacement_map": resize(face.displacement, MAP_PX),
        "uv_detail_normals": detailed_normals(model, vertices, resize(face.displacement, MAP_PX)),
        "depth_images": view.depth_m,
        "normal_images": view.normals_cam,
        "alpha_images": view.mask,
        "joint_pose": params.pose,
        "K": camera.K,
        "K_view": view.camera.K,
        "T_cam_object": camera.T_cam_object,
    }
    if params.static is not None:
        values["detail"] = params.static
    return {key: value.detach().cpu().float().numpy()[None] for key, value in values.items()}


def weak_perspective(camera: Camera) -> Tensor:
    """[3] scale, x and y: what a camera does near the origin of the head, said as DECA says it.

    A point p of object space, turned as the head is (q = R p with x right, y up), is seen at
    `scale * (q + [x, y])` in coordinates of the picture from -1 to 1, y up.
    """
    z, size = camera.t[2], camera.t.new_tensor([camera.width, camera.height])
    centre = camera.cam_to_px(camera.t[None])[0]
    seen = (2.0 * centre / size - 1.0) * centre.new_tensor([1.0, -1.0])
    scale = 2.0 * camera.focal_px / (size[0] * z)
    return torch.cat([scale[None], seen / scale])


def _pose(model: MorphableModel, params: FaceParams) -> Tensor:
    """[6] rotation vectors: of the head, 0 when it looks upright into the camera, and of the jaw."""
    R = _UPRIGHT.to(params.camera.R) @ params.camera.R
    names = model.data.joint_names
    jaw = params.pose[names.index("jaw")] if "jaw" in names else torch.zeros(3)
    return torch.cat([roma.rotmat_to_rotvec(R), jaw.to(R)])


def _table(rows: np.ndarray) -> str:
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows.tolist())


def _mat(values: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    needed("scipy.io", "the .mat file of --layout deca needs scipy", "deca").savemat(
        stream, values, do_compression=True
    )
    return stream.getvalue()
