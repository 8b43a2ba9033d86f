# SPDX-License-Identifier: Apache-2.0
"""Length units of exported files, and the facts every exported file states about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hiface.errors import OutputError

UNITS_PER_METRE = {"m": 1.0, "cm": 100.0, "mm": 1000.0}


def units_per_metre(units: str) -> float:
    """Factor from metres to `units` ("m", "cm" or "mm").

    Raises:
        OutputError: Not a known unit.
    """
    if units not in UNITS_PER_METRE:
        raise OutputError(f"unknown unit {units!r}; choose one of {', '.join(UNITS_PER_METRE)}")
    return UNITS_PER_METRE[units]


@dataclass(frozen=True)
class ExportInfo:
    """What an exported file says about where it came from.

    Attributes:
        scale_source: What fixed the size of the head: "model_prior", "iris", "user" or "depth".
        provenance: Further facts (file name of the photo, weights version ...), written as they are.
    """

    scale_source: str = "model_prior"
    provenance: Mapping[str, Any] = field(default_factory=dict)
