# SPDX-License-Identifier: Apache-2.0
"""One person's rest and range: a resting face becomes 0, a full blink 1.

For every channel, with r the median of the neutral frames and x a value:

    y = clamp((x - r) * g, 0, 1)

The peak p of a recording is the largest median of three frames in a row, so that one wrong frame is no peak.
A channel moves if p - r is more than `LEAST_RANGE` and more than six times the noise of the neutral frames
(1.4826 times their median absolute deviation).

    g = 1 / (p - r)                     of a moving channel that the recording shows at its full extent,
    g = 1 / (1 - r), at most MOST_GAIN  of other moving channels, so that 1 stays 1,
    g = 1                               of channels that do not move, whose noise stays as small as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hiface.animation.motion import Motion
from hiface.animation.orders import expression_order, reorder
from hiface.atomic import atomic_write_text
from hiface.errors import FaceFileError, OptionError, ShapeError

SCHEMA = "hiface.calibration/1"
BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
LEAST_RANGE = 0.1
MOST_GAIN = 2.0
_NOISES = 6.0
_LARGEST_GAIN = 1.0 / LEAST_RANGE


@dataclass(frozen=True)
class Calibration:
    """Rest and range of one person.

    Attributes:
        names: Names of the channels, in order.
        rest: [E] values of the resting face, 0..1.
        gain: [E] factor of what is above rest, more than 0.
    """

    names: tuple[str, ...]
    rest: Tensor
    gain: Tensor

    def __post_init__(self) -> None:
        shape = (len(self.names),)
        if self.rest.shape != shape or self.gain.shape != shape:
            raise ShapeError(
                f"a calibration needs {shape[0]} rest values and gains, got {tuple(self.rest.shape)} and "
                f"{tuple(self.gain.shape)}"
            )

    def apply(self, expression: Tensor) -> Tensor:
        """Calibrated values.

        Args:
            expression: [*B, E] 0..1, in the order of `names`.

        Returns:
            [*B, E] 0..1. Differentiable where not clamped.

        Raises:
            ShapeError: The last dimension is not E.
        """
        if expression.shape[-1] != len(self.names):
            raise ShapeError(f"expected [*B, {len(self.names)}], got {tuple(expression.shape)}")
        return ((expression - self.rest.to(expression)) * self.gain.to(expression)).clamp(0.0, 1.0)

    def applied(self, motion: Motion) -> Motion:
        """A motion with calibrated expressions; arguments and errors as of `apply`."""
        return replace(motion, expression=self.apply(motion.expression))


def calibrate(
    motion: Motion,
    neutral_frames: Sequence[int],
    full: Sequence[str] = BLINKS,
    names: Sequence[str] | None = None,
) -> Calibration:
    """Measures one person's rest and range.

    Args:
        motion: A recording in which the person rests in some frames, and blinks.
        neutral_frames: Numbers of the frames at rest, from 0; negative ones count from the end.
        full: Channels that the recording shows at their full extent; the blinks, unless the person went
            through all shapes (then: all names).
        names: Names of the motion's expressions; ARKit's 52 if None.

    Returns:
        The calibration. Frames that were not seen are not used.

    Raises:
        OptionError: There is no neutral frame, it is out of range or was not seen, or a name is unknown.
        ShapeError: There is not one name per expression.
    """
    names = tuple(expression_order("arkit52") if names is None else names)
    values, n = motion.expression, len(motion)
    if len(names) != values.shape[1]:
        raise ShapeError(f"expected {values.shape[1]} names, got {len(names)}")
    if unknown := set(full) - set(names):
        raise OptionError(f"{', '.join(sorted(unknown))} is no channel of this motion; choose others")
    seen = [motion.status is None or word == "ok" for word in motion.status or [""] * n]
    frames = [i + n if i < 0 else i for i in neutral_frames]
    if not frames or not all(0 <= i < n and seen[i] for i in frames):
        raise OptionError(
            f"neutral frames must be some of the {n} frames (0 to {n - 1}) that show a face, got "
            f"{list(neutral_frames)}"
        )
    calm = values[frames]
    rest = calm.quantile(0.5, dim=0)
    noise = 1.4826 * (calm - rest).abs().quantile(0.5, dim=0)
    used = values[torch.tensor(seen)]
    peak = used.unfold(0, 3, 1).quantile(0.5, dim=-1).amax(dim=0) if len(used) >= 3 else used.amax(dim=0)
    reach = peak - rest
    moves = reach > torch.maximum(_NOISES * noise, torch.full_like(noise, LEAST_RANGE))
    at_full = torch.tensor([name in set(full) for name in names])
    gain = torch.where(at_full, 1 / reach, (1 / (1 - rest)).clamp(max=MOST_GAIN))
    return Calibration(names, rest, torch.where(moves, gain, torch.ones_like(gain)))


def write_calibration(path: Path, calibration: Calibration) -> Path:
    """Writes a calibration as JSON, schema "hiface.calibration/1": names, rest and gain.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        "schema": SCHEMA,
        "names": list(calibration.names),
        "rest": [round(v, 8) for v in calibration.rest.double().tolist()],
        "gain": [round(v, 8) for v in calibration.gain.double().tolist()],
    }
    return atomic_write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_calibration(path: Path, names: Sequence[str] | None = None) -> Calibration:
    """Reads a calibration.

    Args:
        path: File of `write_calibration`.
        names: Wanted channels, in order; ARKit's 52 if None. What the file lacks has rest 0 and gain 1.

    Returns:
        The calibration.

    Raises:
        FaceFileError: The file is missing, damaged or of another kind.
    """
    wanted = tuple(expression_order("arkit52") if names is None else names)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FaceFileError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise FaceFileError(f"{path.name} is not JSON ({error}); calibrate again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise FaceFileError(f"{path.name} has the schema {schema!r}, expected {SCHEMA!r}; calibrate again")
    try:
        given = [str(name) for name in content["names"]]
        if len(set(given)) != len(given):
            raise ValueError("a name comes twice")
        rest, gain = (torch.tensor(content[key], dtype=torch.float32) for key in ("rest", "gain"))
        read = Calibration(tuple(given), rest, gain)
        if not bool(((rest >= 0) & (rest <= 1) & (gain > 0) & (gain <= _LARGEST_GAIN + 1e-3)).all()):
            raise ValueError(f"rest must be 0 to 1 and gain more than 0, at most {_LARGEST_GAIN:g}")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FaceFileError(f"{path.name} is no whole calibration ({reason}); calibrate again") from error
    found = reorder(torch.ones(len(given)), given, wanted)
    return Calibration(
        wanted,
        reorder(read.rest, given, wanted),
        torch.where(found > 0, reorder(read.gain, given, wanted), 1.0),
    )
