"""The Conformer reads phonemes in place of audio, for training on text."""

from __future__ import annotations

import pytest
import torch
from helpers import sections
from torch import nn

from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import ReadsPhonemes

PHONEMES = 6


def network(**encoder: object) -> EncoderDecoder:
    torch.manual_seed(0)
    settings = sections(d_model=16, n_heads=2, d_ffn=24, dropout=0.0)
    settings["encoder"] = (
        dict(kind="conformer", n_layers=3, half_rate_layers=3, phonemes=PHONEMES, phonemes_after=2) | encoder
    )
    return EncoderDecoder(EncoderDecoder.Config(**settings), 8, 9).eval()


def probabilities(batch: int, states: int) -> torch.Tensor:
    return torch.randn(batch, states, PHONEMES, generator=torch.Generator().manual_seed(1)).softmax(-1)


def zero(*blocks: nn.Module) -> None:
    """The blocks end with a norm, which now gives zeros."""
    for block in blocks:
        nn.init.zeros_(block.norm.weight)
        nn.init.zeros_(block.norm.bias)


@pytest.mark.parametrize("quarter_rate_layers", [0, 2])
@torch.inference_mode()
def test_states_are_those_of_audio_that_says_nothing_but_the_phonemes(quarter_rate_layers: int) -> None:
    """With zeros from all blocks before the head, only its bias decides on the phonemes of the audio."""
    model = network(phonemes_after=1, quarter_rate_layers=quarter_rate_layers)
    half_rate = model.encoder.half_rate
    zero(*model.encoder.blocks, half_rate.blocks[0])
    half_rate.phoneme_head.bias.copy_(torch.randn(2 * PHONEMES))
    features, lengths = torch.randn(2, 44, 8), torch.tensor([44, 44])
    memory = model.encode(features, lengths)
    states = memory.states.size(1)
    first, second = half_rate.phoneme_head.bias.unflatten(0, (2, -1)).softmax(-1)
    same = torch.stack([first, second]).repeat((states + 1) // 2, 1)[:states].expand(2, -1, -1).clone()
    if states % 2:  # the second half of the last pair is there with audio, and zero with phonemes
        same = torch.cat([same, second.expand(2, 1, -1)], 1)
    found = model.encode_phonemes(same, torch.tensor([states, states]))
    torch.testing.assert_close(found.states[:, :states], memory.states)


@pytest.mark.parametrize("quarter_rate_layers", [0, 2])
@torch.inference_mode()
def test_rows_do_not_depend_on_their_padding(quarter_rate_layers: int) -> None:
    model, given = network(quarter_rate_layers=quarter_rate_layers), probabilities(2, 12)
    given[1, 7:] = 0
    both = model.encode_phonemes(given, torch.tensor([12, 7]))
    alone = model.encode_phonemes(given[1:, :7], torch.tensor([7]))
    torch.testing.assert_close(both.states[1, :7], alone.states[0])
    assert both.states.shape == (2, 12, 16) and both.lengths.tolist() == [12, 7]


def test_only_the_blocks_after_the_head_learn() -> None:
    model = network().train()
    model.encode_phonemes(probabilities(1, 8), torch.tensor([8])).states.square().sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[1] for name in learned} == {"half_rate", "last_blocks"}
    inside = {name.split("half_rate.")[1] for name in learned if "half_rate" in name}
    assert {name.split(".")[0] for name in inside} == {"blocks", "from_pairs", "phoneme_condition"}
    assert {name.split(".")[1] for name in inside if name.startswith("blocks")} == {"2"}


def test_a_model_without_the_head_does_not_offer_it() -> None:
    assert isinstance(network(), ReadsPhonemes)
    assert not isinstance(network(phonemes=0), ReadsPhonemes)
    without = EncoderDecoder(EncoderDecoder.Config(**sections(d_model=16, n_heads=2, d_ffn=24)), 8, 9)
    assert not isinstance(without, ReadsPhonemes)
