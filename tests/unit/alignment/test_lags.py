"""Scores over lags, against NumPy's own correlation."""

from __future__ import annotations

import numpy as np
import pytest

from wav2lip_npu.alignment.lags import LAGS, at_lag, best_offset, correlations


def test_the_sound_that_belongs_to_a_frame() -> None:
    sound = np.arange(40.0)[:, None]
    for lag in LAGS.tolist():
        moved = at_lag(sound, 30, lag)
        assert moved.shape == (30, 1)
        for frame, heard in enumerate(moved[:, 0]):
            place = frame + lag
            assert (heard == place) if 0 <= place < 40 else np.isnan(heard)


def test_correlations_are_numpys() -> None:
    random = np.random.default_rng(0)
    sound, faces = random.normal(size=(70, 2)), random.normal(size=(60, 2))
    faces[[5, 6, 40]] = np.nan
    found = correlations(sound, faces)
    for number, lag in enumerate(LAGS):
        frames = [f for f in range(60) if 0 <= f + lag < 70 and np.isfinite(faces[f, 0])]
        for column in range(2):
            heard = [sound[f + lag, column] for f in frames]
            r = np.corrcoef(heard, faces[frames, column])[0, 1]
            expected = np.arctanh(r) * np.sqrt(len(frames) - 3)
            assert found[number, column] == pytest.approx(expected)


def test_sound_that_comes_late_is_found_at_its_lag() -> None:
    random = np.random.default_rng(1)
    faces = random.normal(size=(80, 1))
    for late in (-15, -4, 0, 7, 15):
        sound = np.full((80, 1), 0.0)
        for frame in range(80):
            if 0 <= frame + late < 80:
                sound[frame + late] = faces[frame]
        assert round(best_offset(correlations(sound, faces)[:, 0])) == late


@pytest.mark.parametrize(
    ("sound", "faces"),
    [
        (np.zeros((80, 1)), np.ones((80, 1))),  # nothing changes
        (np.zeros((0, 1)), np.ones((80, 1))),
        (np.ones((80, 1)), np.full((80, 1), np.nan)),
        (np.arange(9.0)[:, None], np.arange(9.0)[:, None]),  # too little
    ],
)
def test_what_cannot_be_compared_is_zero(sound: np.ndarray, faces: np.ndarray) -> None:
    assert (correlations(sound, faces) == 0).all()


def test_a_fraction_of_a_frame() -> None:
    """The top of a parabola, whose values at whole lags are known."""
    for top in (-3.4, 0.0, 2.25, 14.9):
        offset = best_offset(5 - (LAGS - top) ** 2)
        assert offset == pytest.approx(top if top < 14.5 else 15.0)
    assert best_offset(np.zeros(31)) == -15
