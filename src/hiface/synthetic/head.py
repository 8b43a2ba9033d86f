# SPDX-License-Identifier: Apache-2.0
"""Skin, eyes, teeth and tongue: the part of a picture that the face model draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.morphable.iris_cones import IrisCones, iris_cones
from hiface.render.texture import sample_texture
from hiface.render.visibility import head_visibility
from hiface.synthetic.eyes import Lids
from hiface.synthetic.face_paint import paint_features
from hiface.synthetic.hair_paint import paint_hair
from hiface.synthetic.irises import Eyeball, eye_surface
from hiface.synthetic.lights import Surroundings, light_vertices, plain_light, put_normals
from hiface.synthetic.noise import noise_pool
from hiface.synthetic.people import Person
from hiface.synthetic.relief import shadow_share, slope_axes
from hiface.synthetic.scene import Canvas, Drawn, Front, rows_at, seen_vertices, with_neighbours
from hiface.synthetic.skin import (
    EYE,
    TOOTH,
    Look,
    SkinMesh,
    attribute_table,
    draw_skin,
    shade_plain,
    wet_shine,
)
from hiface.synthetic.skin_marks import paint_marks

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
        mesh: Labels, gloss (0 dry, 1 wet), kind and texture coordinates.
        teeth: [N] vertices of the teeth.
        tooth_mean: [3] albedo of the bright side of the teeth.
        front: [N] 1 for front teeth to 0 for the last molars.
        deeper_m: [V] how much further away than they are parts inside the head are drawn, so that they never
            show through thin skin.
        eye_side: [T] int8: 0 left eyeball, 1 right eyeball, -1 elsewhere.
        albedo_mean: [3, 256, 256].
        albedo_basis: [A, 3 * 256 * 256].
        irises: Where the irises lie.
    """

    mesh: SkinMesh
    teeth: Tensor
    tooth_mean: Tensor
    front: Tensor
    deeper_m: Tensor
    eye_side: Tensor
    albedo_mean: Tensor
    albedo_basis: Tensor
    irises: IrisCones


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
    cones = iris_cones(model)
    assert cones is not None, "synthetic people need a model whose eyes turn"
    is_tooth, teeth, tooth_mean, foremost = _teeth(model, mean)
    kind = torch.zeros(n, dtype=torch.uint8)
    kind[is_tooth], kind[eye_side >= 0] = TOOTH, EYE
    mesh = SkinMesh(data.triangles.contiguous(), rows, label, kind, gloss)
    flat = basis.flatten(1).contiguous()
    deeper = _deeper(model)
    return HeadTables(mesh, teeth, tooth_mean, foremost, deeper, eye_side, mean, flat, cones)


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
    return deeper.index_fill(
        0, _tongue(data.template, model), _DEEPER_M["tongue"] * max(0.0, 1.0 - 1.25 * out)
    )


@cached_per_tensor
def _tongue(_: Tensor, model: MorphableModel) -> Tensor:
    """Vertices of the tongue."""
    data = model.data
    return data.triangles[data.triangle_parts == data.part_names.index("tongue")].unique()


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
) -> Tensor | None:
    """Lifts the light on the teeth, [V, 3] in place: parted lips let it in, and it wanders between them.

    Returns what they received before [N, 3], or None if nothing changed.
    """
    if pose.lips_apart <= 0 or tables.teeth.numel() == 0:
        return None
    forward = pose.R_cam_head @ torch.tensor([[0.0, 0.25, 1.0]]).T
    even = 0.85 * plain_light(F.normalize(forward.T, dim=1), lights)
    share = evenness * pose.lips_apart * (0.25 + 0.75 * tables.front)
    before = received[tables.teeth]
    received[tables.teeth] = torch.lerp(before, even.T, share[:, None])
    return before


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
    if pores or patches:
        albedo = albedo * (grain + red * torch.tensor([0.3, 1.0, 1.0])[:, None, None]).exp()
    albedo = albedo.clamp(0.002, 1.0)
    paint_features(model, albedo, person.features, rng)
    paint_marks(model, albedo, person.marks, rng)
    paint_hair(model, albedo, person.hair, person.beard)
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


def _eye_albedo(drawn: Drawn, pose: HeadPose, person: Person, tables: HeadTables) -> tuple[Tensor, Tensor]:
    """Albedo [3, Q] and the cornea's normals [3, Q] of fragments of both eyes."""
    side = tables.eye_side.numpy()[drawn.triangle.numpy()]
    colour, normals = np.zeros((2, 3, len(side)), dtype=np.float32)
    for i in (0, 1):
        (where,) = (side == i).nonzero()
        if len(where):
            eye = Eyeball(
                i, pose.eyes_cam[i], pose.gaze_cam[i], tables.irises.axes[i], tables.irises.radius_rad
            )
            colour[:, where], normals[:, where] = eye_surface(drawn, where, eye, pose.K, person, pose.lids)
    return torch.from_numpy(colour), torch.from_numpy(normals)


