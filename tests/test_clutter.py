# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from hiface.training.clutter import cut_piece, erase_face, skin_shape
from hiface.training.collages import CollageConfig, face_contrast_kept

BOX = torch.tensor([30.0, 24.0, 60.0, 60.0])


def person() -> tuple[torch.Tensor, torch.Tensor]:
    """A tile whose face is noise on a plain head, and its regions."""
    tile = torch.full((4, 96, 96), 120, dtype=torch.uint8)
    gen = torch.Generator().manual_seed(0)
    tile[:3, 24:60, 30:60] = torch.randint(0, 256, (3, 36, 30), dtype=torch.uint8, generator=gen)
    tile[3] = 255
    segmentation = torch.zeros(96, 96, dtype=torch.uint8)
    segmentation[24:60, 30:60] = 1
    return tile, segmentation


@pytest.mark.parametrize("seed", range(12))
def test_an_erased_face_is_gone_and_nothing_else_is_touched(seed: int) -> None:
    tile, segmentation = person()
    before = tile.clone()
    erase_face(np.random.default_rng(seed), tile, segmentation, BOX)
    inside = segmentation.bool()
    assert torch.equal(tile[:, ~inside], before[:, ~inside]) and torch.equal(tile[3], before[3])
    a, b = (t[:3, 24:60, 30:60].float().flatten() for t in (tile, before))
    same = float(torch.corrcoef(torch.stack([a, b]))[0, 1]) if a.std() > 0 else 0.0
    assert same < 0.5


def test_an_erased_face_may_lie_outside_the_picture() -> None:
    for seed in range(8):
        for box in ([-50.0, 10.0, -20.0, 40.0], [90.0, 90.0, 130.0, 130.0], [-20.0, -20.0, 120.0, 120.0]):
            tile, segmentation = person()
            erase_face(np.random.default_rng(seed), tile, segmentation, torch.tensor(box))
            assert tile.shape == (4, 96, 96)


def test_pieces_hold_next_to_nothing_of_the_face() -> None:
    tile, _ = person()
    tile[:3] = 0
    tile[0, 24:60, 30:60] = 255
    pieces = [cut_piece(np.random.default_rng(seed), tile, BOX) for seed in range(60)]
    found = [piece for piece in pieces if piece is not None]
    assert len(found) > 30
    for piece in found:
        assert piece.dtype == torch.uint8 and piece.shape[0] == 4
        assert float((piece[0] > 0).float().mean()) < 0.14


def test_skin_shapes_are_opaque_somewhere() -> None:
    for seed in range(10):
        shape = skin_shape(np.random.default_rng(seed))
        assert shape.dtype == torch.uint8 and shape[3].max() > 200 and shape.shape[0] == 4


def test_contrast_of_a_face_is_lost_by_blur_and_kept_by_gain() -> None:
    gen = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=gen)
    image[:, :, :32] = torch.nn.functional.interpolate(image[:, :, :4, :8], size=(32, 64), mode="nearest")
    boxes = torch.tensor([[[8.0, 4, 40, 30], [0, 0, 0, 0]]])
    flat = image.mean(dim=(2, 3), keepdim=True).expand_as(image)
    noisy = flat + 0.05 * torch.randn(image.shape, generator=gen)
    limit = CollageConfig().min_kept
    assert float(face_contrast_kept(image, 0.4 * image + 0.3, boxes)[0, 0]) > 0.999
    assert float(face_contrast_kept(image, flat, boxes)[0, 0]) == 0.0
    assert float(face_contrast_kept(image, noisy, boxes)[0, 0]) < limit
    assert bool(torch.isfinite(face_contrast_kept(image, image, boxes)).all())
