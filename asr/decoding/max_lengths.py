"""The most tokens that an utterance can have. Decoding ends there even if the decoder never predicts EOS."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from asr.decoding.ctc import collapse_paths
from asr.decoding.options import DecodingOptions
from asr.decoding.scorers import LimitsTokens, ScorerFactory
from asr.model.interfaces import HasDecoder, LimitsPositions, Memory
from asr.tokenizers.special import SpecialTokens

# One encoder state covers about 40 ms, and speech does not have 25 characters per second for long. CTC merges
# repeated tokens and can miss some, hence the factor. Both limits get some spare tokens for short utterances.
CTC_FACTOR = 2
SPARE = 8


def compute_max_lengths(
    memory: Memory,
    ctc: Tensor | None,
    special: SpecialTokens,
    options: DecodingOptions,
    network: object = None,
    factories: Sequence[ScorerFactory] = (),
) -> Tensor:
    """The maximum number of tokens of each row (B,), from the duration, from CTC, from the options, and from
    the positions of the network and of the scorers, if their number is limited.

    `ctc` has the log-probabilities (B, S, V) of the CTC head. It is None for a model without one and for
    decoding by attention alone, which CTC must not limit.
    """
    max_lengths = memory.lengths + SPARE
    if ctc is not None:
        ctc_lengths = collapse_paths(ctc.argmax(2), memory.lengths, special)[1][:, -1]
        max_lengths = max_lengths.minimum(CTC_FACTOR * ctc_lengths + SPARE)
    if options.max_tokens is not None:
        max_lengths = max_lengths.clamp_max(options.max_tokens)
    if (most := most_tokens(network, special, factories)) is not None:
        max_lengths = max_lengths.clamp_max(most)
    return max_lengths


def most_tokens(
    network: object, special: SpecialTokens, factories: Sequence[ScorerFactory] = ()
) -> int | None:
    """The most tokens of a text for which the decoder and the scorers have positions; None: any number.

    A decoder that fills masks reads no prompt.
    """
    limits = [factory.max_tokens for factory in factories if isinstance(factory, LimitsTokens)]
    if isinstance(network, LimitsPositions):
        limits.append(network.max_positions - (len(special.prompt) if isinstance(network, HasDecoder) else 0))
    return min(limits, default=None)
