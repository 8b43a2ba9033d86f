# SPDX-License-Identifier: Apache-2.0
"""Trains the HiFace network: L_shp + L_detail + L_reg on synthetic pictures, L_self + L_kd on photos.

Synthetic pictures have exact truths. A folder of photos without labels, if the user has one, adds what only
real pictures can teach: the reconstruction must look like its picture (L_self), and stay near the answers of
a teacher that was trained on synthetic pictures alone (L_kd), for photos carry no label of detail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hiface.detail.basis import load_detail_basis
from hiface.errors import AssetError
from hiface.losses.self_loss import Embed, draw_self
from hiface.morphable import load_model
from hiface.networks.backbones import SmallTrunk
from hiface.networks.hiface import PRESETS, Hiface, HifaceConfig, HifaceOutput, build_hiface
from hiface.networks.relief_reader import relief_grid
from hiface.networks.weights import load_hiface, load_landmarker
from hiface.training.augment import BackgroundBank
from hiface.training.hiface_batches import (
    CODES,
    HIFACE_JITTER,
    LABELS,
    STILL,
    HifaceBatch,
    make_hiface_batch,
)
from hiface.training.hiface_losses import (
    HifaceWeights,
    PhotoWeights,
    face_side,
    photo_losses,
    split_codes,
    supervised_losses,
    true_output,
)
from hiface.training.landmark_batches import CropJitter
from hiface.training.loop import Network
from hiface.training.photo_crops import PhotoCrops
from hiface.training.shards import ShardSet

_SHEET = 8


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
        start_with: Crops from which mean landmarks and the linear way to identity are found before training.
        finish_with: Crops to which the last layers of identity are fitted after training.
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
    start_with: int = 4096
    finish_with: int = 24_576
    seed: int = 0


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
        self.teacher = None if teacher is None else load_hiface(teacher)
        if self.teacher is not None and self.teacher.config != recipe.network:
            raise AssetError(
                f"{teacher} holds a network of another preset; teach with weights of the preset to be trained"
            )
        self.photos = None if photos is None else PhotoCrops(photos, round(1.4 * recipe.network.crop_px))
        self.side = face_side(load_model("open"), recipe.network)
        self.anchor = self.side.anchor
        more = {"more": LABELS, "optional": {CODES: sum(load_detail_basis("open").counts)}}
        self.data = ShardSet(folders, more_turned=recipe.more_turned, **more)
        self.held = ShardSet(folders, validation=True, **more)
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
        if network.relief is not None:
            network.relief.start(
                relief_grid(self.side.model, self.side.basis, self.recipe.network.relief_codes)
            )
        codes = torch.from_numpy(self.data.labels(CODES).astype(np.float32))
        codes = codes[torch.isfinite(codes).all(dim=1)]
        if len(codes) == 0:
            raise AssetError(
                "none of the data have detail codes; make some with: hiface synth --labels codes"
            )
        network.dynamic.start_linear(*split_codes(codes, self.side.basis))
        crops = self._crops(self.recipe.start_with, self.recipe.seed)
        batches = [replace(batch, crops=batch.crops[:0]) for batch in crops]
        place = torch.cat([batch.place for batch in batches])
        light = torch.cat([batch.light for batch in batches])
        network.start_heads(place.mean(dim=0), light.mean(dim=0).flatten())
        if network.points is not None:
            network.start_points(torch.cat([batch.points for batch in batches]))
            seen = torch.cat([batch.seen_points for batch in batches])
            identity, expression = (
                torch.cat([getattr(batch, name) for batch in batches]) for name in ("identity", "expression")
            )
            network.start_shape(seen, identity, expression)

    def _crops(self, count: int, seed: int) -> Iterator[HifaceBatch]:
        """About `count` training crops that no step sees."""
        rng, gen = np.random.default_rng((seed, 5)), torch.Generator().manual_seed(seed)
        settings = self._batch_settings(self.recipe.jitter)
        for _ in range(-(-min(8 * len(self.data), count) // 64)):
            samples = self.data.draw(rng, 64, segmentation=False)
            yield make_hiface_batch(gen, samples, backgrounds=self.backgrounds, **settings)

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
            weights = self.recipe.photo_weights
            photo_terms = photo_losses(
                self.side, network, batch, weights.render_px, (self.teacher, self.embed)
            )
            total = total + torch.stack([getattr(weights, k) * v for k, v in photo_terms.items()]).sum()
            terms |= {f"photo_{name}": value for name, value in photo_terms.items()}
        return total, {name: value.detach() for name, value in terms.items()}

    def finish(self, network: torch.nn.Module) -> None:
        """Refits the last layers of identity to training crops, in closed form.

        Two thirds of what makes a shape cannot be seen in a picture, so gradients of the last layers are
        mostly noise; a regression over many crops has none.
        """
        assert isinstance(network, Hiface)
        network, rows = network.cpu().eval(), []
        with torch.inference_mode():
            for batch in self._crops(self.recipe.finish_with, self.recipe.seed + 1):
                look = network.look(batch.crops, batch.seen_points)
                rows.append((look.features, look.landmarks, batch.identity))
        network.refit_identity(*(torch.cat(column) for column in zip(*rows, strict=True)))

    def identity_sigma(self, network: torch.nn.Module) -> list[float]:
        """[K] error of each identity coefficient over its spread, root mean squares on held persons."""
        errors, spreads = [], []
        with torch.inference_mode():
            for batch in self._held():
                out = HifaceOutput(*network.cpu()(batch.crops, batch.seen_points))
                errors.append((out.identity - batch.identity).square())
                spreads.append(batch.identity.square())
        share = torch.cat(errors).mean(dim=0) / torch.cat(spreads).mean(dim=0)
        return [round(float(v), 4) for v in share.sqrt().clamp_max(1.0)]

    def _held(self) -> list[HifaceBatch]:
        if not self._held_batches:
            self._held_batches = [self._held_batch(i) for i in range(-(-self.recipe.held // 32))]
        return self._held_batches

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Errors on held persons, each relative to knowing nothing where that is said."""
        device = next(network.parameters()).device
        side = self.side.to(device)
        rows: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            for held in self._held():
                batch = HifaceBatch(**{k: v.to(device) for k, v in vars(held).items()})
                out = HifaceOutput(*network(batch.crops, batch.seen_points))
                row = supervised_losses(side, out, batch, 16)
                nothing = out._replace(
                    identity=torch.zeros_like(out.identity),
                    albedo=out.albedo.mean(dim=0).expand_as(out.albedo),
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
            "motion_over_mean": round((mean["motion"] / mean["mean motion"]) ** 0.5, 4),
            "landmarks_percent_of_crop": round(50 * mean["landmarks"], 3),
            "expression_error": round(mean["expression"], 4),
            "points_percent_of_crop": round(50 * mean.get("points", 0.0), 3),
            "albedo_over_mean": round((mean["albedo"] / mean["mean albedo"]) ** 0.5, 4),
            "rotation_degrees": round(float(np.degrees((mean["rotation"] / 2) ** 0.5)), 3),
            "light_error": round(mean["light"], 4),
            "static_explained": round(1 - mean["static"] / mean["mean static"], 4),
            "dynamic_explained": round(1 - mean["dynamic"] / mean["mean dynamic"], 4),
            "composed_um": round(mean["composed"], 2),
            "composed_over_mean": round(mean["composed"] / mean["mean composed"], 4),
        }

    def contact_sheet(self, network: torch.nn.Module) -> Image.Image:
        """Held crops: picture, reconstruction over it, predicted and true relief."""
        device = next(network.parameters()).device
        held = HifaceBatch(**{k: v[:_SHEET].to(device) for k, v in vars(self._held()[0]).items()})
        side = self.side.to(device)
        with torch.inference_mode():
            out = HifaceOutput(*network(held.crops, held.seen_points))
            drawn, true = (
                draw_self(side.model, side.basis, answer, held.frame, held.K, self.recipe.network.crop_px)
                for answer in (out, true_output(held, side.basis))
            )
        over = torch.where(drawn.skin, drawn.image_srgb, held.crops)
        rows = (held.crops, over, drawn.relief_srgb(), true.relief_srgb())
        sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        array = (255 * sheet.permute(1, 2, 0).clamp(0, 1)).round().byte().cpu().numpy()
        return Image.fromarray(array)

    def _held_batch(self, number: int) -> HifaceBatch:
        rng = np.random.default_rng((11, number))
        gen = torch.Generator().manual_seed(number)
        samples = self.held.draw(rng, 32, segmentation=False)
        return make_hiface_batch(gen, samples, **self._batch_settings(STILL))
