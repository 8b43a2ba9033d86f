# SPDX-License-Identifier: Apache-2.0
"""Puts head, body, hair and accessories together into one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.render.texture import sample_texture
from hiface.synthetic.accessories import (
    COVERING,
    LABEL_ACCESSORY,
    Glasses,
    Hat,
    draw_glasses,
    draw_hat,
    sample_glasses,
    sample_hat,
)
from hiface.synthetic.beards import draw_beard
from hiface.synthetic.body import Clothes, body_vertices, draw_body, sample_clothes
from hiface.synthetic.eyes import Lids, draw_lashes, lid_vertices
from hiface.synthetic.face_masks import (
    FaceMask,
    NeckScarf,
    draw_face_mask,
    draw_neck_scarf,
    sample_face_mask,
    sample_neck_scarf,
)
from hiface.synthetic.hair import LABEL_HAIR, Stand, draw_hair
from hiface.synthetic.head import DrawnHead, HeadPose, draw_head, set_back_m
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.occluders import draw_occluder
from hiface.synthetic.people import Person
from hiface.synthetic.points import Points, points_of
from hiface.synthetic.posing import rest_of, rotation, rotation_array
from hiface.synthetic.scene import Canvas
from hiface.synthetic.shells import CENTRE_M, skull_table
from hiface.types import Camera, FaceParams

_NECK_PIVOT = (0.0, -0.115, -0.09)


@dataclass(frozen=True)
class Picture:
    """One posed person in front of a camera.

    Attributes:
        params: Exact coefficients.
        vertices: [V, 3] posed, object space.
        T_cam_head: [4, 4].
        body_turn: [3] rotation vector of the shoulders against the head.
        lights: Light in camera axes.
        jaw_open: 0..1.
        lips_apart: 0..1, how far lips uncover the teeth.
        displacement: [S, S] metres, wrinkles and pores of this expression, or None for smooth skin.
    """

    params: FaceParams
    vertices: Tensor
    T_cam_head: Tensor
    body_turn: np.ndarray
    lights: Surroundings
    jaw_open: float
    lips_apart: float
    displacement: Tensor | None = None


@dataclass(frozen=True)
class Wardrobe:
    """What is worn and held in one picture.

    Attributes:
        clothes: Clothes.
        glasses: Glasses or None.
        hat: Hat or None.
        occluder: Whether something is held in front of the face.
        mask: Mask over nose and mouth, or None.
        scarf: Scarf around the neck, or None.
    """

    clothes: Clothes
    glasses: Glasses | None
    hat: Hat | None
    occluder: bool
    mask: FaceMask | None = None
    scarf: NeckScarf | None = None


def sample_wardrobe(rng: np.random.Generator) -> Wardrobe:
    """Draws clothes and accessories of one picture."""
    clothes = sample_clothes(rng)
    glasses = sample_glasses(rng) if rng.random() < 0.17 else None
    hat = sample_hat(rng) if rng.random() < 0.15 else None
    if hat is not None and hat.kind in COVERING:
        colours = np.stack([hat.colour, hat.colour])
        clothes = replace(clothes, colours=colours, pattern="plain", neckline=(-0.08, 0.0), collar=0.035)
    occluder = bool(rng.random() < 0.12)
    mask = sample_face_mask(rng) if rng.random() < 0.03 else None
    scarf = sample_neck_scarf(rng) if rng.random() < 0.04 else None
    if hat is not None and hat.kind == "scarf":  # wound around the neck, up to the chin
        around = sample_neck_scarf(rng)
        top_m = float(rng.uniform(-0.128, -0.106))
        scarf = replace(around, colour=hat.colour, stripes=0.0, top_m=top_m, width=0.93)
    return Wardrobe(clothes, glasses, hat, occluder, mask, scarf)


@dataclass(frozen=True)
class Composed:
    """A drawn person.

    Attributes:
        verts_cam: [V, 3] metres.
        colour: [3, S, S] premultiplied linear.
        alpha: [S, S] 0..1.
        label: [S, S] uint8.
        depth: [S * n, S * n] camera z of the sub-pixels, whole person.
        head_depth: [S * n, S * n] of the head alone.
        skin: [3] linear colour of skin.
        light: [9, 3] spherical-harmonics light in camera axes.
        occluder: Whether to draw something in front.
        subpixels: Sub-pixels n per pixel along one side.
        head: What drawing the head left behind.
        points: Points of the face in camera space.
        camera: Camera of the picture.
    """

    verts_cam: Tensor
    colour: Tensor
    alpha: Tensor
    label: Tensor
    depth: Tensor
    head_depth: Tensor
    skin: Tensor
    light: Tensor
    occluder: bool
    subpixels: int
    head: DrawnHead
    points: Points
    camera: Camera

    @cached_property
    def face_box(self) -> tuple[float, float, float, float]:
        """X0, y0, x1, y1 around the face in pixels."""
        points = self.camera.cam_to_px(self.points.ibug68).numpy()
        low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return (low[0], low[1], high[0], high[1])

    def over(self, background: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Puts the person over a background [3, S, S] and an occluder over the person.

        Returns:
            Linear colour [3, S, S], coverage [S, S], label [S, S] uint8.
        """
        colour = torch.addcmul(self.colour, 1 - self.alpha, background)
        own = np.random.default_rng(int(rng.integers(2**62)))
        if not self.occluder:
            return colour, self.alpha, self.label
        thing, opacity = draw_occluder(own, self.alpha.shape[-1], self.face_box, self.skin, self.light)
        label = torch.where(opacity > 0.5, LABEL_ACCESSORY, self.label).to(torch.uint8)
        return torch.lerp(colour, thing, opacity[None]), torch.maximum(self.alpha, opacity), label


