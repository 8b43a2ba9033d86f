# SPDX-License-Identifier: Apache-2.0
"""Skin, eyes, teeth and tongue: the part of a picture that the face model draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.texture import sample_texture
from hiface.synthetic.eyes import Lids, lid_shade
from hiface.synthetic.face_paint import paint_features
from hiface.synthetic.lights import (
    Surroundings,
    head_visibility,
    lamp_visibility,
    plain_light,
    received_light,
)
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.people import Person
from hiface.synthetic.relief import light_quadratic, relief_at, relief_maps, shadow_share, slope_axes
from hiface.synthetic.scene import Canvas, Drawn
from hiface.synthetic.vectors import unit_columns

LABEL_SKIN, LABEL_EYES, LABEL_MOUTH = 1, 2, 3
TEXTURE_PX = 256
_PART_LABEL = {"eye": LABEL_EYES, "mouth": LABEL_MOUTH, "teeth": LABEL_MOUTH, "tongue": LABEL_MOUTH}
_DEEPER_M = {"mouth": 0.012, "teeth": 0.012, "tongue": 0.010, "socket": 0.002, "eye": 0.0008}
_LINEAR_MELANIN = 0.8
_DARKEST = (0.30, 0.26, 0.27)
_SKIN_UV = 0.84  # rows of the UV square above this hold skin, below it sockets, eyes and mouth


@dataclass(frozen=True)
class HeadTables:
    """Per-triangle facts of a model.

    Attributes:
        label: [T] uint8 segmentation label.
        gloss: [T] 0 dry, 1 wet.
        grid: [T, 3, 2] texture coordinates of the corners, -1..1.
        is_tooth: [T] bool.
        teeth: [N] vertices of the teeth.
        tooth_mean: [3] albedo of the bright side of the teeth.
        front: [N] 1 for front teeth to 0 for the last molars.
        deeper_m: [V] how much further away than they are parts inside the head are drawn, so that they never
            show through thin skin.
        eye_side: [T] int8: 0 left eyeball, 1 right eyeball, -1 elsewhere.
        albedo_mean: [3, 256, 256].
        albedo_basis: [A, 3 * 256 * 256].
        iris_axis: [2, 3] direction of the pupils from the eyes' centres at rest, left first.
        iris_rad: Angle from the pupil to the edge of the iris, radians.
    """

    label: Tensor
    gloss: Tensor
    grid: Tensor
    is_tooth: Tensor
    teeth: Tensor
    tooth_mean: Tensor
    front: Tensor
    deeper_m: Tensor
    eye_side: Tensor
    albedo_mean: Tensor
    albedo_basis: Tensor
    iris_axis: Tensor
    iris_rad: float


def _shrink(maps: Tensor) -> Tensor:
    """Albedo maps [N, 3, H, W] at the size that synthesis uses."""
    return (
        F.interpolate(maps, size=(TEXTURE_PX, TEXTURE_PX), mode="area")
        if maps.shape[-1] > TEXTURE_PX
        else maps
    )


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel) -> HeadTables:
    data = model.data
    n = len(data.triangles)
    label = torch.full((n,), LABEL_SKIN, dtype=torch.uint8)
    gloss, eye_side = torch.zeros(n), torch.full((n,), -1, dtype=torch.int8)
    for i, part in enumerate(data.part_names):
        chosen = data.triangle_parts == i
        stem = part.split("_")[0]
        label[chosen] = _PART_LABEL.get(stem, LABEL_SKIN)
        gloss[chosen] = {"teeth": 0.7, "tongue": 0.6, "mouth": 0.3}.get(stem, 0.0)
        if stem == "eye":
            eye_side[chosen] = 0 if part.endswith("left") else 1
    rows = (data.uv[data.uv_triangles] * 2 - 1).contiguous()
    mean, basis = _shrink(data.albedo_mean[None])[0], _shrink(data.albedo_basis)
    axis, radius = _iris(model)
    teeth, deeper = _teeth(model, mean), _deeper(model)
    return HeadTables(
        label, gloss, rows, *teeth, deeper, eye_side, mean, basis.flatten(1).contiguous(), axis, radius
    )


def _deeper(model: MorphableModel) -> Tensor:
    """[V] metres; nothing for vertices that the skin shares."""
    data = model.data
    out = torch.zeros(data.n_vertices)
    for i, part in enumerate(data.part_names):
        out[data.triangles[data.triangle_parts == i].unique()] = _DEEPER_M.get(part.split("_")[0], 0.0)
    out[data.triangles[data.triangle_parts == data.part_names.index("skin")].unique()] = 0.0
    return out


def set_back_m(model: MorphableModel, expression: Tensor) -> Tensor:
    """[V] `HeadTables.deeper_m` for an expression [E]: a tongue that comes out is drawn where it is."""
    data, deeper = model.data, head_tables(model).deeper_m
    if "tongueOut" not in data.expression_names or "tongue" not in data.part_names:
        return deeper
    out = float(expression[data.expression_names.index("tongueOut")])
    tongue = data.triangles[data.triangle_parts == data.part_names.index("tongue")]
    return deeper.index_fill(0, tongue.reshape(-1), _DEEPER_M["tongue"] * max(0.0, 1.0 - 1.25 * out))


def _teeth(model: MorphableModel, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tooth triangles [T] bool, their vertices [N], bright albedo [3], and how far in front they are [N]."""
    data = model.data
    parts = [i for i, name in enumerate(data.part_names) if name.startswith("teeth")]
    chosen = torch.isin(data.triangle_parts, torch.tensor(parts, dtype=data.triangle_parts.dtype))
    verts = data.triangles[chosen].unique()
    if not bool(chosen.any()):
        return chosen, verts, torch.ones(3), torch.zeros(0)
    albedo = sample_texture(mean, data.uv[data.uv_triangles[chosen]].mean(dim=1))
    bright = albedo[albedo.sum(dim=1).argsort()[len(albedo) // 2 :]].mean(dim=0)
    depth = data.template[verts, 2]
    return chosen, verts, bright, ((depth - depth.min()) / (depth.max() - depth.min())).square()


def _light_teeth(
    received: Tensor, tables: HeadTables, pose: HeadPose, evenness: float, lights: Surroundings
) -> None:
    """Lifts the light on the teeth, [3, V] in place: parted lips let it in, and it wanders between them."""
    if pose.lips_apart <= 0 or tables.teeth.numel() == 0:
        return
    forward = pose.R_cam_head @ torch.tensor([[0.0, 0.25, 1.0]]).T
    even = 0.85 * plain_light(F.normalize(forward.T, dim=1), lights)
    share = evenness * pose.lips_apart * (0.25 + 0.75 * tables.front)
    received[:, tables.teeth] = torch.lerp(received[:, tables.teeth], even, share)


def _iris(model: MorphableModel) -> tuple[Tensor, float]:
    """Where the model's iris points say that the irises are."""
    data = model.data
    if "iris" not in data.landmark_sets:
        return torch.tensor([[0.0, 0.0, 1.0]]).repeat(2, 1), 0.385
    points = data.landmark_sets["iris"].positions(data.template, data.triangles).reshape(2, -1, 3).flip(0)
    names = data.joint_names
    centres = data.joints_template[[names.index("eye_left"), names.index("eye_right")]]
    out = F.normalize(points - centres[:, None], dim=-1)
    rim = out[:, 1:]
    axis = F.normalize(rim.mean(dim=1), dim=-1)
    return axis, float(torch.acos((rim * axis[:, None]).sum(dim=-1).clamp(-1, 1)).mean())


def head_tables(model: MorphableModel) -> HeadTables:
    """The tables of a model; made at the first call, then remembered."""
    return _tables(model.data.template, model)


def _model_albedo(model: MorphableModel, person: Person) -> Tensor:
    """[3, 256, 256] albedo; beyond 0.8 sigma of melanin skin darkens evenly: the linear basis loses blue."""
    tables, values = head_tables(model), person.albedo.clone()
    names = model.data.albedo_names
    dark = 0.0
    if "melanin" in names:
        index = names.index("melanin")
        excess = max(0.0, float(values[index]) - _LINEAR_MELANIN)
        values[index] -= 0.8 * excess
        dark = excess / 1.2
    albedo = tables.albedo_mean + (values @ tables.albedo_basis).reshape(tables.albedo_mean.shape)
    if dark > 0:
        skin_rows = round(_SKIN_UV * albedo.shape[-1])
        albedo[:, :skin_rows] *= torch.tensor(_DARKEST)[:, None, None] ** dark
    return albedo


def person_texture(model: MorphableModel, person: Person, rng: np.random.Generator) -> Tensor:
    """Albedo of one person with pores and uneven blood on top of the model's coefficients.

    Args:
        model: Face model.
        person: Whose skin.
        rng: Source of randomness.

    Returns:
        [3, 256, 256] linear.
    """
    albedo = _model_albedo(model, person)
    pores, patches = person.blotches
    side = albedo.shape[-1]
    pool, smooth = noise_pool("white"), noise_pool("cloud")
    grain = pool[int(rng.integers(8))][:side, :side] * pores
    red = smooth[int(rng.integers(8))][:side, :side] * patches
    factor = (grain + red * torch.tensor([0.3, 1.0, 1.0])[:, None, None]).exp()
    albedo = (albedo * factor).clamp(0.002, 1.0)
    paint_features(model, albedo, person.features, rng)
    return albedo


@dataclass(frozen=True)
class HeadPose:
    """A posed head in front of a camera.

    Attributes:
        verts_cam: [V, 3] metres.
        K: [3, 3] intrinsics in sub-pixels.
        R_cam_head: [3, 3].
        eyes_cam: [2, 3] centres of the eyeballs, left first.
        gaze_cam: [2, 3, 3] rotations from eyeball axes to camera axes.
        jaw_open: 0..1.
        lips_apart: 0..1, how far lips uncover the teeth.
        lids: Edges of the lids, or None.
        displacement: [S, S] metres, wrinkles and pores of this expression, or None for smooth skin.
        deeper_m: [V] from `set_back_m`, or None for a closed mouth's.
    """

    verts_cam: Tensor
    K: Tensor
    R_cam_head: Tensor
    eyes_cam: Tensor
    gaze_cam: Tensor
    jaw_open: float
    lips_apart: float
    lids: Lids | None
    displacement: Tensor | None = None
    deeper_m: Tensor | None = None


def _highlights(normals: Tensor, view: Tensor, lights: Surroundings, exponent: float) -> list[Tensor]:
    """Blinn's highlight of each lamp, [3, P] each; wide lamps make wide highlights."""
    rows = []
    for direction, colour, kappa in zip(
        lights.lobe_directions, lights.lobe_colours, lights.lobe_sharpness, strict=True
    ):
        half = unit_columns(view + torch.from_numpy(direction)[:, None])
        width = min(exponent, (4.0 + 0.1 * exponent) * float(kappa))
        cosine = (normals * half).sum(dim=0).clamp_min(0)
        lobe = cosine / (width - (width - 1) * cosine)  # cosine^width, after Schlick 1994
        rows.append(torch.from_numpy(colour)[:, None] * (lobe * ((width + 8) / (8 * math.pi * float(kappa)))))
    return rows


def _eye_colour(
    drawn: Drawn, where: Tensor, side: int, pose: HeadPose, person: Person, tables: HeadTables
) -> tuple[Tensor, Tensor]:
    """Albedo [3, Q] of eyeball fragments and the cornea's normals [3, Q]."""
    frags = [row.index_select(0, where) for row in (*drawn.centres(), drawn.z)]
    K, z = pose.K, frags[2]
    cam = torch.stack([(frags[0] - K[0, 2]) / K[0, 0] * z, (frags[1] - K[1, 2]) / K[1, 1] * z, z])
    outward = unit_columns(cam - pose.eyes_cam[side][:, None])
    local = pose.gaze_cam[side].T @ outward
    axis = tables.iris_axis[side]
    angle = torch.acos((axis[:, None] * local).sum(dim=0).clamp(-1, 1)) / tables.iris_rad
    around = torch.atan2(local[1] - axis[1], local[0] - axis[0]) / (2 * math.pi)
    fibres = sample_noise(noise_pool("curl")[side], around * 1.0 + 0.5, angle * 0.08)
    iris = torch.from_numpy(person.iris_colour)[:, None] * (1.0 + 0.28 * fibres).clamp(0.3, 2.0)
    iris = (
        iris
        * (1.15 - 0.75 * ((angle - 0.72) / 0.28).clamp(0, 1))
        * (0.75 + 0.5 * ((angle - 0.4) * 2).clamp(0, 1))
    )
    sclera = torch.from_numpy(person.features.sclera)[:, None] * torch.stack(
        [torch.ones_like(angle), *[1 - 0.10 * (angle - 1).clamp(0, 2)] * 2]
    )
    edge = ((angle - 0.94) / 0.12).clamp(0, 1)
    colour = iris * (1 - edge) + sclera * edge
    pupil = 0.33 + 0.2 * person.oiliness
    colour = colour * ((angle - pupil) / 0.06).clamp(0.04, 1)
    if pose.lids is not None:
        colour = colour * lid_shade(pose.lids, side, outward, person.features.lid_shade)
    bulge = unit_columns(outward - 0.35 * (pose.gaze_cam[side] @ axis)[:, None] * (angle < 1.05))
    return colour, bulge


def _base_colour(
    drawn: Drawn, texture: Tensor, tables: HeadTables, pose: HeadPose, person: Person
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Albedo [3, P], normals of wet eyes [3, P] (zero elsewhere) and the eye mask [P]."""
    grid = drawn.rows[-2:].T[None, None]
    albedo = F.grid_sample(texture[None], grid, padding_mode="border", align_corners=False)[0, :, 0]
    side = tables.eye_side.index_select(0, drawn.triangle)
    wet_normals = None
    for eye in (0, 1):
        where = (side == eye).nonzero().reshape(-1)
        if where.numel():
            colour, bulge = _eye_colour(drawn, where, eye, pose, person, tables)
            albedo[:, where] = colour
            if wet_normals is None:
                wet_normals = torch.zeros(3, len(side))
            wet_normals[:, where] = bulge
    return albedo, wet_normals, side >= 0


def _vertex_rows(model: MorphableModel, pose: HeadPose, person: Person, lights: Surroundings) -> Tensor:
    """[V, 6 + L] light, normals and the visible share of L lamps; with displacement 7 more for relief."""
    visibility = head_visibility(model).blend(pose.jaw_open)
    normals = vertex_normals(pose.verts_cam, model.data.triangles)
    received = received_light(normals, lights, visibility, pose.R_cam_head)
    _light_teeth(received, head_tables(model), pose, person.features.tooth_light, lights)
    lamps = [
        lamp_visibility(lights, visibility, pose.R_cam_head, i)[:, None]
        for i in range(len(lights.lobe_colours))
    ]
    rows = [received.T, normals, *lamps]
    if pose.displacement is not None:
        share = shadow_share(received, normals, light_quadratic(lights.sh_light()))
        rows += [slope_axes(model, pose.verts_cam, normals), share[:, None]]
    return torch.cat(rows, dim=1)


def draw_head(
    canvas: Canvas,
    model: MorphableModel,
    pose: HeadPose,
    person: Person,
    texture: Tensor,
    lights: Surroundings,
) -> Tensor:
    """Draws skin, eyes and mouth.

    Args:
        canvas: Empty canvas.
        model: Face model.
        pose: Where the head stands.
        person: Whose head.
        texture: [3, 256, 256] from `person_texture`.
        lights: Light in camera axes.

    Returns:
        [size * size] depth of the head alone, `FAR_M` outside.
    """
    tables = head_tables(model)
    n_lamps = len(lights.lobe_colours)
    attributes = _vertex_rows(model, pose, person, lights)
    deeper = tables.deeper_m if pose.deeper_m is None else pose.deeper_m
    behind = pose.verts_cam * (1 + deeper / pose.verts_cam[:, 2].clamp_min(0.05))[:, None]
    drawn = canvas.trace(behind, model.data.triangles, pose.K, attributes, tables.grid)
    if drawn is None:
        return canvas.depth.clone()
    light, normals, visible = (
        drawn.rows[:3],
        unit_columns(drawn.rows[3:6]),
        drawn.rows[6 : 6 + n_lamps].unbind(0),
    )
    albedo, wet_normals, is_eye = _base_colour(drawn, texture, tables, pose, person)
    if pose.displacement is not None:
        rows = drawn.rows[6 + n_lamps : 13 + n_lamps]
        quadratic = light_quadratic(lights.sh_light())
        relief = relief_at(relief_maps(pose.displacement), drawn.rows[-2:], normals, rows[:6], quadratic)
        normals, albedo = relief.normals, albedo * relief.cavity
        light = torch.maximum(light + relief.shift * rows[6], 0.25 * light)
    label = tables.label.index_select(0, drawn.triangle)
    where = tables.is_tooth.index_select(0, drawn.triangle).nonzero().reshape(-1)
    if where.numel():
        albedo[:, where] *= (torch.from_numpy(person.features.tooth) / tables.tooth_mean)[:, None]
    colour = albedo * light
    if where.numel():
        bright = colour[:, where]
        colour[:, where] = bright / (1 + (bright / 0.95) ** 3) ** (1 / 3)
    x_px, y_px = drawn.centres()
    x, y = (x_px - pose.K[0, 2]) / pose.K[0, 0], (y_px - pose.K[1, 2]) / pose.K[1, 1]
    view = unit_columns(torch.stack([-x, -y, -torch.ones_like(x)]))
    gloss = tables.gloss.index_select(0, drawn.triangle)
    facing = (normals * view).sum(dim=0).clamp(0, 1)
    strength = (0.012 + 0.05 * person.oiliness) * (1 + 3 * (1 - facing) ** 4) + 0.12 * gloss
    for seen, shine in zip(
        visible, _highlights(normals, view, lights, 10 + 22 * person.oiliness), strict=True
    ):
        colour = colour + shine * (strength * seen)
    if wet_normals is not None:
        where = is_eye.nonzero().reshape(-1)
        for seen, shine in zip(
            visible, _highlights(wet_normals[:, where], view[:, where], lights, 350.0), strict=True
        ):
            colour[:, where] += 0.05 * shine * seen[where]
    canvas.put(drawn, colour, label)
    return canvas.depth.clone()
