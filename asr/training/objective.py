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
from asr.model.interfaces import PHONEME_STATES, PHONEMES, HasCTC, Memory, ReadsPhonemes
from asr.model_folder import Bundle
from asr.training.losses import Losses, consistency_loss, joint_loss, masked_ctc_loss
from asr.training.settings import TrainConfig

LOSS_NAMES = ("loss", "attention_loss", "ctc_loss", "phoneme_loss", "text_loss", "consistency_loss")


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
        """Sums over the batch, one for each of `LOSS_NAMES`; and (B,) bool: texts too long for CTC.

        With `train.consistency`, each row is augmented twice, and its losses are the means of both views.
        The sums are zero for None and for an empty batch. Every weight takes part in these zeros, so that
        processes with and without data exchange the same gradients. `step` of the training decides on
        scheduled sampling.
        """
        if batch is None or not batch.ids:
            return zero_loss(self.network, len(LOSS_NAMES)), torch.zeros(0, dtype=torch.bool)
        consistency = self.config.consistency if self.training else 0.0
        views = 2 if consistency else 1
        with torch.no_grad():
            features, lengths = self.extract(batch)
            if views > 1:
                features, lengths = features.repeat(views, 1, 1), lengths.repeat(views)
                batch = batch.repeated(views)
            if self.training and self.vocal_tract is not None:
                features = perturb_vocal_tract(features, self.features.frequencies, self.vocal_tract)
            if self.training and self.specaugment is not None:
                features = spec_augment(features, lengths, self.specaugment)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            memory = self.network.encode(features, lengths)
            losses, phoneme_loss = self.losses(batch, memory, step), self.phoneme_loss(batch, memory)
            intermediate_loss = self.intermediate_loss(batch, memory)
            text_loss = self.text_loss(batch)
            difference = self.consistency_loss(batch, memory) if consistency else torch.zeros_like(text_loss)
        total = losses.total + intermediate_loss
        if self.config.phonemes is not None:
            total = total + self.config.phonemes.weight * phoneme_loss
        if self.config.text_injection is not None:
            total = total + self.reading_loss(batch, memory)
        total = total / views + consistency * difference
        if self.config.text_injection is not None:
            total = total + self.config.text_injection.weight * text_loss
        others = losses.attention / views, losses.ctc / views, phoneme_loss / views, text_loss, difference
        sums = torch.stack([total, *(each.detach() for each in others)])
        return sums, losses.unalignable[: len(losses.unalignable) // views]

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

    def consistency_loss(self, batch: Batch, memory: Memory) -> Tensor:
        """How far both views of each row differ at the CTC heads, times the weights of these heads' losses.

        `batch` and `memory` have the first views of all rows before the second ones.
        """
        has_text, has_phonemes = (
            each.to(self.device).chunk(2)[0] for each in (batch.has_text, batch.has_phonemes)
        )
        assert isinstance(self.network, HasCTC), "the configuration refuses consistency without a CTC head"
        log_probs = self.network.ctc(memory)
        found = self.config.ctc_weight * consistency_loss(log_probs, memory.lengths, has_text)
        if self.config.phonemes is not None:
            logits, lengths = memory.intermediate[PHONEMES]
            difference = consistency_loss(logits.float().log_softmax(-1), lengths, has_phonemes)
            found = found + self.config.phonemes.weight * difference
        return found

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
            self.config.token_noise if self.training else 0.0,
            random_masks=self.training,
        ).total


def zero_loss(network: nn.Module, count: int) -> Tensor:
    """Zeros (count,) that depend on all weights of a network."""
    some = [p.sum() for p in network.parameters()]
    return torch.stack(some).sum() * torch.zeros(count, device=some[0].device)
