"""Offsets by the mouth, on data sets whose offsets are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import TALK_FRAMES, make_talk

from wav2lip_npu.alignment import mouth as module
from wav2lip_npu.alignment.lags import best_offset
from wav2lip_npu.alignment.mouth import Talk, mouth_scores, voice_features


def lags_of(scores: np.ndarray) -> np.ndarray:
    return np.array([round(best_offset(one)) for one in scores])


def test_the_offsets_of_a_data_set_are_found() -> None:
    late = np.random.default_rng(0).integers(-6, 7, 40)
    scores, confidence = mouth_scores([make_talk(n, late=int(by)) for n, by in enumerate(late)])
    assert np.mean(lags_of(scores) == late) > 0.9
    assert np.median(confidence) > 1


def test_an_offset_of_all_clips_is_found() -> None:
    scores, _ = mouth_scores([make_talk(n, late=5) for n in range(30)])
    assert np.mean(lags_of(scores) == 5) > 0.9


def test_the_sound_of_another_clip_is_unlikely() -> None:
    talks = [make_talk(n, voice_of=n + 100 if n < 8 else None) for n in range(40)]
    _, confidence = mouth_scores(talks)
    assert confidence[8:].min() > confidence[:8].max()


def test_learning_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    late = np.random.default_rng(1).integers(-6, 7, 40)
    talks = [make_talk(n, late=int(by)) for n, by in enumerate(late)]
    learned = np.mean(lags_of(mouth_scores(talks)[0]) == late)
    monkeypatch.setattr(module, "ROUNDS", 0)
    assert learned > np.mean(lags_of(mouth_scores(talks)[0]) == late)


def test_clips_without_face_or_voice_harm_no_other() -> None:
    good = [make_talk(n, late=2) for n in range(30)]
    nobody = replace(good[0], mouth=np.full((TALK_FRAMES, 3), np.nan))
    silent = replace(good[1], voice=np.full((TALK_FRAMES, 16), -4.0))
    empty = Talk(mouth=np.zeros((1, 3)), voice=np.zeros((0, 16)))
    still = replace(good[2], mouth=np.full((TALK_FRAMES, 3), 0.1))
    shown = np.arange(TALK_FRAMES)[:, None] % 9 > 0
    gaps = replace(good[3], mouth=np.where(shown, good[3].mouth, np.nan))
    scores, confidence = mouth_scores([*good, nobody, silent, empty, still, gaps])
    assert np.isnan(scores).all(axis=1).tolist() == [False] * 30 + [True] * 4 + [False]
    assert np.isfinite(confidence).all()
    assert np.mean(lags_of(scores[:30]) == 2) > 0.9
    assert round(best_offset(scores[-1])) == 2
    assert confidence[30:34].max() < np.median(confidence[:30])


def test_few_clips_are_measured_and_never_certain() -> None:
    scores, confidence = mouth_scores([make_talk(n, late=3) for n in range(5)])
    assert scores.shape == (5, 31)
    assert (confidence == 0).all()
    assert mouth_scores([make_talk(0)])[0].shape == (1, 31)


def test_a_large_data_set_is_learned_from_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LEARNED_CLIPS", 8)
    scores, _ = mouth_scores([make_talk(n, late=-3) for n in range(40)])
    assert np.mean(lags_of(scores) == -3) > 0.8


def test_the_voice_of_each_frame() -> None:
    """Against a loop over frames: 3.2 mel rows each, so three or four."""
    mel = np.random.default_rng(0).normal(size=(80, 101)).astype(np.float32)
    features = voice_features(mel)
    assert features.shape == (31, 16)  # 101 rows are 31.56 frames
    for frame in range(31):
        first, last = 80 * frame // 25, 80 * (frame + 1) // 25
        rows = slice(first, last if frame < 30 else 101)
        for group in range(8):
            bands = mel[10 * group : 10 * group + 10].mean(axis=0, dtype=np.float64)
            assert features[frame, group] == pytest.approx(bands[rows].mean(), abs=1e-5)
            risen = [max(bands[r] - bands[r - 1], 0) if r else 0 for r in range(101)][rows]
            assert features[frame, 8 + group] == pytest.approx(sum(risen), abs=1e-5)
    assert voice_features(mel[:, :2]).shape == (0, 16)
