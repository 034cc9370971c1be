"""Sound in blocks gives what the same sound gives in one piece."""

import librosa
import numpy as np
import pytest
from helpers import rows_heard, tone

from wav2lip_npu import mel
from wav2lip_npu.mel import iter_mel_chunks, melspectrogram, stream_mel


def speech(samples: int) -> np.ndarray:
    noise = 0.05 * np.random.default_rng(0).standard_normal(samples)
    return (tone(samples / 16000 + 0.001)[:samples] + noise).astype(np.float32)


def blocks_of(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(samples, np.cumsum(sizes)[np.cumsum(sizes) < len(samples)])


def reference(samples: np.ndarray) -> np.ndarray:
    """The formula with librosa's own centred, mirrored STFT."""
    sharp = np.append(samples[0], samples[1:] - 0.97 * samples[:-1].astype(np.float64))
    stft = librosa.stft(sharp, n_fft=800, hop_length=200, win_length=800, pad_mode="reflect")
    filters = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level = 20 * np.log10(np.maximum(1e-5, filters @ np.abs(stft))) - 20
    return np.clip(8 * (level + 100) / 100 - 4, -4, 4)


@pytest.mark.parametrize("samples", [801, 999, 1000, 1001, 1200, 7777, 16000])
@pytest.mark.parametrize("sizes", [[10**6], [1] * 1500, [400, 401, 0, 3], [1024] * 20])
def test_mel_in_blocks(samples: int, sizes: list[int]) -> None:
    sound = speech(samples)
    pieces = list(stream_mel(blocks_of(sound, sizes)))
    mel = np.concatenate(pieces, axis=1)
    assert mel.shape == (80, 1 + samples // 200)
    np.testing.assert_allclose(mel, reference(sound), atol=2e-5)
    np.testing.assert_allclose(mel, melspectrogram(sound), atol=2e-6)


@pytest.mark.parametrize("samples", [0, 1, 300, 799, 800])
def test_sound_of_50_ms_or_less(samples: int) -> None:
    sound = speech(samples)
    pieces = [*stream_mel([sound]), *stream_mel(blocks_of(sound, [7] * 200))]
    mel = np.concatenate(pieces, axis=1)
    assert mel.shape == (80, 2 * (1 + samples // 200))
    assert np.isfinite(mel).all()


def test_mel_comes_with_the_sound() -> None:
    """25 ms of sound after a row's own time are enough."""
    rows = 0
    for block in range(1, 41):
        given = stream_mel(iter([speech(16000)[: 400 * block]]))
        rows = next(given).shape[1] if block > 2 else 0
        assert rows >= (0 if block <= 2 else 1 + (400 * block - 400) // 200)


def test_filters_are_librosas() -> None:
    expected = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    np.testing.assert_allclose(mel._mel_filters(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("fps", [12.5, 25.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("samples", [3000, 3200, 16000, 33333])
def test_windows_are_those_of_the_whole(fps: float, samples: int) -> None:
    sound = speech(samples)
    mel = melspectrogram(sound)
    rows = rows_heard(mel.shape[1], fps)
    windows = list(iter_mel_chunks(blocks_of(sound, [1600] * 50), fps))
    assert len(windows) == max(len(rows), round(samples / 16000 * fps))
    for number, window in enumerate(windows):
        row = rows[min(number, len(rows) - 1)]
        np.testing.assert_allclose(window, mel[:, row : row + 16], atol=2e-6)


def test_too_little_sound() -> None:
    with pytest.raises(ValueError, match=r"0\.18 s of sound, at least 0\.2 s are needed"):
        list(iter_mel_chunks([speech(2900)], 25))


@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e4])
def test_silence_and_noise_of_any_level_are_finite(level: float) -> None:
    for window in iter_mel_chunks([np.full(8000, level, np.float32)], 25):
        assert np.isfinite(window).all() and np.abs(window).max() <= 4
