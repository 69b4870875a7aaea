"""The Conformer reads phonemes in place of audio, for training on text."""

from __future__ import annotations

import pytest
import torch
from helpers import sections

from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import PHONEME_STATES, ReadsPhonemes

PHONEMES = 6


def network(**encoder: object) -> EncoderDecoder:
    torch.manual_seed(0)
    settings = sections(d_model=16, n_heads=2, d_ffn=24, dropout=0.0)
    settings["encoder"] = (
        dict(
            kind="conformer",
            n_layers=3,
            half_rate_layers=3,
            phonemes=PHONEMES,
            phonemes_after=2,
            reads_phonemes=True,
        )
        | encoder
    )
    return EncoderDecoder(EncoderDecoder.Config(**settings), 8, 9).eval()


def probabilities(batch: int, states: int) -> torch.Tensor:
    return torch.randn(batch, states, PHONEMES, generator=torch.Generator().manual_seed(1)).softmax(-1)


@pytest.mark.parametrize("quarter_rate_layers", [0, 2])
def test_states_are_those_of_audio_where_the_reader_is_right(quarter_rate_layers: int) -> None:
    """A reader that knows the states at the head gives the memory of the audio. Their number is odd."""
    model = network(quarter_rate_layers=quarter_rate_layers)
    reader = model.encoder.half_rate.phoneme_reader
    known = {}
    reader.errors = lambda probabilities, states, earlier: known.update(found=(states, earlier)) or states
    model.train()  # dropout is 0
    memory = model.encode(torch.randn(2, 44, 8), torch.tensor([44, 44]))
    states = memory.states.size(1)
    assert states % 2
    reader.forward = lambda probabilities: known["found"]
    found = model.encode_phonemes(probabilities(2, states), torch.tensor([states, states]))
    torch.testing.assert_close(found.states, memory.states)


def test_the_reader_learns_the_states_of_audio_and_nothing_else_learns_from_its_errors() -> None:
    model = network().train()
    features, lengths = torch.randn(2, 44, 8), torch.tensor([44, 30])
    optimizer = torch.optim.Adam(model.encoder.half_rate.phoneme_reader.parameters(), 1e-2)
    sizes = []
    for _ in range(100):
        errors, state_lengths = model.encode(features, lengths).intermediate[PHONEME_STATES]
        assert errors.shape == (2, 6, 3 * 16) and state_lengths.tolist() == [6, 4]
        model.zero_grad()
        errors.square().mean().backward()
        optimizer.step()
        sizes.append(errors.square().mean().item())
    assert sizes[-1] < 0.3 * sizes[0]
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learned == {
        f"encoder.half_rate.phoneme_reader.{part}.{kind}"
        for part in ("to_states", "to_earlier")
        for kind in ("weight", "bias")
    }
    assert PHONEME_STATES not in model.eval().encode(features, lengths).intermediate


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
    assert {name.split(".")[0] for name in inside} == {"blocks", "from_pairs", "phoneme_reader"}
    assert {name.split(".")[1] for name in inside if name.startswith("blocks")} == {"2"}


def test_a_model_without_the_head_does_not_offer_it() -> None:
    assert isinstance(network(), ReadsPhonemes)
    assert not isinstance(network(reads_phonemes=False), ReadsPhonemes)
    without = EncoderDecoder(EncoderDecoder.Config(**sections(d_model=16, n_heads=2, d_ffn=24)), 8, 9)
    assert not isinstance(without, ReadsPhonemes)


def test_phonemes_cannot_be_read_without_the_head() -> None:
    with pytest.raises(ValueError, match="reads_phonemes needs the phoneme head; set phonemes"):
        network(phonemes=0)
