# SPDX-License-Identifier: Apache-2.0
"""JSON files that may be missing or half written, and are made anew then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file, or anything else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
