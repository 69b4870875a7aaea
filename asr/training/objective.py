"""What training lowers: from a batch of audio and text to its loss, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.datasets.loading import Batch
from asr.features.spec_augment import spec_augment
from asr.model_folder import Bundle
from asr.training.losses import joint_loss
from asr.training.optimizer import use_bf16

# With bfloat16 instructions, a CPU does a step of the digits recipe 1.32 times as fast in bfloat16 with the
# preset `tiny` (d_model 144) and 2.08 times with `small` (docs/performance.md); below, casts take the time.
WIDE = 144


class Objective(nn.Module):
    """Features, SpecAugment, network and losses, on the device; its weights are those of the bundle.

    One module with one `forward`, which is what DistributedDataParallel and torch.compile take.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.features, self.network, self.config = bundle.features, bundle.network, bundle.config
        wide = self.config.model.width >= WIDE
        self.bf16 = use_bf16(self.config.train.precision, bundle.device, wide)
        if bundle.config.train.compile:
            self.network.compile(dynamic=True)

    def forward(self, batch: Batch | None) -> Tensor:
        """Sums over the batch (3,): total, attention and CTC loss; zeros for no batch or an empty one.

        Every weight takes part in the zeros, so that processes with and without data do the same exchange.
        """
        if batch is None or not batch.ids:
            return torch.stack([p.sum() for p in self.network.parameters()]).sum() * torch.zeros(
                3, device=self.features.mean.device
            )
        device = self.features.mean.device
        with torch.no_grad():
            features, lengths = self.features(
                batch.waveforms.to(device, non_blocking=True), batch.lengths.to(device, non_blocking=True)
            )
            if self.training and self.config.augment.specaugment is not None:
                features = spec_augment(features, lengths, self.config.augment.specaugment)
        tokens, token_lengths = batch.tokens.to(device), batch.token_lengths.to(device)
        noise = self.config.train.token_noise if self.training else 0.0
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            losses = joint_loss(
                self.network, features, lengths, tokens, token_lengths, self.config.train, noise
            )
        return torch.stack([losses.total, losses.attention, losses.ctc])


def count_tokens(batch: Batch) -> int:
    """What the decoder has to say for a batch: its tokens, and EOS for every utterance."""
    return int(batch.token_lengths.sum()) + len(batch.ids)
