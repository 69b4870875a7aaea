"""Kaldi's filter banks, normalized per utterance, for padded batches with lengths."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad
from torchaudio.compliance.kaldi import get_mel_banks

from asr.masks import length_mask
from asr.section import FeaturesSection, Positive

INT16 = 2.0**15  # Kaldi reads samples as 16-bit integers
PREEMPHASIS = 0.97
LOWEST_FREQUENCY = 20.0  # Hz


class KaldiFbank(nn.Module):
    """Waveforms to the logarithms of Kaldi's mel filter banks.

    They equal `torchaudio.compliance.kaldi.fbank` without dither, which takes one recording at a time. There
    is a window of 25 ms every 10 ms, inside the recording. Its mean is removed, then pre-emphasis and
    Povey's window follow. With `mean` and `variance` every bin of an utterance is normalized over its frames,
    as Speech2Text does (Wang et al. 2020).
    """

    class Config(FeaturesSection):
        """Settings of Kaldi's filter banks."""

        kind: Literal["kaldi_fbank"] = "kaldi_fbank"
        n_mels: Positive = Field(80, description="mel bins of a frame")
        mean: bool = Field(True, description="subtract the mean of every bin over the utterance")
        variance: bool = Field(True, description="divide by the standard deviation over the utterance")

        @property
        def level_matters(self) -> bool:
            """Whether features depend on the level: only if the mean of the utterance is not subtracted."""
            return not self.mean

    filters: Tensor
    window: Tensor

    def __init__(self, config: KaldiFbank.Config) -> None:
        super().__init__()
        self.config = config
        self.window_length, self.hop_length = config.sample_rate * 25 // 1000, config.sample_rate * 10 // 1000
        self.n_fft = 1 << (self.window_length - 1).bit_length()
        filters, _ = get_mel_banks(
            config.n_mels, self.n_fft, config.sample_rate, LOWEST_FREQUENCY, 0.0, 100.0, -500.0, 1.0
        )  # (n_mels, n_fft / 2)
        self.register_buffer("filters", pad(filters, (0, 1)).T.contiguous(), persistent=False)
        window = torch.hann_window(self.window_length, periodic=False).pow(0.85)
        self.register_buffer("window", window, persistent=False)

    @property
    def n_features(self) -> int:
        """Mel bins of a frame."""
        return self.config.n_mels

    @property
    def frame_seconds(self) -> float:
        """The time from one frame to the next, in seconds."""
        return self.hop_length / self.config.sample_rate

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with so many samples: (B,) -> (B,). At least one."""
        return ((samples - self.window_length) // self.hop_length + 1).clamp_min(1)

    def fit(self, waveforms: Tensor, lengths: Tensor) -> None:
        """These features have no statistics."""

    def finish_fit(self) -> None:
        """These features have no statistics."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, samples), lengths (B,) in samples -> features (B, T, n_mels), lengths (B,) in frames.

        Frames after a row's length are zero.
        """
        frames = self.frames(lengths)
        # Half precision loses the quiet bins: features are float32 under autocast too.
        with torch.autocast(waveforms.device.type, enabled=False):
            features = self._log_energies(waveforms.float())[:, : int(frames.max())]
            valid = length_mask(frames, features.size(1)).unsqueeze(2)  # (B, T, 1)
            return self._normalized(features, valid, frames[:, None, None]), frames

    def _log_energies(self, waveforms: Tensor) -> Tensor:
        """(B, samples) -> natural logarithms (B, T, n_mels)."""
        waveforms = pad(waveforms * INT16, (0, max(0, self.window_length - waveforms.size(1))))
        windows = waveforms.unfold(1, self.window_length, self.hop_length)  # (B, T, window_length)
        windows = windows - windows.mean(2, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], 2)  # the first sample comes after itself
        windows = (windows - PREEMPHASIS * before) * self.window
        spectrum = torch.fft.rfft(windows, n=self.n_fft).abs().square()  # (B, T, n_fft / 2 + 1)
        return (spectrum @ self.filters).clamp_min(torch.finfo(torch.float32).eps).log()

    def _normalized(self, features: Tensor, valid: Tensor, count: Tensor) -> Tensor:
        """Features (B, T, n_mels), valid (B, T, 1), count (B, 1, 1) of the valid frames."""
        mean = (features * valid).sum(1, keepdim=True) / count
        centered = (features - mean) * valid
        result = centered if self.config.mean else features * valid
        if self.config.variance:
            deviation = (centered.square().sum(1, keepdim=True) / count).sqrt()
            # A bin that never changes becomes 0. The original divides zero by zero.
            result = result / deviation.clamp_min(1e-10)
        return result
