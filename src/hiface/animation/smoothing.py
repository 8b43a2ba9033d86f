# SPDX-License-Identifier: Apache-2.0
"""Steadies values over time: causally (One-Euro) and, where the future is known, from both sides (RTS)."""

from __future__ import annotations

import math

import numpy as np

_MANY = 1e6  # variance of what is not measured, over that of a measurement


class OneEuro:
    """Low-pass filter whose cutoff rises with the speed: steady at rest, quick when something moves.

    Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012. Each channel by itself; values of any shape.

    Args:
        min_cutoff_hz: Cutoff at rest; the lower, the steadier.
        beta: Hertz of cutoff per unit a second; the higher, the less lag in motion.
        speed_cutoff_hz: Cutoff of the speed's own filter.
    """

    def __init__(self, min_cutoff_hz: float = 1.0, beta: float = 0.0, speed_cutoff_hz: float = 1.0) -> None:
        self.min_cutoff_hz, self.beta, self.speed_cutoff_hz = min_cutoff_hz, beta, speed_cutoff_hz
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | None = None
        self._time_s = -math.inf

    def reset(self) -> None:
        """Forgets the past: the next value passes as it is."""
        self._value = self._speed = None

    def step(self, value: np.ndarray, time_s: float) -> np.ndarray:
        """The filtered value at a time; a time that is not later than the last starts anew."""
        value = np.asarray(value, dtype=np.float64)
        elapsed = time_s - self._time_s
        self._time_s = time_s
        if self._value is None or self._speed is None or not elapsed > 0:
            self._value, self._speed = value, np.zeros_like(value)
            return value
        speed = (value - self._value) / elapsed
        share = _share(np.array(self.speed_cutoff_hz), elapsed)
        self._speed = self._speed + share * (speed - self._speed)
        cutoff = self.min_cutoff_hz + self.beta * np.abs(self._speed)
        self._value = self._value + _share(cutoff, elapsed) * (value - self._value)
        return self._value


def _share(cutoff_hz: np.ndarray, elapsed_s: float) -> np.ndarray:
    """Of a new value in the filter's answer."""
    turn = 2.0 * math.pi * cutoff_hz * elapsed_s
    return turn / (turn + 1.0)


def rts_smooth(
    times_s: np.ndarray,
    values: np.ndarray,
    sigma: np.ndarray,
    acceleration: np.ndarray,
    degrees: float = 3.0,
    rounds: int = 4,
) -> np.ndarray:
    """Smooths sequences from both sides: a Kalman filter of place and speed, then Rauch-Tung-Striebel.

    Speed changes as white noise of density `acceleration`. The noise has heavy tails: intervals whose speed
    changes more than is likely get more of it (weights of a Student-t, solved by repetition), so that a blink
    keeps its height and its time while what lies still is averaged over many frames.

    Args:
        times_s: [T] seconds, increasing, in any steps.
        values: [T, C]; NaN where nothing was measured, which is filled in.
        sigma: [T, C] or [C] standard deviations of the measurements.
        acceleration: [C] units a second, per square root of a second.
        degrees: Of freedom of the heavy tails.
        rounds: Repetitions.

    Returns:
        [T, C]. A channel that was never measured is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    variance = np.broadcast_to(np.asarray(sigma, dtype=np.float64) ** 2, values.shape)
    start = np.array([c[k][0] if k.any() else 0.0 for c, k in zip(values.T, known.T, strict=True)])
    measured = np.where(known, values, start)
    noise = np.where(known, variance, _MANY * np.maximum(variance, 1e-12))
    steps = np.diff(np.asarray(times_s, dtype=np.float64))
    base = np.broadcast_to(np.asarray(acceleration, dtype=np.float64) ** 2, measured.shape[1:])
    extra = np.ones((max(len(steps), 0), measured.shape[1]))
    smooth = measured
    for _ in range(max(rounds, 1)):
        smooth, speed, spread = _smoothed(steps, measured, noise, base, extra)
        if len(steps) == 0:
            break
        # What the change of speed in each interval says of the noise there (expected square, Student-t).
        square = (np.diff(speed, axis=0) ** 2 + spread) / (base * steps[:, None])
        extra = np.maximum((degrees + square) / (degrees + 1.0), 1e-3)
    smooth[:, ~known.any(axis=0)] = np.nan
    return smooth


def _smoothed(
    steps: np.ndarray, measured: np.ndarray, noise: np.ndarray, base: np.ndarray, extra: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places [T, C], speeds [T, C] and the variance [T - 1, C] of each interval's change of speed."""
    count, channels = measured.shape
    means, covs = np.zeros((count, channels, 2)), np.zeros((count, channels, 2, 2))
    ahead_means, ahead_covs = np.zeros_like(means), np.zeros_like(covs)
    mean = np.stack([measured[0], np.zeros(channels)], axis=-1)
    cov = np.zeros((channels, 2, 2))
    cov[:, 0, 0] = noise[0] * 1e3
    cov[:, 1, 1] = base * 10.0 + noise[0]
    for t in range(count):
        if t:
            mean, cov = _ahead(mean, cov, steps[t - 1], base * extra[t - 1])
        ahead_means[t], ahead_covs[t] = mean, cov
        gain = cov[:, :, 0] / (cov[:, 0, 0] + noise[t])[:, None]
        mean = mean + gain * (measured[t] - mean[:, 0])[:, None]
        cov = cov - gain[:, :, None] * cov[:, None, 0, :]
        means[t], covs[t] = mean, cov
    out, outer = means.copy(), covs.copy()
    spread = np.zeros((max(count - 1, 0), channels))
    for t in range(count - 2, -1, -1):
        F = np.array([[1.0, steps[t]], [0.0, 1.0]])
        back = covs[t] @ F.T @ np.linalg.inv(ahead_covs[t + 1])
        out[t] = means[t] + (back @ (out[t + 1] - ahead_means[t + 1])[..., None])[..., 0]
        outer[t] = covs[t] + back @ (outer[t + 1] - ahead_covs[t + 1]) @ back.transpose(0, 2, 1)
        across = outer[t + 1] @ back.transpose(0, 2, 1)  # of the state after and the state before
        spread[t] = outer[t + 1, :, 1, 1] + outer[t, :, 1, 1] - 2.0 * across[:, 1, 1]
    return out[..., 0], out[..., 1], np.maximum(spread, 0.0)


def _ahead(
    mean: np.ndarray, cov: np.ndarray, step: float, density: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The state [C, 2] and its covariance [C, 2, 2] one interval on."""
    F = np.array([[1.0, step], [0.0, 1.0]])
    noise = np.array([[step**3 / 3.0, step**2 / 2.0], [step**2 / 2.0, step]])
    return mean @ F.T, F @ cov @ F.T + density[:, None, None] * noise
