# SPDX-License-Identifier: Apache-2.0
"""All losses of the HiFace network together: weights with their reasons, and what the face model adds."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.detail.basis import DetailBasis, load_detail_basis
from hiface.detail.sd_detail import expression_masks
from hiface.losses.detail_loss import composed_error, dynamic_error, state_error
from hiface.losses.distillation_loss import distillation
from hiface.losses.landmark_points import rotation_distance
from hiface.losses.regularisation_loss import coefficient_prior, grey_light
from hiface.losses.self_loss import Embed, draw_self, identity_loss, landmark_agreement, photometric
from hiface.losses.shape_loss import ShapeMetric, projected_distance, quadratic
from hiface.morphable import MorphableModel
from hiface.networks.hiface import Hiface, HifaceConfig, HifaceOutput
from hiface.networks.hiface_params import check_model, head_anchor, place_to_translation
from hiface.networks.poses import crop_rotation, rotation_from_6d
from hiface.training.hiface_batches import HifaceBatch
from hiface.training.loop import Network

_JAW = 17  # the first landmarks follow the outline and are no fixed points of the mesh


@dataclass(frozen=True)
class HifaceWeights:
    """Weights of the losses, chosen so that none of them rules after the first thousand steps.

    Attributes:
        neutral: Of the squared distance at rest after alignment, per mm^2: who it is, free of all else.
        expressive: Of the squared distance with expression, not aligned, per mm^2: identity and expression
            may not trade, and the head keeps its origin. Most of it is size, which a picture hardly shows.
        landmarks: Of the projected landmarks' distance, per half crop side: what the picture shows best.
        points: Of the corrected landmarks' distance, the same unit: what the shape is read from.
        motion: Of the squared distance that expressions alone make, per mm^2: open mouths and raised brows.
        expression: Of the mean absolute error of the coefficients: small shapes (gaze, lids) move few
            vertices but are seen.
        rotation: Of the squared distance of rotations.
        place: Of the mean absolute error of place and log size.
        albedo: Of the squared error of the albedo map over that of the mean albedo.
        light: Of the squared error of the light over its mean square.
        static: Of the squared error of the map at rest over that of the mean map.
        dynamic: The same for what compression and stretching add.
        composed: Of the composed map's mean absolute error, per micrometre: masks and codes together.
        prior: Of the codes' mean squares: breaks ties only, the truths themselves have that spread.
    """

    neutral: float = 0.5
    expressive: float = 0.02
    motion: float = 1.0
    landmarks: float = 25.0
    points: float = 50.0
    expression: float = 10.0
    rotation: float = 2.0
    place: float = 5.0
    albedo: float = 0.5
    light: float = 0.3
    static: float = 2.0
    dynamic: float = 2.0
    composed: float = 0.02
    prior: float = 1e-3


@dataclass(frozen=True)
class PhotoWeights:
    """Weights of the losses on photos.

    Attributes:
        of: Faces of photos in a step, beside the synthetic crops.
        render_px: Side of the renderings that are compared with the photos: half the crop shows all that a
            wrinkle's shading does to a photo, at a quarter of the price.
        photometric: Of the mean robust colour difference on the skin (DECA's 2.0, for our bounded penalty).
        landmarks: Of the distance to the landmark network's points, as for synthetic crops.
        identity: Of 1 - cosine of the recogniser (DECA's 0.2).
        teacher_shape: Of the squared vertex distance to the teacher's shape, per mm^2.
        teacher_detail: Of the squared errors of the maps to the teacher's.
        teacher_rest: Of the distance to the teacher's expression and pose.
        grey_light: Of the light's deviation from grey (DECA's light term).
    """

    of: int = 8
    render_px: int = 96
    photometric: float = 4.0
    landmarks: float = 25.0
    identity: float = 0.2
    teacher_shape: float = 0.1
    teacher_detail: float = 1.0
    teacher_rest: float = 5.0
    grey_light: float = 0.1


@dataclass(frozen=True)
class FaceSide:
    """What the loss needs of the face model, made once.

    Attributes:
        model: Face model.
        metric: Vertex distances.
        basis: Detail basis with the network's numbers of codes.
        anchor: [3] point of the head that places speak of.
        points_mean: [L, 3] landmarks of the mean face, metres.
        points_basis: [K + E, L, 3] how coefficients move them.
        albedo_form: [A, A] mean squared difference of albedo maps as a quadratic form, relative to its trace.
    """

    model: MorphableModel
    metric: ShapeMetric
    basis: DetailBasis
    anchor: Tensor
    points_mean: Tensor
    points_basis: Tensor
    albedo_form: Tensor

    def landmarks(self, identity: Tensor, expression: Tensor) -> Tensor:
        """[B, L, 3] 68 and dense points in the head's space, metres."""
        codes = torch.cat([identity, expression], dim=1)
        return self.points_mean + (codes @ self.points_basis.flatten(1)).unflatten(1, (-1, 3))

    def to(self, device: torch.device) -> FaceSide:
        """Copy on another device."""
        if self.anchor.device == device:
            return self
        moved = {
            name: getattr(self, name).to(device)
            for name in ("basis", "anchor", "points_mean", "points_basis", "albedo_form")
        }
        model, metric = (copy.deepcopy(m).to(device) for m in (self.model, self.metric))
        return replace(self, model=model, metric=metric, **moved)


def face_side(model: MorphableModel, config: HifaceConfig) -> FaceSide:
    """Prepares a face model for a network.

    Raises:
        AssetError: The network's numbers of coefficients are not those of the model or its detail basis.
    """
    basis = load_detail_basis(model.name)
    check_model(config, model, basis)
    moved = torch.cat([model.identity_basis, model.expression_basis])
    sets = [model.landmark_set(name) for name in ("ibug68", "dense")]

    def points(vertices: Tensor) -> Tensor:
        return torch.cat([s.positions(vertices, model.triangles) for s in sets], dim=-2)

    albedo = model.albedo_basis.flatten(1)
    form = albedo @ albedo.T
    return FaceSide(
        model,
        ShapeMetric(model),
        basis.first(config.n_static, config.n_compressed, config.n_stretched),
        head_anchor(model),
        points(model.template),
        points(moved),
        form / form.trace(),
    )


def split_codes(codes: Tensor, basis: DetailBasis) -> tuple[Tensor, Tensor]:
    """Static [B, S] and dynamic [B, C + T] codes of a basis's first coefficients from all codes [B, n]."""
    parts = codes.split(load_detail_basis(basis.model).counts, dim=1)
    kept = [part[:, :count] for part, count in zip(parts, basis.counts, strict=True)]
    return kept[0], torch.cat(kept[1:], dim=1)


def true_output(batch: HifaceBatch, basis: DetailBasis) -> HifaceOutput:
    """What a perfect network would say of a batch."""
    static, dynamic = split_codes(batch.codes, basis)
    rotation6d = torch.cat([batch.rotation[:, :, 0], batch.rotation[:, :, 1]], dim=1)
    light = batch.light.flatten(1)
    return HifaceOutput(
        batch.identity,
        batch.expression,
        rotation6d,
        batch.place,
        batch.albedo,
        light,
        static,
        dynamic,
        batch.points,
    )


def supervised_losses(
    side: FaceSide, out: HifaceOutput, batch: HifaceBatch, composed_of: int
) -> dict[str, Tensor]:
    """All terms that compare with the truth, unweighted, averaged over the batch.

    Args:
        side: Of the face model.
        out: Predictions.
        batch: Truths.
        composed_of: Crops whose composed displacement is compared.

    Returns:
        Scalars by the names of `HifaceWeights`.
    """
    metric = side.metric
    R = rotation_from_6d(out.rotation6d)
    turn = crop_rotation(batch.frame, batch.K)
    t = place_to_translation(out.place, turn @ R, side.anchor, batch.frame, batch.K)
    points_cam = side.landmarks(out.identity, out.expression) @ (turn @ R).transpose(1, 2) + t[:, None]
    px = points_cam[..., :2] / points_cam[..., 2:].clamp_min(0.05)
    px = px * batch.K[:, :1, :1] + batch.K[:, None, :2, 2]
    n = px.shape[1]
    weights = batch.weights[:, :n].clone()
    weights[:, :_JAW] = 0
    light = out.light.unflatten(-1, (9, 3))
    brightness = batch.light.square().sum(dim=(1, 2)).clamp_min(0.1)
    terms = {
        "neutral": metric.neutral(out.identity, batch.identity),
        "expressive": metric.expressive(out.identity, out.expression, batch.identity, batch.expression),
        "motion": metric.motion(out.expression, batch.expression),
        "expression": (out.expression - batch.expression).abs().mean(dim=1),
        "rotation": rotation_distance(R, batch.rotation),
        "place": (out.place - batch.place).abs().mean(dim=1),
        "albedo": quadratic(out.albedo - batch.albedo, side.albedo_form),
        "light": (light - batch.light).square().sum(dim=(1, 2)) / brightness,
        "prior": coefficient_prior(out.identity),
    }
    means = {name: value.mean() for name, value in terms.items()}
    means["landmarks"] = projected_distance(batch.frame.to_crop(px), batch.points[:, :n], weights)
    if out.landmarks.shape[1]:
        means["points"] = projected_distance(out.landmarks, batch.points, batch.weights)
    detail = _detail_losses(side, out, batch, composed_of)
    means["prior"] = means["prior"] + detail.pop("prior")
    return means | detail


def _detail_losses(
    side: FaceSide, out: HifaceOutput, batch: HifaceBatch, composed_of: int
) -> dict[str, Tensor]:
    """L_detail over the pictures whose detail codes are known; 0 if none are."""
    known = torch.isfinite(batch.codes).all(dim=1).nonzero()[:, 0]
    if len(known) == 0:
        return {name: out.static.new_zeros(()) for name in ("static", "dynamic", "composed", "prior")}
    basis = side.basis
    static, dynamic = split_codes(batch.codes[known], basis)
    few = known[:composed_of]
    with torch.no_grad():
        true_masks = expression_masks(side.model, batch.identity[few], batch.expression[few], basis)
    masks = expression_masks(side.model, out.identity[few], out.expression[few], basis)
    truth = static[:composed_of], dynamic[:composed_of], true_masks
    return {
        "static": state_error(basis.static, out.static[known], static).mean(),
        "dynamic": dynamic_error(basis, out.dynamic[known], dynamic).mean(),
        "composed": composed_error(basis, out.static[few], out.dynamic[few], masks, *truth).mean(),
        "prior": coefficient_prior(out.static[known]).mean(),
    }


def photo_losses(
    side: FaceSide,
    network: Network,
    batch: HifaceBatch,
    render_px: int,
    helpers: tuple[Hiface | None, Embed | None],
) -> dict[str, Tensor]:
    """L_self and L_kd on the photos of a batch, unweighted.

    Args:
        side: Of the face model.
        network: The network that is trained.
        batch: With photos.
        render_px: Side of the renderings.
        helpers: Teacher and recogniser, where there are any.

    Returns:
        Scalars by the names of `PhotoWeights`.
    """
    teacher, embed = helpers
    crops, points, frame = batch.photo_crops, batch.photo_points, batch.photo_frame
    out = HifaceOutput(*network(crops, points))
    drawn = draw_self(side.model, side.basis, out, frame, batch.photo_K, render_px)
    small = F.interpolate(crops, size=(render_px, render_px), mode="bilinear", antialias=True)
    px = drawn.params.camera.project(side.landmarks(out.identity, out.expression))
    seen = points[:, : px.shape[1]]
    fixed = (torch.arange(seen.shape[1], device=px.device) >= _JAW).expand(seen.shape[:2])
    terms = {
        "photometric": photometric(drawn, small),
        "landmarks": landmark_agreement(frame.to_crop(px), seen, fixed.to(px.dtype)),
        "grey_light": grey_light(drawn.params.light),
    }
    if embed is not None:
        terms["identity"] = identity_loss(drawn, small, embed)
    if teacher is not None:
        with torch.no_grad():
            goal = HifaceOutput(*teacher.to(crops.device)(crops, points))
        pull = distillation(side.metric, side.basis, out, goal)
        terms["teacher_shape"] = pull["shape"]
        terms["teacher_detail"] = pull["static"] + pull["dynamic"]
        terms["teacher_rest"] = pull["expression"] + pull["pose"]
    return {name: value.mean() for name, value in terms.items()}
