"""Blinks of an estimate that stops half way are stretched until they shut the eye; all else stays."""

import numpy as np
import pytest

from hiface.animation.blinks import SHUT, blink_peaks, shut_blinks


def curve(
    rate: float = 30.0, seconds: float = 6.0, height: float = 0.6, at: tuple[float, ...] = (1.0, 2.5, 4.2)
):
    """Times and closure: rest 0.06, blinks of 0.25 s of a height."""
    times = np.arange(round(rate * seconds)) / rate
    closure = np.full(len(times), 0.06)
    for middle in at:
        closure = np.maximum(closure, height * np.clip(1.0 - np.abs(times - middle) / 0.125, 0.0, 1.0))
    return times, closure


@pytest.mark.parametrize("rate", [24.0, 60.0])
def test_peaks_are_where_the_blinks_are(rate):
    times, closure = curve(rate)
    assert times[blink_peaks(times, closure)] == pytest.approx([1.0, 2.5, 4.2], abs=0.6 / rate)


def test_usual_blink_shuts_the_eye_and_open_eyes_stay_as_they_are():
    times, closure = curve()
    shut = shut_blinks(times, closure)
    peaks = blink_peaks(times, closure)
    assert shut[peaks] == pytest.approx(SHUT, abs=0.02)
    assert np.array_equal(shut[closure <= 0.06], closure[closure <= 0.06])
    assert (np.argsort(shut[peaks[0] - 4 : peaks[0] + 1]) == np.arange(5)).all()  # rises as it did


def test_one_blink_or_complete_ones_change_nothing():
    for times, closure in (curve(at=(2.0,)), curve(height=0.97), curve(height=0.3)):
        assert np.array_equal(shut_blinks(times, closure), closure)


def test_eyes_held_half_shut_are_no_blinks():
    times, closure = curve(height=0.0)
    closure[(times > 1.0) & (times < 2.2)] = 0.6
    closure[(times > 3.0) & (times < 4.2)] = 0.6
    assert len(blink_peaks(times, closure)) == 0
    assert np.array_equal(shut_blinks(times, closure), closure)


def test_frames_without_the_face_stay_unknown():
    times, closure = curve()
    closure[60:70] = np.nan
    shut = shut_blinks(times, closure)
    assert np.array_equal(np.isnan(shut), np.isnan(closure))
    assert shut[30] > 0.9
    assert np.isnan(shut_blinks(times[:3], np.full(3, np.nan))).all()
