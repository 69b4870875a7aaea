"""Log-mel features and SpecAugment, for padded batches with lengths, on whatever device the model is on."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from asr.config import FeatureConfig, SpecAugmentConfig
from asr.masks import length_mask

# A mel bin that hardly varies in training (the empty upper half of telephone speech, say) is not to be blown
# up where it does vary later: one unit of natural log is well below the spread of any bin with speech in it.
MIN_STD = 1.0


class LogMel(nn.Module):
    """Waveforms to normalized log-mel features.

    The mel filters are Slaney's with area normalization, librosa's default, and the energies equal
    `librosa.feature.melspectrogram(..., pad_mode="constant")`. Frame i is centred on sample i * hop_length;
    beyond both ends there are zeros, which is also what pads a batch: so padding changes no frame.
    `mean` and `std` (n_mels,) hold the global statistics estimated in training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: FeatureConfig) -> None:
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
        # Window and filters follow from the configuration: they are not weights to be stored.
        for module in self.mel.modules():
            module._non_persistent_buffers_set.update(module._buffers)
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("std", torch.ones(config.n_mels))

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with so many samples: (B,) -> (B,)."""
        return samples // self.config.hop_length + 1

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """(B, samples) in [-1, 1] -> natural log of mel energies (B, T, n_mels), not normalized."""
        # Half precision loses the quiet bins: features are float32 under autocast too.
        with torch.autocast(waveforms.device.type, enabled=False):
            energies = self.mel(waveforms.float())  # (B, n_mels, T)
            return energies.clamp_min(self.config.log_floor).log().transpose(1, 2)  # (B, T, n_mels)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, samples), lengths (B,) in samples -> features (B, T, n_mels), lengths (B,) in frames.

        Frames beyond a row's length are zero.
        """
        features = (self.log_mel(waveforms) - self.mean) / self.std
        frames = self.frames(lengths)
        return features * length_mask(frames, features.size(1)).unsqueeze(-1), frames


class Statistics:
    """Running mean and variance of every mel bin over the valid frames of many batches, in float64."""

    def __init__(self, n_mels: int) -> None:
        self.count = 0
        self.total = torch.zeros(n_mels, dtype=torch.float64)
        self.square = torch.zeros(n_mels, dtype=torch.float64)

    def add(self, features: Tensor, lengths: Tensor) -> None:
        """Count in features (B, T, n_mels), not normalized, with lengths (B,) in frames."""
        valid = features[length_mask(lengths, features.size(1))].double().cpu()  # (frames, n_mels)
        self.count += valid.size(0)
        self.total += valid.sum(0)
        self.square += valid.square().sum(0)

    def store(self, features: LogMel) -> None:
        """Set mean and std of the features from what was counted."""
        mean = self.total / max(1, self.count)
        variance = (self.square / max(1, self.count) - mean.square()).clamp_min(0)
        features.mean.copy_(mean)
        features.std.copy_(variance.sqrt().clamp_min(MIN_STD))


def spec_augment(features: Tensor, lengths: Tensor, config: SpecAugmentConfig) -> Tensor:
    """Masked copies of normalized features (B, T, n_mels); a masked value is 0, the mean.

    Park et al. 2019, without time warping, and with the widest time mask a share of each utterance's own
    length (adaptive size, Park et al. 2020), which is why torchaudio's masking, one width for the batch, does
    not serve. Draws from torch's global generator of the device.
    """
    batch, frames, bins = features.shape
    device = features.device

    def bands(count: int, widest: Tensor, extent: Tensor, size: int) -> Tensor:
        """(B, size), true under any of `count` bands of width 0 to `widest` (B,) within `extent` (B,)."""
        width = torch.rand(batch, count, device=device) * (widest + 1).unsqueeze(1)
        width = width.floor()
        start = (
            torch.rand(batch, count, device=device) * (extent.unsqueeze(1) - width + 1).clamp_min(1)
        ).floor()
        place = torch.arange(size, device=device)
        inside = (place >= start.unsqueeze(2)) & (place < (start + width).unsqueeze(2))  # (B, count, size)
        return inside.any(1)

    def full(value: int) -> Tensor:
        return torch.full((batch,), value, device=device)

    across = bands(
        config.frequency_masks, full(min(config.frequency_width, bins)), full(bins), bins
    )  # (B, n_mels)
    along = bands(config.time_masks, (lengths * config.time_width).floor(), lengths, frames)  # (B, T)
    return features.masked_fill(across.unsqueeze(1) | along.unsqueeze(2), 0.0)
