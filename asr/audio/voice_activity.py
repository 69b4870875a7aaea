"""Voice activity: where a recording has speech.

A small network of dilated convolutions over time reads log-mel energies minus their mean over two seconds, so
the level of a recording has little influence. Its weights (`voice_activity.safetensors`) come from
`recipes/voice_activity/train.py`; `benchmarks/voice_activity.py` compares it with other detectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

WEIGHTS = Path(__file__).with_name("voice_activity.safetensors")
FRAME = 0.02  # seconds: one probability for each
WINDOW = 0.032  # seconds of audio for each spectrum
BANDS, LOWEST, HIGHEST = 24, 100.0, 3800.0  # Hz: inside the telephone band, for all sample rates
FLOOR = 1e-10  # mean square that counts as digital silence
MEAN = 101  # frames over which the mean is taken
CHANNELS, DILATIONS = 32, (1, 2, 4, 8, 16, 32)
SMOOTH = 5  # frames over which probabilities are averaged
THRESHOLD = 0.4  # average probability above which there is speech
SURE, NEAR = 0.85, 1.0  # speech must reach this average probability within so many seconds
MARGIN = 0.2  # seconds around speech that count as speech
CHUNK = 1500  # frames that are computed at once
CONTEXT = 176  # frames around a chunk: 63 (convolutions), 50 (mean), 2 + 50 + 10 (is_speech), 1


class VoiceActivityNetwork(nn.Module):
    """features (B, BANDS, T) -> logits (B, T) of speech."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [BANDS, *[CHANNELS] * len(DILATIONS)]
        self.layers = nn.ModuleList(
            nn.Conv1d(i, o, 3, dilation=d, padding=d)
            for i, o, d in zip(sizes, sizes[1:], DILATIONS, strict=False)
        )
        self.out = nn.Conv1d(CHANNELS, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        states = features
        for layer in self.layers:
            change = layer(states).relu()
            states = states + change if states.shape == change.shape else change
        return self.out(states).squeeze(1)


def voice_features(samples: np.ndarray, sample_rate: int) -> Tensor:
    """Log-mel energies of mono samples (samples,), relative to their local mean: (1, BANDS, frames).

    Frame i is centered on the middle of its 20 ms. The last frame may be incomplete.
    """
    return relative(log_mel(samples, sample_rate))


def log_mel(samples: np.ndarray, sample_rate: int) -> Tensor:
    """Natural log of the mean square in each mel band: (1, BANDS, frames)."""
    hop, size = max(1, int(FRAME * sample_rate)), round(WINDOW * sample_rate)
    frames = -(-len(samples) // hop)
    before = (size - hop) // 2
    padded = np.pad(samples, (before, frames * hop + size - len(samples)))
    view = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:frames]  # (frames, size)
    window = torch.hann_window(size)
    spectrum = torch.fft.rfft(torch.from_numpy(view.astype(np.float32)) * window)
    power = spectrum.abs().square() / window.square().sum() / size  # (frames, bins)
    energy = power @ _filters(sample_rate, size)  # (frames, BANDS)
    return (energy + FLOOR).log().T.unsqueeze(0)


def relative(energy: Tensor) -> Tensor:
    """Log energies (B, BANDS, T) minus the mean of all bands in the second before and after, scaled."""
    mean = avg_pool1d(
        energy.mean(1, keepdim=True), MEAN, stride=1, padding=MEAN // 2, count_include_pad=False
    )
    return (energy - mean) / 4


@cache
def _filters(sample_rate: int, size: int) -> Tensor:
    """Triangular filters on the mel scale (O'Shaughnessy 1987): (size // 2 + 1, BANDS)."""
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    mel = np.linspace(lowest, highest, BANDS + 2)
    edges = torch.from_numpy(700 * (10 ** (mel / 2595) - 1))
    frequencies = torch.arange(size // 2 + 1).unsqueeze(1) * sample_rate / size
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


@cache
def _network() -> VoiceActivityNetwork:
    network = VoiceActivityNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return network.eval()


def speech_probabilities(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """The probability of speech in each frame of 20 ms of mono samples (samples,): (frames,)."""
    if not len(samples):
        return np.zeros(0, np.float32)
    with torch.inference_mode():
        return _network()(voice_features(samples, sample_rate))[0].sigmoid().numpy()


def with_speech(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The samples of a recording given in blocks (samples,), and for each frame whether it has speech.

    Yields (samples, speech): samples of whole frames of 20 ms, all but the last time, and bool (frames,).
    Frames near speech count as speech too. The result does not depend on the sizes of the blocks: each chunk
    of 30 s is computed together with 3.5 s on both sides, and a frame depends on no audio outside of them.
    """
    hop = max(1, int(FRAME * sample_rate))
    context, chunk = CONTEXT * hop, CHUNK * hop
    held, before = np.zeros(0, np.float32), 0  # `before`: samples of held that were yielded already
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) - before >= chunk + context:
            speech = is_speech(speech_probabilities(held[: before + chunk + context], sample_rate))
            first = before // hop
            yield held[before : before + chunk], speech[first : first + CHUNK]
            dropped = before + chunk - context
            held, before = held[dropped:], context
    if len(held) > before:
        speech = is_speech(speech_probabilities(held, sample_rate))
        yield held[before:], speech[before // hop :]


def is_speech(probabilities: np.ndarray) -> np.ndarray:
    """Whether each frame (frames,) has speech or is near it: bool (frames,).

    A frame has speech if the mean probability of 0.1 s reaches THRESHOLD there, and reaches SURE within NEAR
    seconds. Music and other modulated sound sometimes reaches THRESHOLD, but rarely SURE. MARGIN is added
    around speech.
    """
    if not len(probabilities):
        return np.zeros(0, bool)
    window = np.ones(min(SMOOTH, len(probabilities)))
    mean = np.convolve(probabilities, window, "same") / np.convolve(
        np.ones_like(probabilities), window, "same"
    )
    speech = (mean >= THRESHOLD) & _widened(mean >= SURE, NEAR)
    return _widened(speech, MARGIN)


def _widened(frames: np.ndarray, seconds: float) -> np.ndarray:
    """Whether each frame (frames,) is true or is within so many seconds of a true frame."""
    near = round(seconds / FRAME)
    return np.convolve(np.pad(frames, near), np.ones(2 * near + 1), "valid") > 0
