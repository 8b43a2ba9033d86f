# SPDX-License-Identifier: Apache-2.0
"""Trains the recogniser on synthetic people: pictures of one person attract, others repel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hiface.data.crops import eye_roll, frame_of_points
from hiface.errors import AssetError
from hiface.losses.contrastive import supervised_contrastive
from hiface.networks.recogniser import Recogniser, RecogniserConfig, same_person_margin
from hiface.networks.weights import load_landmarker
from hiface.training.augment import BackgroundBank, chance, degrade, occlude
from hiface.training.landmark_batches import NO_JITTER, CropJitter, jittered_frames, read_augmented
from hiface.training.loop import Network
from hiface.training.shards import Samples, ShardSet

_JITTER = CropJitter(shift=0.03, log_scale=0.06, roll=0.08, upright=1.0, negatives=0.0, cut=0.1)


@dataclass(frozen=True)
class RecogniserRecipe:
    """Data and loss of the recogniser.

    Attributes:
        persons: People of a step.
        pictures: Pictures of each.
        network: Sizes.
        jitter: How far crops may be off.
        temperature: Of the contrastive softmax.
        backgrounds: Number of procedural backgrounds.
        held: Held persons that are validated on, at most.
        seed: Of weights and batches.
    """

    persons: int = 32
    pictures: int = 2
    network: RecogniserConfig = field(default_factory=RecogniserConfig)
    jitter: CropJitter = _JITTER
    temperature: float = 0.1
    backgrounds: int = 256
    held: int = 200
    seed: int = 0


@dataclass(frozen=True)
class RecogniserBatch:
    """Crops and whose they are.

    Attributes:
        crops: [B, 3, S, S] sRGB 0..1.
        persons: [B] int64.
    """

    crops: Tensor
    persons: Tensor


class PeopleOf:
    """Which pictures of a set show whom.

    Args:
        data: Set with the further label "person".

    Attributes:
        pictures: Numbers of the pictures of each person that has several.
    """

    def __init__(self, data: ShardSet) -> None:
        persons = data.labels("person")
        order = np.argsort(persons, kind="stable")
        starts = np.nonzero(np.diff(persons[order], prepend=-1))[0]
        groups = np.split(order, starts[1:])
        self.pictures = [group for group in groups if len(group) > 1]

    def draw(self, rng: np.random.Generator, persons: int, pictures: int) -> np.ndarray:
        """Numbers of `pictures` pictures each of `persons` people, one person after another."""
        chosen = rng.choice(len(self.pictures), persons, replace=persons > len(self.pictures))
        rows = [
            rng.choice(self.pictures[i], pictures, replace=pictures > len(self.pictures[i])) for i in chosen
        ]
        return np.concatenate(rows)


class RecogniserTask:
    """Batches, loss and validation of the recogniser.

    Args:
        recipe: Data and loss.
        folders: Folders of synthetic shards with several pictures of each person.

    Raises:
        AssetError: No person has two pictures.
    """

    def __init__(self, recipe: RecogniserRecipe, folders: tuple[Path, ...]) -> None:
        self.recipe = recipe
        self.data = ShardSet(folders, more=("person",))
        self.held = ShardSet(folders, validation=True, more=("person",))
        self.people, self.held_people = PeopleOf(self.data), PeopleOf(self.held)
        if not self.people.pictures or not self.held_people.pictures:
            raise AssetError("no person of this data has two pictures; make more with: hiface synth")
        torch.manual_seed(recipe.seed)
        network = Recogniser(recipe.network)
        network.trunk.start_from_landmarker(load_landmarker().state_dict())
        self.network: nn.Module = network
        self.backgrounds = BackgroundBank(recipe.backgrounds, recipe.network.crop_px, recipe.seed)

    def batch(self, step: int) -> RecogniserBatch:
        """Batch number `step`."""
        rng = np.random.default_rng((self.recipe.seed, step, 5))
        ids = self.people.draw(rng, self.recipe.persons, self.recipe.pictures)
        samples = self.data.take(ids, segmentation=False)
        return self._crops(rng, samples, self.recipe.jitter, self.backgrounds)

    def _crops(
        self,
        rng: np.random.Generator,
        samples: Samples,
        jitter: CropJitter,
        backgrounds: BackgroundBank | None,
    ) -> RecogniserBatch:
        gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
        config = self.recipe.network
        roll = eye_roll(samples.points_px)
        frame = jittered_frames(
            gen, frame_of_points(samples.points_px[:, :68], config.crop_scale, roll), jitter
        )
        crops, _ = read_augmented(gen, samples, frame, config.crop_px, jitter, backgrounds)
        crops, _ = occlude(gen, crops, jitter.occluded)
        flip = chance(gen, 0.5, len(crops)) if jitter.degraded else torch.zeros(len(crops), dtype=torch.bool)
        crops = torch.where(flip[:, None, None, None], crops.flip(-1), crops)
        crops = degrade(gen, crops) if jitter.degraded else crops
        return RecogniserBatch(crops, samples.more["person"].long())

    def loss(self, network: Network, batch: RecogniserBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Supervised contrastive loss."""
        embeddings: Tensor = network(batch.crops)  # pyright: ignore[reportAssignmentType]
        loss = supervised_contrastive(embeddings, batch.persons, self.recipe.temperature)
        with torch.no_grad():
            same, other = same_person_margin(embeddings, batch.persons)
        return loss, {"same": same.mean(), "other": other.mean()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """How often a pair of one person is more alike than a pair of two, on held persons."""
        rng = np.random.default_rng(17)
        count = min(self.recipe.held, len(self.held_people.pictures))
        ids = self.held_people.draw(rng, count, 2)
        batch = self._crops(rng, self.held.take(ids, segmentation=False), NO_JITTER, None)
        device = next(network.parameters()).device
        with torch.inference_mode():
            parts = [network(crops.to(device)).cpu() for crops in batch.crops.split(64)]
        same, other = same_person_margin(torch.cat(parts), batch.persons)
        ranked = torch.sort(other).values
        order = torch.searchsorted(ranked, same).float() / max(1, len(ranked))
        return {
            "pairs_in_order_percent": round(100 * float(order.mean()), 3),
            "same_cosine": round(float(same.mean()), 4),
            "other_cosine": round(float(other.mean()), 4),
        }
