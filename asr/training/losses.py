"""The training loss: label-smoothed cross-entropy of the decoder and CTC of the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, ctc_loss, pad

from asr.config import TrainConfig
from asr.model.interfaces import HasCTC, HasDecoder, Memory, Network
from asr.tokenizers import BOS, EOS, PAD


@dataclass(frozen=True)
class Losses:
    """Sums over a batch, scalars, to be added up and divided by the tokens of many batches."""

    total: Tensor  # (1 - ctc_weight) * attention + ctc_weight * ctc
    attention: Tensor
    ctc: Tensor


def joint_loss(
    network: Network,
    features: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    config: TrainConfig,
    token_noise: float = 0.0,
) -> Losses:
    """Joint CTC/attention loss (Watanabe et al. 2017) of features (B, T, n_mels) and tokens (B, U).

    `tokens` are padded with PAD and have neither BOS nor EOS. Where a text has more tokens than CTC can
    place in its encoder states, its CTC loss is infinite and counts as zero; the attention loss remains.
    `token_noise` is the share of the tokens given to the decoder that are replaced by others.
    """
    memory = network.encode(features, lengths)
    attention = memory.states.new_zeros((), dtype=torch.float32)
    if isinstance(network, HasDecoder):
        attention = _attention_loss(network, memory, tokens, token_lengths, config, token_noise)
    ctc = attention.new_zeros(())
    if config.ctc_weight > 0:
        assert isinstance(network, HasCTC), "the configuration refuses a CTC weight without a CTC head"
        ctc = ctc_loss(
            network.ctc(memory).transpose(0, 1),
            tokens,
            memory.lengths,
            token_lengths,
            PAD,
            reduction="sum",
            zero_infinity=True,
        )
    total = torch.lerp(attention, ctc, config.ctc_weight) if config.ctc_weight else attention
    return Losses(total, attention.detach(), ctc.detach())


def _attention_loss(
    network: HasDecoder,
    memory: Memory,
    tokens: Tensor,
    token_lengths: Tensor,
    config: TrainConfig,
    token_noise: float,
) -> Tensor:
    """Label-smoothed cross-entropy of the decoder, summed over the batch."""
    given = pad(_disturbed(tokens, token_lengths, token_noise), (1, 0), value=BOS)  # (B, U + 1)
    wanted = pad(tokens, (0, 1), value=PAD).scatter(1, token_lengths.unsqueeze(1), EOS)  # (B, U + 1)
    logits = network.decode(given, memory).float()  # (B, U + 1, V)
    return cross_entropy(
        logits.flatten(0, 1),
        wanted.flatten(),
        ignore_index=PAD,
        label_smoothing=config.label_smoothing,
        reduction="sum",
    )


def _disturbed(tokens: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Tokens (B, U), some of them replaced by others of the same utterance.

    Most characters of a word follow from those before; with some of these wrong the decoder has to listen,
    so that its attention finds the place in the audio sooner, and its own errors matter less (the word
    dropout of Bowman et al. 2016, with other characters in place of UNK).
    """
    if not share or not tokens.size(1):
        return tokens
    place = (torch.rand(tokens.shape, device=tokens.device) * lengths.unsqueeze(1)).long()  # (B, U), not PAD
    others = tokens.gather(1, place)
    return torch.where(torch.rand(tokens.shape, device=tokens.device) < share, others, tokens)