def _eyes_rest(model: MorphableModel, picture: Picture) -> Tensor:
    """[2, 3] centres of the eyeballs in head axes, left first."""
    names = model.data.joint_names
    joints = rest_of(model, picture.params.identity).joints
    return joints[[names.index("eye_left"), names.index("eye_right")]]


def _eye_frames(model: MorphableModel, picture: Picture) -> tuple[Tensor, Tensor]:
    """Centres [2, 3] and rotations [2, 3, 3] of the eyeballs in camera space, left first."""
    names = model.data.joint_names
    pose, T = picture.params.pose.tolist(), picture.T_cam_head.numpy()
    local = np.stack([rotation_array(pose[names.index(name)]) for name in ("eye_left", "eye_right")])
    centres = _eyes_rest(model, picture).numpy() @ T[:3, :3].T + T[:3, 3]
    return torch.from_numpy(centres), torch.from_numpy(T[:3, :3] @ local)


@cached_per_tensor
def _neck(template: Tensor) -> Tensor:
    """Vertices around the neck."""
    return ((template[:, 1] < -0.105) & (template[:, 1] > -0.13)).nonzero().reshape(-1)


def _body(model: MorphableModel, picture: Picture, clothes: Clothes) -> tuple[Tensor, Tensor, Tensor]:
    """Body vertices in rest object space and in camera space, and the direction down, camera axes."""
    template = model.data.template
    ring = _neck(template)
    now, rest = picture.vertices[ring].numpy(), template[ring].numpy()
    scale = float((np.abs(now[:, 0]).max() / np.abs(rest[:, 0]).max()).clip(0.8, 1.4))
    shift = now.mean(axis=0) - rest.mean(axis=0)
    verts = body_vertices(clothes, scale)
    pivot, R = np.array(_NECK_PIVOT, dtype=np.float32), rotation(picture.body_turn).numpy()
    placed = (verts.numpy() - pivot) @ R.T + (pivot + shift)
    down = picture.params.camera.R @ torch.from_numpy(-R[:, 1])
    return verts, picture.params.camera.to_cam(torch.from_numpy(placed)), down


@cached_per_tensor
def _cheek_uv(template: Tensor, model: MorphableModel) -> Tensor:
    """[N, 2] texture coordinates on the cheeks."""
    data = model.data
    centre = template[data.triangles].mean(dim=1)
    on_cheek = (
        (centre[:, 0].abs() > 0.03) & (centre[:, 1] < -0.02) & (centre[:, 1] > -0.05) & (centre[:, 2] > -0.02)
    )
    on_cheek &= data.triangle_parts == data.part_names.index("skin")
    return data.uv[data.uv_triangles[on_cheek]].mean(dim=1)


def _lids(model: MorphableModel, picture: Picture, verts_cam: Tensor, eyes_cam: Tensor) -> Lids | None:
    ids = lid_vertices(model)
    R = picture.T_cam_head[:3, :3]
    return None if ids is None else Lids(verts_cam[ids], eyes_cam, R[:, 1], R[:, 0])


@cached_per_tensor
def _temples(template: Tensor) -> Tensor:
    """Vertices at the height of the eyes just in front of the ears."""
    high = (template[:, 1].abs() < 0.012) & (template[:, 2] < -0.03) & (template[:, 2] > -0.06)
    return high.nonzero().reshape(-1)


def temple_vertices(model: MorphableModel) -> Tensor:
    """Vertices at the height of the eyes just in front of the ears."""
    return _temples(model.data.template)


def skin_colour_of(model: MorphableModel, texture: Tensor) -> Tensor:
    """[3] linear colour of the cheeks of a texture [3, h, w]; remembered as long as the texture lives."""
    return _cheek_colour(texture, model)


