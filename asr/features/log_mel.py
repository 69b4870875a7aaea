"""Log-mel features for padded batches with lengths, on the model's device."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torchaudio
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.features.normalization import Statistics
from asr.masks import length_mask
from asr.section import FeaturesSection, Positive


class LogMel(nn.Module):
    """Waveforms to normalized log-mel features.

    The mel filters are Slaney's with area normalization, librosa's default, and the energies equal
    `librosa.feature.melspectrogram(..., pad_mode="constant")`. Frame i is centered on sample i * hop_length.
    There are zeros before and after the recording. A batch is padded with zeros too, so padding changes no
    frame. `mean` and `std` (n_mels,) are the global statistics of the training audio.
    """

    class Config(FeaturesSection):
        """Settings of log-mel features. Lengths are in milliseconds."""

        kind: Literal["log_mel"] = "log_mel"
        n_mels: Positive = Field(80, description="mel bins of a frame")
        n_fft: Positive = Field(
            512, description="samples of the Fourier transform; at least the samples of window_ms"
        )
        window_ms: float = Field(25.0, gt=0, le=1000, description="length of the window under each frame")
        hop_ms: float = Field(10.0, gt=0, le=1000, description="time from one frame to the next")
        log_floor: float = Field(1e-8, gt=0, description="mel energies below this are raised to it")
        mean: Literal["global", "utterance"] = Field(
            "global",
            description="which mean is subtracted; utterance: the mean of the utterance itself, "
            "so the level has no effect",
        )

        @property
        def level_matters(self) -> bool:
            """Whether features depend on the level: only if the mean of the utterance is not subtracted."""
            return self.mean == "global"

        @property
        def hop_length(self) -> int:
            """Samples from one frame to the next."""
            return round(self.sample_rate * self.hop_ms / 1000)

        @property
        def win_length(self) -> int:
            """Samples under one window."""
            return round(self.sample_rate * self.window_ms / 1000)

        @model_validator(mode="after")
        def _window_fits(self) -> LogMel.Config:
            if self.win_length > self.n_fft:
                raise ValueError(
                    f"window_ms gives {self.win_length} samples, more than n_fft {self.n_fft}; raise n_fft"
                )
            if self.hop_length < 1:
                raise ValueError(f"hop_ms {self.hop_ms} is less than a sample; 10 is usual")
            return self

    mean: Tensor
    std: Tensor

    def __init__(self, config: LogMel.Config) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            power=2.0,
            center=True,
            pad_mode="constant",
            norm="slaney",
            mel_scale="slaney",
        )
        # The configuration determines window and filters, so they are not stored as weights.
        for module in self.mel.modules():
            module._non_persistent_buffers_set.update(module._buffers)
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("std", torch.ones(config.n_mels))
        self._statistics = Statistics(config.n_mels)

    @property
    def n_features(self) -> int:
        """Mel bins of a frame."""
        return self.config.n_mels

    @property
    def frame_seconds(self) -> float:
        """The time from one frame to the next, in seconds."""
        return self.config.hop_length / self.config.sample_rate

    @property
    def frequencies(self) -> Tensor:
        """Centers of the filters (n_mels,) in Hz: linear to 1000 Hz, then logarithmic (Slaney's scale)."""
        top = 15 + 27 * math.log(self.config.sample_rate / 2 / 1000, 6.4)  # above 1000 Hz at usual rates
        if self.config.sample_rate <= 2000:
            top = self.config.sample_rate / 2 * 3 / 200
        mels = torch.linspace(0, top, self.config.n_mels + 2, device=self.mean.device)[1:-1]
        return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with so many samples: (B,) -> (B,)."""
        return samples // self.config.hop_length + 1

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """(B, samples) in [-1, 1] -> natural log of mel energies (B, T, n_mels), not normalized."""
        # Half precision loses the quiet bins: features are float32 under autocast too.
        with torch.autocast(waveforms.device.type, enabled=False):
            energies = self.mel(waveforms.float())  # (B, n_mels, T)
            return energies.clamp_min(self.config.log_floor).log().transpose(1, 2)  # (B, T, n_mels)

    def fit(self, waveforms: Tensor, lengths: Tensor) -> None:
        """Count a batch of training audio in the statistics."""
        features, frames = self._centered(waveforms, lengths)
        self._statistics.add(features, frames)

    def finish_fit(self) -> None:
        """Use the mean and standard deviation of what was counted."""
        mean, std = self._statistics.result()
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, samples), lengths (B,) in samples -> features (B, T, n_mels), lengths (B,) in frames.

        Frames after a row's length are zero.
        """
        features, frames = self._centered(waveforms, lengths)
        features = (features - self.mean) / self.std
        return features * length_mask(frames, features.size(1)).unsqueeze(-1), frames

    def _centered(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel energies, less the mean of each utterance if the configuration says so, and lengths."""
        features, frames = self.log_mel(waveforms), self.frames(lengths)
        if self.config.mean == "utterance":
            valid = length_mask(frames, features.size(1)).unsqueeze(-1)
            features = features - (features * valid).sum(1, keepdim=True) / frames[:, None, None]
        return features, frames
