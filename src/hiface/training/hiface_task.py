# SPDX-License-Identifier: Apache-2.0
"""Trains the HiFace network: L_shp + L_detail + L_reg on synthetic pictures, L_self + L_kd on photos.

Synthetic pictures have exact truths. A folder of photos without labels, if the user has one, adds what only
real pictures can teach: the reconstruction must look like its picture (L_self), and stay near the answers of
a teacher that was trained on synthetic pictures alone (L_kd), for photos carry no label of detail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hiface.detail.basis import DetailBasis, load_detail_basis
from hiface.detail.sd_detail import expression_masks
from hiface.errors import AssetError
from hiface.losses.detail_loss import composed_error, state_error
from hiface.losses.distillation_loss import distillation
from hiface.losses.landmark_points import rotation_distance
from hiface.losses.regularisation_loss import coefficient_prior, grey_light
from hiface.losses.self_loss import Embed, draw_self, identity_loss, landmark_agreement, photometric
from hiface.losses.shape_loss import ShapeMetric, projected_distance, quadratic
from hiface.morphable import MorphableModel, load_model
from hiface.networks.backbones import SmallTrunk
from hiface.networks.hiface import PRESETS, Hiface, HifaceConfig, HifaceOutput, build_hiface
from hiface.networks.hiface_params import crop_rotation, head_anchor, place_to_translation
from hiface.networks.poses import rotation_from_6d
from hiface.networks.weights import load_hiface, load_landmarker
from hiface.training.augment import BackgroundBank
from hiface.training.hiface_batches import (
    HIFACE_JITTER,
    LABELS,
    STILL,
    HifaceBatch,
    frame_of_rows,
    make_hiface_batch,
)
from hiface.training.landmark_batches import CropJitter
from hiface.training.loop import Network
from hiface.training.photo_crops import PhotoCrops
from hiface.training.shards import ShardSet

_SHEET = 8
_JAW = 17  # the first landmarks follow the outline and are no fixed points of the mesh


@dataclass(frozen=True)
class HifaceWeights:
    """Weights of the losses, chosen so that none of them rules after the first thousand steps.

    Attributes:
        neutral: Of the squared distance at rest after alignment, per mm^2: who it is, free of all else.
        expressive: Of the squared distance with expression, not aligned, per mm^2: identity and expression
            may not trade, and the head keeps its origin. Most of it is size, which a picture hardly shows.
        landmarks: Of the projected landmarks' distance, per half crop side: what the picture shows best.
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
    landmarks: float = 25.0
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
class HifaceRecipe:
    """Data and loss of the HiFace network.

    Attributes:
        batch_size: Crops a step.
        network: Sizes.
        jitter: How far crops may be off.
        weights: Of the losses.
        photo_weights: Of the losses on photos, if there are any.
        composed_of: Crops of a step whose composed map is compared; it costs as much as half a crop.
        more_turned: How much oftener heads in profile are drawn than there are (`ShardSet`).
        backgrounds: Number of procedural backgrounds.
        refresh_every: Steps between looks for new shards.
        held: Pictures of held persons that are validated on.
        seed: Of weights and batches.
    """

    batch_size: int = 32
    network: HifaceConfig = field(default_factory=lambda: PRESETS["small"])
    jitter: CropJitter = HIFACE_JITTER
    weights: HifaceWeights = field(default_factory=HifaceWeights)
    photo_weights: PhotoWeights = field(default_factory=PhotoWeights)
    composed_of: int = 8
    more_turned: float = 0.0
    backgrounds: int = 256
    refresh_every: int = 500
    held: int = 256
    seed: int = 0


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
        return replace(self, model=self.model.to(device), metric=self.metric.to(device), **moved)


def face_side(model: MorphableModel, config: HifaceConfig) -> FaceSide:
    """Prepares a face model for a network.

    Raises:
        AssetError: The network's numbers of coefficients are not those of the model or its detail basis.
    """
    data = model.data
    basis = load_detail_basis(data.name)
    has = (data.n_identity, len(data.expression_names), len(data.albedo_names), *basis.counts)
    wants = (
        config.n_identity,
        config.n_expression,
        config.n_albedo,
        config.n_static,
        config.n_compressed,
        config.n_stretched,
    )
    if has[:3] != wants[:3] or any(a < b for a, b in zip(has[3:], wants[3:], strict=True)):
        raise AssetError(
            f"the network is for {wants} coefficients (identity, expression, albedo, static, compressed, "
            f"stretched), the face model {data.name!r} has {has}; train with a preset made for this model"
        )
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


