# SPDX-License-Identifier: Apache-2.0
"""Calibration to one person's rest and range, on signals whose rest, blinks and noise are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hiface.animation.calibration import (
    BLINKS,
    Calibration,
    calibrate,
    read_calibration,
    write_calibration,
)
from hiface.animation.motion import Motion
from hiface.animation.motion_files import read_motion
from hiface.animation.motion_json import write_motion_json
from hiface.animation.orders import expression_order
from hiface.cli.main import main
from hiface.errors import FaceFileError, OptionError, ShapeError

NAMES = expression_order("arkit52")


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["retarget", *map(str, words)])
    return int(done.value.code or 0)


def resting(n: int = 300, noise: float = 0.01) -> tuple[Motion, torch.Tensor]:
    """A face whose shapes rest above 0; it blinks to 0.7 twice and smiles once; frames 0 to 59 are calm."""
    gen = torch.Generator().manual_seed(4)
    rest = torch.rand(52, generator=gen) * 0.3
    values = rest + noise * torch.randn(n, 52, generator=gen)
    for start in (100, 200):
        for name in BLINKS:
            i = NAMES.index(name)
            values[start : start + 5, i] = torch.lerp(
                rest[i], torch.tensor(0.7), torch.tensor([0.5, 1, 1, 1, 0.5])
            )
    values[150:170, NAMES.index("mouthSmileLeft")] = 0.6
    values[120, NAMES.index("tongueOut")] = 0.9  # one wrong frame
    return Motion(values.clamp(0, 1), None, torch.arange(n) / 60), rest


def test_rest_becomes_zero_and_a_blink_one() -> None:
    motion, rest = resting()
    found = calibrate(motion, range(60))
    assert float((found.rest - rest.clamp(0, 1)).abs().max()) < 0.01
    out = found.applied(motion).expression
    for name in BLINKS:
        i = NAMES.index(name)
        assert float(found.gain[i]) == pytest.approx(1 / (0.7 - float(rest[i])), rel=0.03)
        assert float(out[102, i]) > 0.99 and 0.4 < float(out[100, i]) < 0.6
    assert float(out[:60].max()) < 0.1 and float(out[:60].mean()) < 0.01
    smile = NAMES.index("mouthSmileLeft")
    assert float(found.gain[smile]) == pytest.approx(1 / (1 - float(found.rest[smile])))
    still = [i for i, name in enumerate(NAMES) if name not in (*BLINKS, "mouthSmileLeft")]
    assert torch.equal(found.gain[still], torch.ones(len(still)))  # their noise is not made larger
    everything = calibrate(motion, range(60), NAMES)
    assert torch.equal(everything.gain[still], torch.ones(len(still)))
    assert float(everything.applied(motion).expression[160, smile]) > 0.95


def test_calibration_of_few_frames_and_noise() -> None:
    motion, _ = resting(noise=0.0)
    one = calibrate(motion, [5])
    assert not one.applied(motion).expression[5].any()
    assert torch.equal(calibrate(motion, [-1]).rest, motion.expression[-1])
    loud, _ = resting(noise=0.08)
    still = NAMES.index("browInnerUp")
    assert calibrate(loud, range(60), NAMES).gain[still] == 1
    short = calibrate(Motion(motion.expression[99:101], None, torch.arange(2) / 60), [0])
    assert float(short.gain[NAMES.index("eyeBlinkLeft")]) > 1
    full = Motion(torch.ones(3, 52), None, torch.arange(3) / 60)
    assert torch.isfinite(calibrate(full, [0]).gain).all()
    seen = Motion(motion.expression, None, motion.times, None, ("missing",) + ("ok",) * (len(motion) - 1))
    for frames in ([], [300], [-301], [0]):
        with pytest.raises(OptionError, match="neutral frames"):
            calibrate(seen, frames)
    with pytest.raises(OptionError, match="wink"):
        calibrate(motion, [0], ["wink"])
    with pytest.raises(ShapeError):
        calibrate(motion, [0], names=["jawOpen"])
    with pytest.raises(ShapeError):
        one.apply(torch.zeros(51))
    with pytest.raises(ShapeError):
        Calibration(("a",), torch.zeros(2), torch.ones(1))


def test_calibrations_are_kept_in_files(tmp_path: Path) -> None:
    found = calibrate(resting()[0], range(60))
    write_calibration(tmp_path / "me.json", found)
    back = read_calibration(tmp_path / "me.json")
    assert torch.allclose(back.rest, found.rest, atol=1e-7) and torch.allclose(
        back.gain, found.gain, atol=1e-6
    )
    few = {"schema": "hiface.calibration/1", "names": ["jawOpen"], "rest": [0.2], "gain": [1.5]}
    (tmp_path / "few.json").write_text(json.dumps(few))
    some = read_calibration(tmp_path / "few.json")
    jaw = NAMES.index("jawOpen")
    assert float(some.gain[jaw]) == 1.5 and float(some.gain.sum()) == 52.5
    for change in (
        {"schema": "x"},
        {"gain": [0]},
        {"rest": [2]},
        {"rest": [0, 0]},
        {"gain": ["a"]},
        {"names": 3},
    ):
        (tmp_path / "bad.json").write_text(json.dumps(few | change))
        with pytest.raises(FaceFileError):
            read_calibration(tmp_path / "bad.json")
    for text in ("{", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FaceFileError):
            read_calibration(tmp_path / "bad.json")
    with pytest.raises(FaceFileError):
        read_calibration(tmp_path / "none.json")


def test_the_command_calibrates(tmp_path: Path) -> None:
    motion, rest = resting()
    write_motion_json(tmp_path / "in.json", motion)
    me = tmp_path / "me.json"
    assert (
        run(tmp_path / "in.json", "-o", tmp_path / "a.json", "--neutral", 0, 1, 2, 3, "--calibration", me)
        == 0
    )
    assert run(tmp_path / "in.json", "-o", tmp_path / "b.json", "--calibration", me) == 0
    one, two = read_motion(tmp_path / "a.json"), read_motion(tmp_path / "b.json")
    assert torch.allclose(one.expression, two.expression, atol=1e-6)
    assert float(one.expression[102, NAMES.index("eyeBlinkLeft")]) > 0.95 and float(rest.mean()) > 0.1
    assert float(one.expression[:4].mean()) < 0.02
