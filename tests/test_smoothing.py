"""Filters of values over time: against the answer of a dense solve, and on signals with a known shape."""

import numpy as np
import pytest

from hiface.animation.smoothing import OneEuro, rts_smooth

RNG = np.random.default_rng(0)


def dense_answer(times, values, sigma, density):
    """Mean of an integrated Wiener process given noisy places, by one dense solve; it starts anywhere."""
    low, high = np.minimum.outer(times, times), np.maximum.outer(times, times)
    place, speed = sigma**2 * 1e3, density**2 * 10.0 + sigma**2
    K = place + speed * np.outer(times, times) + density**2 * low**2 * (3 * high - low) / 6
    known = np.isfinite(values)
    gain = K[:, known] @ np.linalg.inv(K[np.ix_(known, known)] + sigma**2 * np.eye(known.sum()))
    start = values[known][0]
    return start + gain @ (values[known] - start)


def test_one_round_is_the_best_linear_answer_with_gaps_and_uneven_times():
    times = np.cumsum(RNG.uniform(0.02, 0.06, 40))
    times -= times[0]
    values = np.sin(3 * times) + RNG.normal(0, 0.05, 40)
    values[[7, 8, 9, 30]] = np.nan
    got = rts_smooth(times, values[:, None], np.array([0.05]), np.array([2.0]), rounds=1)[:, 0]
    np.testing.assert_allclose(got, dense_answer(times, values, 0.05, 2.0), atol=1e-5)


def test_noise_at_rest_is_averaged_and_a_blink_keeps_height_and_time():
    times = np.arange(150) / 25
    truth = np.clip(1.0 - np.abs(np.arange(150) - 75) / 4.0, 0, 1)
    values = truth + RNG.normal(0, 0.02, 150)
    got = rts_smooth(times, values[:, None], np.array([0.02]), np.array([2.0]))[:, 0]
    assert int(got.argmax()) == 75 and got[75] > 0.85
    rest = np.abs(np.arange(150) - 75) > 20
    assert (got - truth)[rest].std() < 0.5 * (values - truth)[rest].std()


def test_what_was_never_measured_stays_unknown_and_one_frame_is_enough():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]])
    got = rts_smooth(np.arange(3.0), values, np.array([0.1, 0.1]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(got[:, 0], [1, 2, 3], atol=1e-2)
    assert np.isnan(got[:, 1]).all()
    one = rts_smooth(np.zeros(1), np.array([[4.0]]), np.array([0.1]), np.array([1.0]))
    np.testing.assert_allclose(one, [[4.0]], atol=1e-6)


def test_one_euro_holds_still_follows_and_forgets():
    still = OneEuro(min_cutoff_hz=1.0, beta=0.0)
    noise = [float(still.step(np.array(RNG.normal(0, 1)), k / 60)) for k in range(600)]
    assert np.std(noise[60:]) < 0.3
    lag = {}
    for beta in (0.0, 5.0):
        each = OneEuro(1.0, beta)
        out = [float(each.step(np.array(k / 60 * 2.0), k / 60)) for k in range(120)]
        lag[beta] = 119 / 60 * 2.0 - out[-1]
    assert lag[5.0] < 0.2 * lag[0.0]
    each.reset()
    assert float(each.step(np.array(7.0), 2.1)) == 7.0
    assert float(each.step(np.array(9.0), 2.1)) == 9.0  # a time that stands still starts anew


def test_one_euro_is_the_published_formula():
    """x + a (v - x), a = 1 / (1 + tau / T), tau = 1 / (2 pi f), f = f_min + beta |filtered speed|."""
    each, times = OneEuro(1.5, 0.7, 1.0), np.cumsum(RNG.uniform(0.01, 0.05, 20))
    values = RNG.normal(0, 1, 20)
    x, speed = values[0], 0.0
    assert float(each.step(values[0], times[0])) == x
    for k in range(1, 20):
        T = times[k] - times[k - 1]

        def share(f, T=T):
            return 1.0 / (1.0 + 1.0 / (2 * np.pi * f) / T)

        speed = speed + share(1.0) * ((values[k] - x) / T - speed)
        x = x + share(1.5 + 0.7 * abs(speed)) * (values[k] - x)
        assert float(each.step(values[k], times[k])) == pytest.approx(x)
