# SPDX-License-Identifier: Apache-2.0
"""Draws the means and first rows of the packaged detail basis: `python -m tools.draw_detail_basis OUT.png`.

Rows of the picture: static, compressed, stretched; columns: mean, then coefficients at two standard
deviations. Grey is zero, white 0.3 mm outward, black 0.3 mm inward.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hiface.detail.basis import STATES, load_detail_basis

_RANGE_M = 3e-4
_COEFFICIENTS = (0, 1, 4, 12, 40)
_WINDOW = (slice(8, 200), slice(32, 224))


def main(out: Path) -> None:
    """Writes the picture."""
    basis = load_detail_basis()
    rows = []
    for state in STATES:
        part = getattr(basis, state)
        values = [part.mean, *(2 * part.rows[i] for i in _COEFFICIENTS)]
        maps = [basis.scatter(v[None])[0, 0].numpy()[_WINDOW] for v in values]
        rows.append(np.concatenate(maps, axis=1))
    picture = 0.5 + 0.5 * np.concatenate(rows) / _RANGE_M
    Image.fromarray((255 * picture.clip(0, 1)).round().astype(np.uint8)).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