@cached_per_tensor
def _cheek_colour(texture: Tensor, model: MorphableModel) -> Tensor:
    return sample_texture(texture, _cheek_uv(model.data.template, model)).mean(dim=0)


def _has_anything_around(person: Person, wardrobe: Wardrobe) -> bool:
    worn = (wardrobe.glasses, wardrobe.hat, wardrobe.mask, wardrobe.scarf)
    bearded = person.beard.kind != "none" and person.beard.length > 0
    return bearded or person.hair.kind != "bald" or any(thing is not None for thing in worn)


def _draw_around(
    canvas: Canvas, model: MorphableModel, person: Person, wardrobe: Wardrobe, verts_cam: Tensor, stand: Stand
) -> None:
    """Beard, hair, scarf, mask and hat, in this order, and their shade on what lies next to them."""
    if wardrobe.mask is None:
        draw_beard(canvas, person.beard, model, verts_cam, stand)
    if not (wardrobe.hat is not None and wardrobe.hat.kind in COVERING):
        draw_hair(canvas, person.hair, stand, None if wardrobe.hat is None else wardrobe.hat.front + 0.25)
    if wardrobe.scarf is not None:
        draw_neck_scarf(canvas, wardrobe.scarf, stand)
    if wardrobe.mask is not None:
        draw_face_mask(canvas, wardrobe.mask, model, verts_cam, stand)
    if wardrobe.hat is not None:
        draw_hat(canvas, wardrobe.hat, stand)
    reach = round(0.012 * float(stand.K[0, 0]) / float(stand.centre_cam[2])) + 4
    label = canvas.label.numpy()
    canvas.contact_shadow(torch.from_numpy((label == LABEL_HAIR) | (label == LABEL_ACCESSORY)), 0.6, reach)


def _put_on_glasses(
    canvas: Canvas, model: MorphableModel, picture: Picture, glasses: Glasses, stand: Stand
) -> None:
    T_rest = torch.linalg.solve(picture.params.camera.T_cam_object, picture.T_cam_head)
    rest = (picture.vertices - T_rest[:3, 3]) @ T_rest[:3, :3]
    half_width = float(rest[temple_vertices(model), 0].abs().max())
    draw_glasses(canvas, glasses, _eyes_rest(model, picture), half_width, stand, picture.T_cam_head)


def compose(
    model: MorphableModel,
    person: Person,
    texture: Tensor,
    picture: Picture,
    wardrobe: Wardrobe,
    size: int,
    subpixels: int = 2,
) -> Composed:
    """Draws a person.

    Args:
        model: Face model.
        person: Who.
        texture: [3, h, w] albedo of the person.
        picture: Pose, camera, light.
        wardrobe: Clothes and accessories.
        size: Side in pixels.
        subpixels: Sub-pixels per pixel along one side; 1 for pictures that are blurred anyway.

    Returns:
        Composed at `size` pixels.
    """
    canvas = Canvas(size * subpixels)
    camera = picture.params.camera
    K = camera.K * torch.tensor([[float(subpixels)], [float(subpixels)], [1.0]])
    verts_cam = camera.to_cam(picture.vertices)
    eyes, gaze = _eye_frames(model, picture)
    lids = _lids(model, picture, verts_cam, eyes)
    opened, R = (picture.jaw_open, picture.lips_apart), picture.T_cam_head[:3, :3]
    deeper = set_back_m(model, picture.params.expression)
    pose = HeadPose(verts_cam, K, R, eyes, gaze, *opened, lids, picture.displacement, deeper)
    head = draw_head(canvas, model, pose, person, texture, picture.lights)
    skin_albedo = skin_colour_of(model, texture)
    verts_body, body_cam, down = _body(model, picture, wardrobe.clothes)
    draw_body(canvas, wardrobe.clothes, verts_body, body_cam, K, (skin_albedo, picture.lights))
    stand: Stand | None = None
    if _has_anything_around(person, wardrobe):
        centre = torch.tensor(CENTRE_M) @ R.T + picture.T_cam_head[:3, 3]
        stand = Stand(skull_table(model).points(verts_cam), centre, down, K, picture.lights, R)
        _draw_around(canvas, model, person, wardrobe, verts_cam, stand)
    if lids is not None:
        draw_lashes(canvas, lids, person.features.lashes, K, picture.lights)
    if stand is not None and wardrobe.glasses is not None:
        _put_on_glasses(canvas, model, picture, wardrobe.glasses, stand)
    square = (size * subpixels, size * subpixels)
    return Composed(
        verts_cam,
        *canvas.resolve(subpixels),
        canvas.depth.reshape(square),
        head.depth.reshape(square),
        skin_albedo,
        picture.params.light,
        wardrobe.occluder,
        subpixels,
        head,
        points_of(model, verts_cam),
        camera,
    )
