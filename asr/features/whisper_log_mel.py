"""The log-mel features of Whisper (Radford et al. 2022), for padded batches with lengths."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.errors import AsrError
from asr.masks import length_mask
from asr.section import FeaturesSection, Positive

N_FFT, HOP_LENGTH = 400, 160  # 25 ms and 10 ms
RANGE = 8.0  # powers of ten below the loudest bin of a recording; quieter bins are raised to it


class WhisperLogMel(nn.Module):
    """Waveforms to Whisper's log-mel features.

    The logarithm of the energies has the base 10. Values more than 8 below the maximum of the recording are
    raised to that limit. Then all values are shifted and scaled. There are no statistics of the training
    audio. Frame i is centered on sample 160 i, and the recording is mirrored at its first sample.
    """

    class Config(FeaturesSection):
        """Settings of Whisper's features."""

        kind: Literal["whisper_log_mel"] = "whisper_log_mel"
        n_mels: Positive = Field(80, description="mel bins of a frame: 80, or 128 in large-v3")
        window_seconds: float | None = Field(
            30.0,
            gt=0,
            description="every recording is padded with silence to this length, as in Whisper's training; "
            "null: frames end with the recording, which is faster",
        )

        @field_validator("sample_rate")
        @classmethod
        def _is_that_of_whisper(cls, rate: int) -> int:
            if rate != 16000:
                raise ValueError(f"{rate} Hz; these features are defined at 16000 Hz only")
            return rate

        @property
        def level_matters(self) -> bool:
            """Whisper was trained on audio of all levels, so recordings keep their own."""
            return False

    def __init__(self, config: WhisperLogMel.Config) -> None:
        super().__init__()
        self.config = config
        filters = slaney_filters(config.n_mels, N_FFT, config.sample_rate)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    filters: Tensor
    window: Tensor

    @property
    def n_features(self) -> int:
        """Mel bins of a frame."""
        return self.config.n_mels

    @property
    def frame_seconds(self) -> float:
        """The time from one frame to the next, in seconds."""
        return HOP_LENGTH / self.config.sample_rate

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with so many samples: (B,) -> (B,).

        With a window, it is always the same number.
        """
        if self.max_samples is not None:
            return torch.full_like(samples, self.max_samples // HOP_LENGTH)
        return ((samples + HOP_LENGTH - 1) // HOP_LENGTH).clamp_min(1)

    @property
    def max_samples(self) -> int | None:
        """Number of samples of the window; None without one."""
        seconds = self.config.window_seconds
        return None if seconds is None else round(seconds * self.config.sample_rate)

    def fit(self, waveforms: Tensor, lengths: Tensor) -> None:
        """These features have no statistics."""

    def finish_fit(self) -> None:
        """These features have no statistics."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, samples), lengths (B,) in samples -> features (B, T, n_mels), lengths (B,) in frames.

        Frames after a row's length are zero. Raises AsrError for a recording that is longer than the window.
        """
        frames = self.frames(lengths)
        # Half precision loses the quiet bins: features are float32 under autocast too.
        with torch.autocast(waveforms.device.type, enabled=False):
            log_mel = self._log_mel(self._padded(waveforms.float(), frames))[:, : int(frames.max())]
            valid = length_mask(frames, log_mel.size(1)).unsqueeze(2)
            loudest = log_mel.masked_fill(~valid, -torch.inf).amax((1, 2), keepdim=True)
            features = (torch.maximum(log_mel, loudest - RANGE) + 4.0) / 4.0
            return features * valid, frames

    def _padded(self, waveforms: Tensor, frames: Tensor) -> Tensor:
        """Waveforms (B, samples) with the padding that the first and the last window need."""
        margin, window = N_FFT // 2, self.max_samples
        if window is None:
            after = max(0, int(frames.max()) * HOP_LENGTH + margin - waveforms.size(1))
            # Zeros follow the end, as they follow shorter rows of a batch.
            return pad(pad(waveforms, (0, after)), (margin, 0), mode="reflect")
        if waveforms.size(1) > window:
            seconds = waveforms.size(1) / self.config.sample_rate
            raise AsrError(
                f"a recording of {seconds:.1f} s is longer than the window of "
                f"{self.config.window_seconds:g} s; cut it into shorter pieces"
            )
        waveforms = pad(waveforms, (0, window - waveforms.size(1)))
        return pad(waveforms, (margin, margin), mode="reflect")

    def _log_mel(self, padded: Tensor) -> Tensor:
        """Padded waveforms (B, samples) -> logarithms of base 10 (B, T, n_mels)."""
        spectrum = torch.stft(
            padded, N_FFT, HOP_LENGTH, window=self.window, center=False, return_complex=True
        )
        energies = spectrum.abs().square().transpose(1, 2) @ self.filters  # (B, T, n_mels)
        return energies.clamp_min(1e-10).log10()


def slaney_filters(n_mels: int, n_fft: int, sample_rate: int) -> Tensor:
    """Triangular mel filters of equal area up to half the sample rate (n_fft / 2 + 1, n_mels).

    Slaney's scale is linear up to 1000 Hz, then logarithmic. The filters are computed in float64. torchaudio
    computes them in float32, with which features of 128 bins differ by up to 1e-4.
    """
    top = 15 + 27 * math.log(sample_rate / 2000, 6.4)
    mels = torch.linspace(0, top, n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # (n_mels + 2,) in Hz
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64).unsqueeze(1)
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp_min(0)  # (n_fft / 2 + 1, n_mels)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()
