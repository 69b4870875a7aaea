"""The training loss: label-smoothed cross-entropy of the decoder and CTC of the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, ctc_loss, kl_div

from asr.masks import length_mask
from asr.model.interfaces import FillsMasks, HasCTC, HasDecoder, Memory, Network
from asr.tokenizers import SpecialTokens
from asr.training.masked_prediction import masked_loss
from asr.training.scheduled_sampling import decode_sampled

_IGNORED = -100  # as a target; no token has this id


@dataclass(frozen=True)
class Losses:
    """Sums over a batch, scalars, to be divided by the number of tokens of all batches of a step."""

    total: Tensor  # (1 - ctc_weight) * attention + ctc_weight * ctc
    attention: Tensor
    ctc: Tensor
    unalignable: Tensor  # (B,) bool: the text has more tokens than CTC can place in the encoder states


def joint_loss(
    network: Network,
    memory: Memory,
    tokens: Tensor,
    token_lengths: Tensor,
    special: SpecialTokens,
    ctc_weight: float,
    label_smoothing: float = 0.0,
    token_noise: float = 0.0,
    has_text: Tensor | None = None,
    sampled_share: float = 0.0,
    random_masks: bool = False,
) -> Losses:
    """Joint CTC/attention loss (Watanabe et al. 2017) of a memory and its texts: tokens (B, U), lengths (B,).

    `tokens` have neither prompt nor EOS. An unalignable text has an infinite CTC loss, which counts as zero.
    Its attention loss remains. `token_noise` is the share of the decoder's input tokens that are replaced by
    others, and `sampled_share` the share that are replaced by its own predictions.
    Rows for which `has_text` (B,) is false have no losses. A decoder that fills masks has those of
    `masked_loss`, with `random_masks` in training.
    """
    if has_text is None:
        has_text = torch.ones_like(token_lengths, dtype=torch.bool)
    attention = ctc = memory.states.new_zeros((), dtype=torch.float32)
    unalignable = torch.zeros_like(token_lengths, dtype=torch.bool)
    if ctc_weight < 1:
        if isinstance(network, FillsMasks):
            noisy = _with_noise(tokens, token_lengths, token_noise)
            attention = masked_loss(
                network, memory, noisy, tokens, token_lengths, label_smoothing, has_text, random_masks
            )
        else:
            assert isinstance(network, HasDecoder), "the configuration refuses this weight without a decoder"
            attention = _attention_loss(
                network,
                memory,
                tokens,
                token_lengths,
                special,
                label_smoothing,
                token_noise,
                has_text,
                sampled_share,
            )
    if ctc_weight > 0:
        assert isinstance(network, HasCTC), "the configuration refuses a CTC weight without a CTC head"
        unalignable = (_states_needed(tokens, token_lengths) > memory.lengths) & has_text
        log_probs = network.ctc(memory)
        ctc = masked_ctc_loss(log_probs, memory.lengths, tokens, token_lengths, special.blank, has_text)
    total = (1 - ctc_weight) * attention + ctc_weight * ctc
    return Losses(total, attention.detach(), ctc.detach(), unalignable)


def masked_ctc_loss(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int, mask: Tensor
) -> Tensor:
    """CTC of log_probs (B, S, V) and targets (B, U), summed over the alignable rows of `mask` (B,)."""
    each = ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank, "none", zero_infinity=True
    )
    return (each * mask).sum()


def consistency_loss(log_probs: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
    """How far CTC's predictions for two views of the same utterances differ (CR-CTC, Yao et al. 2024).

    log_probs (2B, S, V) and lengths (2B,) have the first views of all utterances before the second ones. The
    result is the sum, over the states of the utterances of `mask` (B,), of the mean of both Kullback-Leibler
    divergences, in nats. Each view learns from the other one, which gets no gradient from it.
    """
    first, second = log_probs.chunk(2)
    inside = length_mask(lengths.chunk(2)[0], log_probs.size(1)) & mask.unsqueeze(1)  # (B, S)

    def divergence(learns: Tensor, teaches: Tensor) -> Tensor:
        return kl_div(learns, teaches.detach(), reduction="none", log_target=True).sum(2)  # (B, S)

    return ((divergence(first, second) + divergence(second, first)) * inside).sum() / 2


def sequence_loss(logits: Tensor, targets: Tensor, lengths: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits (B, U, V) and targets (B, U), summed over the first lengths (B,) positions."""
    targets = targets.masked_fill(~length_mask(lengths, targets.size(1)), _IGNORED)
    return cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=_IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def _attention_loss(
    network: HasDecoder,
    memory: Memory,
    tokens: Tensor,
    token_lengths: Tensor,
    special: SpecialTokens,
    label_smoothing: float,
    token_noise: float,
    has_text: Tensor,
    sampled_share: float,
) -> Tensor:
    """Label-smoothed cross-entropy of the decoder's predictions after the prompt: the tokens and EOS."""
    prompt = tokens.new_tensor(special.prompt).expand(len(tokens), -1)  # (B, P)
    decoder_input = torch.cat([prompt, _with_noise(tokens, token_lengths, token_noise)], 1)  # (B, P + U)
    last = tokens.new_full((len(tokens), 1), special.eos)
    targets = torch.cat([tokens, last], 1).scatter(1, token_lengths.unsqueeze(1), special.eos)  # (B, U + 1)
    if sampled_share:
        logits = decode_sampled(network, decoder_input, memory, prompt.size(1), sampled_share)
    else:
        logits = network.decode(decoder_input, memory)
    logits = logits[:, prompt.size(1) - 1 :]  # (B, U + 1, V)
    return sequence_loss(logits, targets, (token_lengths + 1) * has_text, label_smoothing)


def _states_needed(tokens: Tensor, lengths: Tensor) -> Tensor:
    """The least number of encoder states (B,) for CTC: one for each token, and one blank between equal
    tokens."""
    inside = length_mask(lengths, tokens.size(1))
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & inside[:, 1:]
    return lengths + repeats.sum(1)


def _with_noise(tokens: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Tokens (B, U), of which a share is replaced by other tokens of the same text.

    Most characters of a word can be guessed from the ones before. If some of these are wrong, the decoder
    must use the audio: its attention finds the right place earlier in training, and its own errors in
    decoding do less harm (word dropout of Bowman et al. 2016, with other tokens in place of the unknown
    token).
    """
    if not share or not tokens.size(1):
        return tokens
    place = (torch.rand(tokens.shape, device=tokens.device) * lengths.unsqueeze(1)).long()  # (B, U)
    others = tokens.gather(1, place)
    return torch.where(torch.rand(tokens.shape, device=tokens.device) < share, others, tokens)
