# SPDX-License-Identifier: Apache-2.0
"""Makes the packaged network that reads the colour of irises: synthetic people, training, scores.

    python tools/train_eye_colour.py WORK --pictures 12000 --epochs 30 --out src/hiface/assets/weights

Pictures are made once and kept in WORK as crops; a run that was stopped goes on where it was. Every picture
shows another person; the last tenth of them is not trained on and gives the scores in the file's metadata,
the twentieth before it says how large standard deviations have to be.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from hiface import load_model
from hiface.networks.eye_colour import eye_crops
from hiface.networks.eye_colour_net import EyeColourConfig, EyeColourNet
from hiface.networks.weights import save_weights
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style, generate_picture
from hiface.synthetic.shots import sitter_of

_BLOCK = 500  # pictures in a file
_FIRST_SEED = 3_000_000
_SIZES = (192, 256, 384, 512)
_PLACE_ERROR = 0.02  # of a point, over the face's size: fitted points are not exact
_CROPS = 3  # of one picture, with other errors


def make_block(block: int, config: EyeColourConfig) -> dict[str, np.ndarray]:
    """Crops [N, 3, 3, S, S] uint8 and the logarithm of the irises' albedo [N, 3] of one block of pictures."""
    model = load_model()
    crops, colours = [], []
    for number in range(block * _BLOCK, (block + 1) * _BLOCK):
        seed = _FIRST_SEED + PICTURES_PER_PERSON * number
        rng = np.random.default_rng([seed, 71])
        style = Style(int(rng.choice(_SIZES)))
        sitter = sitter_of(model, seed // PICTURES_PER_PERSON, style.effects)
        sample = generate_picture(model, seed, style, sitter)
        image = sample.image_srgb.permute(1, 2, 0).contiguous().numpy()
        points = sample.landmarks68_px.numpy()
        size = float(np.ptp(points, axis=0).max())
        for _ in range(_CROPS):
            off = rng.normal(0.0, 0.5 * _PLACE_ERROR * size, (1, 2)) + rng.normal(
                0.0, 0.5 * _PLACE_ERROR * size, points.shape
            )
            seen = eye_crops(image, points + off, config.side_px, config.scale)
            crops.append((seen * 255 + 0.5).to(torch.uint8).numpy())
            colours.append(np.log(sitter.person.iris_colour))
    return {"crops": np.stack(crops), "colours": np.stack(colours).astype(np.float32)}


def read_blocks(work: Path, pictures: int, config: EyeColourConfig) -> tuple[Tensor, Tensor]:
    """All crops and colours; those that are not there yet are made."""
    work.mkdir(parents=True, exist_ok=True)
    parts = []
    for block in track(range(pictures // _BLOCK), "making people"):
        path = work / f"eyes{block:04d}.npz"
        if not path.exists():
            partial = path.with_suffix(".part.npz")
            np.savez(partial, allow_pickle=False, **make_block(block, config))
            partial.rename(path)
        with np.load(path) as file:
            parts.append((torch.from_numpy(file["crops"]), torch.from_numpy(file["colours"])))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def likelihood(network: EyeColourNet, crops: Tensor, colours: Tensor) -> Tensor:
    """Mean negative log likelihood of a normal distribution, without its constant."""
    mean, log_sigma = network(crops)
    return (0.5 * ((colours - mean) / log_sigma.exp()) ** 2 + log_sigma).mean()


def train(
    crops: Tensor, colours: Tensor, config: EyeColourConfig, epochs: int, seed: int = 0
) -> EyeColourNet:
    """Trains with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    network = EyeColourNet(config)
    network.population.copy_(torch.stack([colours.mean(0), colours.std(0)]))
    steps = epochs * (len(crops) // 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(steps), "training"):
        rows = torch.randint(len(crops), (64,), generator=generator)
        loss = likelihood(network, _shaken(crops[rows].float() / 255.0, generator), colours[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def _shaken(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Other exposures and white balances, the same for all of a face; now and then an eye is covered."""
    n = len(crops)
    gain = torch.exp(0.1 * torch.randn(n, 1, 1, 1, 1, generator=generator))
    gain = gain * torch.exp(0.04 * torch.randn(n, 1, 3, 1, 1, generator=generator))
    hidden = torch.rand(n, 2, 1, 1, 1, generator=generator) < 0.05
    grey = torch.rand(n, 2, 3, 1, 1, generator=generator)
    crops = (crops * gain).clamp(0.0, 1.0)
    return torch.cat([torch.where(hidden, grey, crops[:, :2]), crops[:, 2:]], dim=1)


@torch.no_grad()
def widen(network: EyeColourNet, crops: Tensor, colours: Tensor) -> None:
    """Makes standard deviations as large as errors are on people who were not trained on."""
    mean, log_sigma = network(crops.float() / 255.0)
    last = network.head[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias[3:] += (((colours - mean) / log_sigma.exp()) ** 2).mean(0).log() / 2


def scores(network: EyeColourNet, crops: Tensor, colours: Tensor) -> dict[str, float]:
    """Errors of the logarithm of albedo, over all and over the surest half, and how far sigma is right."""
    with torch.inference_mode():
        mean, log_sigma = network(crops.float() / 255.0)
    error = (mean - colours).abs()
    spread = log_sigma.exp()
    surest = spread.mean(1) <= spread.mean(1).median()
    population = (colours - network.population[0]).abs()
    return {
        "error": float(error.mean()),
        "error_of_mean_colour": float(population.mean()),
        "error_surest_half": float(error[surest].mean()),
        "error_of_mean_colour_surest_half": float(population[surest].mean()),
        "explained": float(1 - ((mean - colours) ** 2).sum() / ((colours - colours.mean(0)) ** 2).sum()),
        "within_one_sigma": float((error < spread).float().mean()),
    }


def main() -> None:
    """Makes, trains, scores and writes the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, default=12000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="folder of the weights; only scores are printed without")
    args = parser.parse_args()
    config = EyeColourConfig()
    crops, colours = read_blocks(args.work, args.pictures, config)
    trained, widened = (int(share * len(crops)) // _CROPS * _CROPS for share in (0.85, 0.9))
    network = train(crops[:trained], colours[:trained], config, args.epochs)
    widen(network, crops[trained:widened], colours[trained:widened])
    unseen = scores(network, crops[widened:], colours[widened:])
    found = {name: round(value, 4) for name, value in unseen.items()}
    print(json.dumps(found, indent=1))
    if args.out is not None:
        command = f"python tools/train_eye_colour.py WORK --pictures {args.pictures} --epochs {args.epochs}"
        notes = {"command": command, "scores": json.dumps(found)}
        save_weights(network, args.out / "eye_colour.safetensors", notes)


if __name__ == "__main__":
    main()