def split_codes(codes: Tensor, basis: DetailBasis, stored: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Static [B, S] and dynamic [B, C + T] codes of a basis's first coefficients from stored codes [B, n]."""
    parts = codes.split(stored, dim=1)
    kept = [part[:, :count] for part, count in zip(parts, basis.counts, strict=True)]
    return kept[0], torch.cat(kept[1:], dim=1)


def true_output(batch: HifaceBatch, basis: DetailBasis) -> HifaceOutput:
    """What a perfect network would say of a batch."""
    static, dynamic = split_codes(batch.codes, basis, load_detail_basis(basis.model).counts)
    rotation6d = torch.cat([batch.rotation[:, :, 0], batch.rotation[:, :, 1]], dim=1)
    light = batch.light.flatten(1)
    return HifaceOutput(
        batch.identity, batch.expression, rotation6d, batch.place, batch.albedo, light, static, dynamic
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
    metric, basis = side.metric, side.basis
    static, dynamic = split_codes(batch.codes, basis, load_detail_basis(side.model.name).counts)
    R = rotation_from_6d(out.rotation6d)
    turn = crop_rotation(batch.frame, batch.K)
    t = place_to_translation(out.place, turn @ R, side.anchor, batch.frame, batch.K)
    points_cam = side.landmarks(out.identity, out.expression) @ (turn @ R).transpose(1, 2) + t[:, None]
    px = points_cam[..., :2] / points_cam[..., 2:].clamp_min(0.05)
    px = px * batch.K[:, :1, :1] + batch.K[:, None, :2, 2]
    weights = batch.weights.clone()
    weights[:, :_JAW] = 0
    n, few = basis.compressed.count, slice(0, composed_of)
    moving = [
        state_error(part, out.dynamic[:, cut], dynamic[:, cut])
        for part, cut in ((basis.compressed, slice(0, n)), (basis.stretched, slice(n, None)))
    ]
    with torch.no_grad():
        true_masks = expression_masks(side.model, batch.identity[few], batch.expression[few], basis)
    masks = expression_masks(side.model, out.identity[few], out.expression[few], basis)
    composed = composed_error(
        basis, out.static[few], out.dynamic[few], masks, static[few], dynamic[few], true_masks
    )
    light = out.light.unflatten(-1, (9, 3))
    brightness = batch.light.square().sum(dim=(1, 2)).clamp_min(0.1)
    terms = {
        "neutral": metric.neutral(out.identity, batch.identity),
        "expressive": metric.expressive(out.identity, out.expression, batch.identity, batch.expression),
        "expression": (out.expression - batch.expression).abs().mean(dim=1),
        "rotation": rotation_distance(R, batch.rotation),
        "place": (out.place - batch.place).abs().mean(dim=1),
        "albedo": quadratic(out.albedo - batch.albedo, side.albedo_form),
        "light": (light - batch.light).square().sum(dim=(1, 2)) / brightness,
        "static": state_error(basis.static, out.static, static),
        "dynamic": 0.5 * (moving[0] + moving[1]),
        "composed": composed,
        "prior": coefficient_prior(out.identity) + coefficient_prior(out.static),
    }
    means = {name: value.mean() for name, value in terms.items()}
    means["landmarks"] = projected_distance(batch.frame.to_crop(px), batch.points, weights)
    return means


class HifaceTask:
    """Batches, loss and validation of the HiFace network.

    Args:
        recipe: Data and loss.
        folders: Folders of synthetic shards with detail codes (`hiface synth --labels codes`).
        photos: Folder of photos without labels, or None.
        teacher: Weights that label the photos; without, photos teach by L_self alone.
        embed: Recogniser for the identity loss, [B, 3, S, S] sRGB to unit vectors; without, that term is 0.

    Raises:
        AssetError: The data lack a label, no photo shows a face, or the sizes do not fit the face model.
    """

    def __init__(
        self,
        recipe: HifaceRecipe,
        folders: tuple[Path, ...],
        photos: Path | None = None,
        teacher: Path | None = None,
        embed: Embed | None = None,
    ) -> None:
        self.recipe, self.embed = recipe, embed
        self.photos = None if photos is None else PhotoCrops(photos, round(1.4 * recipe.network.crop_px))
        self.teacher = None if teacher is None else load_hiface(teacher)
        if self.teacher is not None and self.teacher.config != recipe.network:
            raise AssetError(
                f"{teacher} holds a network of another preset; teach with weights of the preset to be trained"
            )
        self.side = face_side(load_model("open"), recipe.network)
        self.anchor = self.side.anchor
        self.data = ShardSet(folders, more_turned=recipe.more_turned, more=LABELS)
        self.held = ShardSet(folders, validation=True, more=LABELS)
        self.landmarker = load_landmarker()
        torch.manual_seed(recipe.seed)
        self.network: torch.nn.Module = build_hiface(recipe.network)
        self.backgrounds = BackgroundBank(recipe.backgrounds, recipe.network.crop_px, recipe.seed)
        self._start()
        self._held_batches: list[HifaceBatch] = []

    def _start(self) -> None:
        """The trunk from the landmark network, the heads at the mean of the data."""
        network = self.network
        assert isinstance(network, Hiface)
        if isinstance(network.trunk, SmallTrunk):
            network.trunk.start_from_landmarker(self.landmarker.state_dict())
        first = np.arange(min(len(self.data), 512))
        gen = torch.Generator().manual_seed(self.recipe.seed)
        batch = make_hiface_batch(
            gen, self.data.take(first, segmentation=False), **self._batch_settings(STILL)
        )
        with torch.no_grad():
            if network.points is not None:
                network.layout.copy_(batch.seen_points[..., :2].mean(dim=0))
            network.start_heads(batch.place.mean(dim=0), batch.light.mean(dim=0).flatten())

    def _batch_settings(self, jitter: CropJitter) -> dict[str, Any]:
        return {
            "config": self.recipe.network,
            "jitter": jitter,
            "landmarker": self.landmarker,
            "anchor": self.anchor,
        }

    def batch(self, step: int) -> HifaceBatch:
        """Batch number `step`."""
        if step % self.recipe.refresh_every == 0:
            self.data.refresh()
        rng = np.random.default_rng((self.recipe.seed, step, 3))
        gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
        samples = self.data.draw(rng, self.recipe.batch_size, segmentation=False)
        settings = self._batch_settings(self.recipe.jitter)
        batch = make_hiface_batch(gen, samples, backgrounds=self.backgrounds, **settings)
        if self.photos is None:
            return batch
        seen = self.photos.batch(rng, self.recipe.photo_weights.of, self.recipe.network, self.landmarker)
        return replace(
            batch,
            photo_crops=seen.crops,
            photo_points=seen.seen_points,
            photo_K=seen.K,
            photo_frames=seen.frames,
        )

    def loss(self, network: Network, batch: HifaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of all terms; every term is logged."""
        self.side = self.side.to(batch.crops.device)
        out = HifaceOutput(*network(batch.crops, batch.seen_points))
        terms = supervised_losses(self.side, out, batch, self.recipe.composed_of)
        weights = self.recipe.weights
        total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
        if len(batch.photo_crops):
            photo_terms = self._photo_losses(network, batch)
            weights = self.recipe.photo_weights
            total = total + torch.stack([getattr(weights, k) * v for k, v in photo_terms.items()]).sum()
            terms |= {f"photo_{name}": value for name, value in photo_terms.items()}
        return total, {name: value.detach() for name, value in terms.items()}

    def _photo_losses(self, network: Network, batch: HifaceBatch) -> dict[str, Tensor]:
        """L_self and L_kd, by the names of `PhotoWeights`."""
        side, size = self.side, self.recipe.photo_weights.render_px
        crops, points, frame = batch.photo_crops, batch.photo_points, frame_of_rows(batch.photo_frames)
        out = HifaceOutput(*network(crops, points))
        drawn = draw_self(side.model, side.basis, out, frame, batch.photo_K, size)
        small = F.interpolate(crops, size=(size, size), mode="bilinear", antialias=True)
        px = drawn.params.camera.project(side.landmarks(out.identity, out.expression))
        seen = points[:, : px.shape[1]]
        fixed = (torch.arange(seen.shape[1], device=px.device) >= _JAW).expand(seen.shape[:2])
        terms = {
            "photometric": photometric(drawn, small),
            "landmarks": landmark_agreement(frame.to_crop(px), seen, fixed.to(px.dtype)),
            "grey_light": grey_light(drawn.params.light),
        }
        if self.embed is not None:
            terms["identity"] = identity_loss(drawn, small, self.embed)
        if self.teacher is not None:
            with torch.no_grad():
                goal = HifaceOutput(*self.teacher.to(crops.device)(crops, points))
            pull = distillation(side.metric, side.basis, out, goal)
            terms["teacher_shape"] = pull["shape"]
            terms["teacher_detail"] = pull["static"] + pull["dynamic"]
            terms["teacher_rest"] = pull["expression"] + pull["pose"]
        return {name: value.mean() for name, value in terms.items()}

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Errors on held persons, each relative to knowing nothing where that is said."""
        if not self._held_batches:
            self._held_batches = [self._held_batch(i) for i in range(-(-self.recipe.held // 32))]
        device = next(network.parameters()).device
        side = self.side.to(device)
        rows: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            for held in self._held_batches:
                batch = HifaceBatch(**{k: v.to(device) for k, v in vars(held).items()})
                out = HifaceOutput(*network(batch.crops, batch.seen_points))
                row = supervised_losses(side, out, batch, 16)
                nothing = out._replace(
                    identity=torch.zeros_like(out.identity),
                    expression=out.expression.mean(dim=0).expand_as(out.expression),
                    static=torch.zeros_like(out.static),
                    dynamic=torch.zeros_like(out.dynamic),
                )
                row |= {f"mean {k}": v for k, v in supervised_losses(side, nothing, batch, 16).items()}
                rows.append(row)
        mean = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
        return {
            "neutral_mm": round(mean["neutral"] ** 0.5, 3),
            "neutral_over_mean": round((mean["neutral"] / mean["mean neutral"]) ** 0.5, 4),
            "expressive_over_mean": round((mean["expressive"] / mean["mean expressive"]) ** 0.5, 4),
            "landmarks_percent_of_crop": round(50 * mean["landmarks"], 3),
            "expression_error": round(mean["expression"], 4),
            "rotation_degrees": round(float(np.degrees((mean["rotation"] / 2) ** 0.5)), 3),
            "albedo_error": round(mean["albedo"], 4),
            "light_error": round(mean["light"], 4),
            "static_explained": round(1 - mean["static"] / mean["mean static"], 4),
            "dynamic_explained": round(1 - mean["dynamic"] / mean["mean dynamic"], 4),
            "composed_um": round(mean["composed"], 2),
            "composed_over_mean": round(mean["composed"] / mean["mean composed"], 4),
        }

    def contact_sheet(self, network: torch.nn.Module) -> Image.Image:
        """Held crops: picture, reconstruction over it, predicted and true relief."""
        if not self._held_batches:
            self._held_batches = [self._held_batch(0)]
        device = next(network.parameters()).device
        held = HifaceBatch(**{k: v[:_SHEET].to(device) for k, v in vars(self._held_batches[0]).items()})
        side = self.side.to(device)
        with torch.inference_mode():
            out = HifaceOutput(*network(held.crops, held.seen_points))
            truth = true_output(held, side.basis)
            rows = [held.crops]
            for answer in (out, truth):
                drawn = draw_self(
                    side.model, side.basis, answer, held.frame, held.K, self.recipe.network.crop_px
                )
                rows += [torch.where(drawn.skin, drawn.image_srgb, held.crops), drawn.relief_srgb()]
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in (*rows[:3], rows[4])], dim=1)
        array = (255 * sheet.permute(1, 2, 0).clamp(0, 1)).round().byte().cpu().numpy()
        return Image.fromarray(array)

    def _held_batch(self, number: int) -> HifaceBatch:
        rng = np.random.default_rng((11, number))
        gen = torch.Generator().manual_seed(number)
        samples = self.held.draw(rng, 32, segmentation=False)
        return make_hiface_batch(gen, samples, **self._batch_settings(STILL))
