"""Each metric against another computation, or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import tone
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional as F

from face_detection.landmarks import EYE_CORNERS, INNER_LIPS, OUTER_LIPS
from wav2lip_npu.alignment.lags import LAGS
from wav2lip_npu.evaluation import metrics


def test_similarity_of_faces_and_their_lower_halves() -> None:
    random = np.random.default_rng(0)
    one = random.integers(0, 256, (41, 30, 3), dtype=np.uint8)
    other = np.clip(one + random.normal(0, 20, one.shape), 0, 255).astype(np.uint8)
    found = metrics.face_similarity(one, other)
    for suffix, part in (("", slice(None)), ("_lower", slice(20, None))):
        a, b = one[part] / 255, other[part] / 255
        psnr = peak_signal_noise_ratio(a, b, data_range=1.0)
        ssim = structural_similarity(a, b, channel_axis=-1, data_range=1.0)
        assert found[f"psnr{suffix}"] == pytest.approx(psnr, abs=1e-4)
        assert found[f"ssim{suffix}"] == pytest.approx(ssim, abs=1e-5)
    found = metrics.face_similarity(one, one)
    assert found["psnr"] == found["psnr_lower"] == 100 and found["ssim"] == pytest.approx(1)


def face_points(frames: int, eyes: float) -> np.ndarray:
    points = np.random.default_rng(1).normal(size=(frames, 468, 3)).astype(np.float32)
    points[:, EYE_CORNERS[0]] = (0, 0, 7)
    points[:, EYE_CORNERS[1]] = (0.6 * eyes, 0.8 * eyes, -7)  # depth does not count
    return points


def test_the_points_of_the_lips_are_forty() -> None:
    assert len({*OUTER_LIPS, *INNER_LIPS}) == 40


def test_landmark_distance_of_a_known_displacement() -> None:
    source = face_points(frames=4, eyes=50)
    generated = source.copy()
    generated[..., :2] += (30, -4)  # the whole face elsewhere
    assert metrics.landmark_distance(generated, source) == pytest.approx(0, abs=1e-5)
    # The upper half of the points moves by 5 pixels up: by 2.5 against the mean, as do the others.
    generated[:, [*OUTER_LIPS], :2] += (3, 4)
    assert metrics.landmark_distance(generated, source) == pytest.approx(2.5 / 50, rel=1e-5)
    assert metrics.landmark_distance(2 * generated, 2 * source) == pytest.approx(0.05, rel=1e-5)


def test_landmark_distance_is_the_mean_over_frames() -> None:
    source = face_points(frames=2, eyes=10)
    generated = source.copy()
    generated[1, OUTER_LIPS[3], 0] += 40  # in one of two frames one of forty points
    moved = (40 * 39 / 40 + 39 * 40 / 40) / 40
    assert metrics.landmark_distance(generated, source) == pytest.approx(moved / 2 / 10, rel=1e-5)


def test_correlation() -> None:
    random = np.random.default_rng(2)
    one, other = random.normal(size=(2, 40))
    one[[3, 17]], other[5] = np.nan, np.nan
    known = [n for n in range(30) if n not in (3, 5, 17)]
    expected = scipy.stats.pearsonr(one[known], other[known])[0]
    assert metrics.correlation(one, other[:30]) == pytest.approx(expected)
    assert metrics.correlation(one, one) == pytest.approx(1)
    told = metrics.correlation(one[:15], one[:15])
    assert told == "14 frames to compare, 16 are needed"
    assert metrics.correlation(np.full(40, 0.2), other) == (
        "the mouth does not move, or there is no voice"
    )


def test_loudness_of_the_voice_is_heard_in_its_frame() -> None:
    samples = np.zeros(16_000, np.float32)
    samples[6400:9600] = tone(1.0, hertz=500)[:3200] + 0.1  # frames 10 to 14
    samples[6400:9600] += 0.3 * np.sin(2 * np.pi * 500 * np.arange(3200) / 16_000)
    loud = metrics.voice_loudness(samples)
    assert abs(len(loud) - 25) <= 1
    assert loud[11:14].min() > max(loud[:8].max(), loud[17:].max()) + 0.5


def test_the_loss_is_that_of_torch() -> None:
    random = np.random.default_rng(3)
    likely = random.uniform(0.01, 1, (20, 31))
    likely[4, 15], likely[5, 15], likely[6, 15] = 0.0, 1.0 + 1e-9, np.nan
    own = torch.from_numpy(np.delete(likely[:, 15], 6)).clamp(max=1)
    expected = F.binary_cross_entropy(own, torch.ones_like(own))
    assert metrics.expert_loss(likely) == pytest.approx(float(expected))


@pytest.mark.parametrize("late", [-7, 0, 12])
def test_the_offset_is_the_likeliest_lag(late: int) -> None:
    likely = np.random.default_rng(4).uniform(0.2, 0.3, (60, 31))
    likely[:, late == LAGS] += 0.5
    likely[:10, 0], likely[50:, -1] = np.nan, np.nan
    found = metrics.expert_offset(likely)
    means = np.nanmean(likely, axis=0)
    assert found is not None
    assert found[0] == pytest.approx(late, abs=0.5)
    assert found[1] == pytest.approx(means.max() - np.median(means))


def test_too_little_has_no_offset() -> None:
    likely = np.full((30, 31), 0.5)
    likely[:15, 0] = np.nan
    assert metrics.expert_offset(likely) is None


def test_one_sound_is_known_in_another_encoding() -> None:
    random = np.random.default_rng(5)
    level = np.repeat(random.uniform(0, 1, (2, 25)) ** 2, 640, axis=1)
    one, other = (0.3 * level * random.normal(size=level.shape)).astype(np.float32)
    noisy = one + 0.001 * random.normal(size=one.shape).astype(np.float32)
    assert metrics.is_same_sound(one, 0.7 * noisy[:12_000])
    assert not metrics.is_same_sound(one, other)
    assert not metrics.is_same_sound(one, one[6400:])
    assert not metrics.is_same_sound(one, one[:1000])  # too little to tell
    silence = np.zeros(8000, np.float32)
    assert metrics.is_same_sound(silence, silence)
    assert not metrics.is_same_sound(silence, one)


def test_the_interval_is_students() -> None:
    values = [3.0, 4.5, 2.2, 3.9, 5.1]
    found = metrics.summarize(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    spread = 2.776445 * np.std(values, ddof=1) / math.sqrt(5)  # of a table, 4 degrees of freedom
    assert found.high - found.mean == pytest.approx(spread, rel=1e-6)
    assert (found.mean, found.n) == (pytest.approx(3.74), 5)
    assert metrics.summarize([2.0]) == metrics.Summary(mean=2.0, low=None, high=None, n=1)
    assert metrics.summarize([]) is None