def _draw_eyes(
    canvas: Canvas,
    eyes: Front,
    attributes: Tensor,
    pose: HeadPose,
    person: Person,
    look: Look,
    tables: HeadTables,
) -> None:
    """Irises, pupils and reflections, onto fragments of eyes that are on the canvas already."""
    mesh = tables.mesh
    rows = rows_at(attributes, mesh.corners, mesh.triangles, eyes)
    drawn = Drawn(eyes.pixel, eyes.triangle, eyes.place[3], rows, canvas.size)
    albedo, wet_normals = _eye_albedo(drawn, pose, person, tables)
    smooth = replace(look, displacement=None)
    colour = shade_plain(drawn, smooth, mesh, albedo) + wet_shine(drawn, look, wet_normals)
    canvas.put(drawn, colour, mesh.label.index_select(0, eyes.triangle))


@dataclass(frozen=True)
class DrawnHead:
    """What drawing a head leaves behind.

    Attributes:
        depth: [size * size] depth of the head alone, `FAR_M` outside.
        rows: [V, C] light and normals of the vertices in the first six columns, or None if nothing was seen.
        lit: [V] bool, whose light is that which falls on the head.
    """

    depth: Tensor
    rows: Tensor | None
    lit: Tensor


def _vertex_rows(
    model: MorphableModel, pose: HeadPose, person: Person, look: Look, seen: Tensor
) -> tuple[Tensor, Tensor | None]:
    """[V, C] light, normals, the visible share of each lamp, with displacement 7 more columns for relief.

    Light is worked out for the vertices [V] bool that are seen. With it, the light on the teeth [N, 3] before
    it was lifted, or None.
    """
    table, tables = attribute_table(len(pose.verts_cam), look), head_tables(model)
    put_normals(table, pose.verts_cam, tables.mesh.triangles)
    normals = table[:, 3:6].contiguous()
    visibility = head_visibility(model), pose.jaw_open
    light_vertices(table, look.lights, visibility, pose.R_cam_head, look.lamps, seen)
    teeth = _light_teeth(table[:, :3], tables, pose, person.features.tooth_light, look.lights)
    if pose.displacement is not None:
        first = 6 + len(look.lamps)
        table[:, first : first + 6] = slope_axes(model, pose.verts_cam, normals)
        share = shadow_share(table[:, :3].T, normals, look.quadratic)
        table[:, first + 6] = share
    return table, teeth


def draw_head(
    canvas: Canvas,
    model: MorphableModel,
    pose: HeadPose,
    person: Person,
    texture: Tensor,
    lights: Surroundings,
) -> DrawnHead:
    """Draws skin, eyes and mouth.

    Args:
        canvas: Empty canvas.
        model: Face model.
        pose: Where the head stands.
        person: Whose head.
        texture: [3, 256, 256] from `person_texture`.
        lights: Light in camera axes.

    Returns:
        DrawnHead.
    """
    tables, triangles = head_tables(model), model.data.triangles
    deeper = tables.deeper_m if pose.deeper_m is None else pose.deeper_m
    behind = pose.verts_cam * (1 + deeper / pose.verts_cam[:, 2].clamp_min(0.05))[:, None]
    front = canvas.front(behind, triangles, pose.K)
    if front is None:
        return DrawnHead(canvas.depth.clone(), None, torch.zeros(len(pose.verts_cam), dtype=torch.bool))
    tooth = torch.from_numpy(person.features.tooth) / tables.tooth_mean
    look = Look(texture, pose.displacement, lights, person.oiliness, tooth, pose.K)
    # With their neighbours, which label maps may see between the sub-pixels.
    seen = seen_vertices(front.triangle, tables.mesh.triangles, len(pose.verts_cam))
    seen = with_neighbours(seen, tables.mesh.triangles)
    attributes, teeth = _vertex_rows(model, pose, person, look, seen)
    eyes = draw_skin(canvas, front, attributes, tables.mesh, look)
    if eyes is not None:
        _draw_eyes(canvas, eyes, attributes, pose, person, look, tables)
    if teeth is not None:
        attributes[tables.teeth, :3] = teeth
    return DrawnHead(canvas.depth.clone(), attributes, seen)
