"""The training objective of a recognizer: from a batch of audio and text to its losses, as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.datasets.loading import Batch
from asr.errors import AsrError
from asr.features.interface import HasFrequencies
from asr.features.settings import SpecAugmentConfig, VocalTractConfig
from asr.features.spec_augment import spec_augment
from asr.features.vocal_tract import perturb_vocal_tract
from asr.masks import length_mask
from asr.model.interfaces import PHONEMES, Memory, ReadsPhonemes
from asr.model.phoneme_reader import PHONEME_STATES
from asr.model_folder import Bundle
from asr.training.losses import Losses, joint_loss, masked_ctc_loss
from asr.training.settings import TrainConfig


class RecognitionObjective(nn.Module):
    """Features, SpecAugment, network and losses on the device. The weights are those of the bundle.

    It is one module with one `forward`, as DistributedDataParallel and torch.compile need it.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: TrainConfig,
        specaugment: SpecAugmentConfig | None,
        vocal_tract: VocalTractConfig | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        """`autocast` is the type in which layers compute; None: float32.

        Raises AsrError for vocal tract perturbation of features without frequencies.
        """
        super().__init__()
        self.features, self.network, self.special = bundle.features, bundle.network, bundle.special
        self.config, self.specaugment, self.device = config, specaugment, bundle.device
        self.vocal_tract = vocal_tract
        self.intermediate = getattr(bundle.config.model, "intermediate_ctc", None)
        if vocal_tract is not None and not isinstance(bundle.features, HasFrequencies):
            kind = bundle.config.features.kind
            raise AsrError(f"augment.vocal_tract: features of kind {kind} cannot be warped; set it to null")
        self.autocast = autocast

    def forward(self, batch: Batch | None, step: int = 0) -> tuple[Tensor, Tensor]:
        """Sums over the batch (5,): total, attention, CTC, phoneme and text injection loss; and (B,) bool:
        texts too long for CTC.

        The sums are zero for None and for an empty batch. Every weight takes part in these zeros, so that
        processes with and without data exchange the same gradients. `step` of the training decides on
        scheduled sampling.
        """
        if batch is None or not batch.ids:
            return zero_loss(self.network, 5), torch.zeros(0, dtype=torch.bool)
        with torch.no_grad():
            features, lengths = self.extract(batch)
            if self.training and self.vocal_tract is not None:
                features = perturb_vocal_tract(features, self.features.frequencies, self.vocal_tract)
            if self.training and self.specaugment is not None:
                features = spec_augment(features, lengths, self.specaugment)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            memory = self.network.encode(features, lengths)
            losses, phoneme_loss = self.losses(batch, memory, step), self.phoneme_loss(batch, memory)
            intermediate_loss = self.intermediate_loss(batch, memory)
            text_loss = self.text_loss(batch)
        total = losses.total + intermediate_loss
        if self.config.phonemes is not None:
            total = total + self.config.phonemes.weight * phoneme_loss
        if self.config.text_injection is not None:
            total = total + self.config.text_injection.weight * text_loss + self.reading_loss(batch, memory)
        others = losses.attention, losses.ctc, phoneme_loss.detach(), text_loss.detach()
        sums = torch.stack([total, *others])
        return sums, losses.unalignable

    def extract(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) and lengths (B,) of a batch."""
        waveforms = batch.waveforms.to(self.device, non_blocking=True)
        return self.features(waveforms, batch.lengths.to(self.device, non_blocking=True))

    def losses(self, batch: Batch, memory: Memory, step: int = 0) -> Losses:
        """The losses of a batch, of which the memory is known. In validation, the decoder's input is the text
        itself, or masks alone.
        """
        sampling = self.config.scheduled_sampling
        return joint_loss(
            self.network,
            memory,
            batch.tokens.to(self.device),
            batch.token_lengths.to(self.device),
            self.special,
            self.config.ctc_weight,
            self.config.label_smoothing,
            self.config.token_noise if self.training else 0.0,
            batch.has_text.to(self.device),
            sampling.at(step) if sampling is not None and self.training else 0.0,
            random_masks=self.training,
        )

    def intermediate_loss(self, batch: Batch, memory: Memory) -> Tensor:
        """The mean of the CTC losses of the intermediate layers, times their weight; zero without."""
        if self.intermediate is None:
            return memory.states.new_zeros((), dtype=torch.float32)
        tokens, token_lengths, mask = (
            each.to(self.device) for each in (batch.tokens, batch.token_lengths, batch.has_text)
        )
        each = [
            masked_ctc_loss(
                logits.float().log_softmax(-1), lengths, tokens, token_lengths, self.special.blank, mask
            )
            for logits, lengths in (memory.intermediate[f"ctc {layer}"] for layer in self.intermediate.layers)
        ]
        return self.intermediate.weight * torch.stack(each).mean()

    def phoneme_loss(self, batch: Batch, memory: Memory) -> Tensor:
        """CTC loss of the phonemes at the encoder's intermediate head. Rows without phonemes give zero."""
        if self.config.phonemes is None:
            return memory.states.new_zeros((), dtype=torch.float32)
        logits, lengths = memory.intermediate[PHONEMES]
        targets, target_lengths, mask = (
            each.to(self.device) for each in (batch.phonemes, batch.phoneme_lengths, batch.has_phonemes)
        )
        return masked_ctc_loss(logits.float().log_softmax(-1), lengths, targets, target_lengths, 0, mask)

    def reading_loss(self, batch: Batch, memory: Memory) -> Tensor:
        """The mean squared error of the states predicted from phonemes, times the targets of the batch."""
        if PHONEME_STATES not in memory.intermediate:  # in evaluation
            return memory.states.new_zeros((), dtype=torch.float32)
        errors, lengths = memory.intermediate[PHONEME_STATES]
        inside = length_mask(lengths.to(self.device), errors.size(1)).unsqueeze(2)
        squares = (errors.float() * inside).square().sum() / (inside.sum() * errors.size(2))
        return squares * batch.n_targets

    def text_loss(self, batch: Batch) -> Tensor:
        """The joint loss of the sentences without audio, from simulated phonemes; zero without."""
        if batch.injected is None:
            return torch.zeros((), device=self.device)
        injected = batch.injected.to(self.device)
        assert isinstance(self.network, ReadsPhonemes), "the configuration refuses others"
        memory = self.network.encode_phonemes(injected.probabilities, injected.lengths)
        return joint_loss(
            self.network,
            memory,
            injected.tokens,
            injected.token_lengths,
            self.special,
            self.config.ctc_weight,
            self.config.label_smoothing,
            self.config.token_noise,
            random_masks=self.training,
        ).total


def zero_loss(network: nn.Module, count: int) -> Tensor:
    """Zeros (count,) that depend on all weights of a network."""
    some = [p.sum() for p in network.parameters()]
    return torch.stack(some).sum() * torch.zeros(count, device=some[0].device)
