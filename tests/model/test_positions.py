"""Positions: each kind equals its formula, in a cache and for all positions at once."""

import math

import numpy as np
import pytest
import torch

from asr.errors import AsrError
from asr.model.blocks import BlockSection
from asr.model.positions.interface import build_positions
from asr.model.positions.rotary import rotate
from asr.model.positions.sinusoidal import SinusoidalPositions

KINDS = ["none", "sinusoidal", "learned", "rotary"]  # those that decoders can have


def stack(d_model=16, dropout=0.0, **positions):
    return BlockSection(kind="test", d_model=d_model, n_heads=2, dropout=dropout, positions=positions)


def sinusoidal(d_model=16, dropout=0.0, size=1024, **settings):
    section = stack(d_model, dropout, kind="sinusoidal", **settings)
    return SinusoidalPositions(section.positions, section, size)


def formula(position, d_model):
    """The formula of section 3.5 of the paper."""
    row = np.zeros(d_model)
    for i in range(d_model // 2):
        angle = position / 10000 ** (2 * i / d_model)
        row[2 * i], row[2 * i + 1] = math.sin(angle), math.cos(angle)
    return row


def test_sinusoids_equal_the_formula_of_the_paper():
    positions = sinusoidal()
    expected = np.stack([formula(p, 16) for p in range(300)])
    np.testing.assert_allclose(positions(torch.zeros(1, 300, 16))[0], expected, atol=1e-4)
    np.testing.assert_allclose(positions(torch.zeros(1, 5, 16), 200)[0], expected[200:205], atol=1e-4)


@pytest.mark.parametrize("offset", [0, 2])
def test_concatenated_sinusoids_are_those_of_tensor2tensor(offset):
    """Number by number: 10000 to the power of -i / (d_model / 2 - 1), all sines before all cosines."""
    found = sinusoidal(layout="concatenated", offset=offset)(torch.zeros(1, 40, 16))[0]
    for position in (0, 1, 17, 39):
        for i in range(8):
            angle = (position + offset) * 10000 ** (-i / 7)
            assert float(found[position, i]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(found[position, 8 + i]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_sinusoids_equal_those_of_whisper_and_speech2text():
    pytest.importorskip("transformers")
    from transformers.models.speech_to_text.modeling_speech_to_text import (
        Speech2TextSinusoidalPositionalEmbedding,
    )
    from transformers.models.whisper.modeling_whisper import sinusoids

    zeros = torch.zeros(1, 50, 16)
    torch.testing.assert_close(sinusoidal(layout="concatenated")(zeros)[0], sinusoids(50, 16))
    theirs = Speech2TextSinusoidalPositionalEmbedding(64, 16, padding_idx=1)
    no_padding = torch.zeros(1, 50, dtype=torch.long)
    torch.testing.assert_close(sinusoidal(layout="concatenated", offset=2)(zeros), theirs(no_padding))


@pytest.mark.parametrize("settings", [{}, {"layout": "concatenated", "offset": 2}])
def test_sinusoids_have_no_upper_limit(settings):
    small, large = sinusoidal(8, size=3, **settings), sinusoidal(8, size=5000, **settings)
    x = torch.randn(2, 50, 8)
    assert torch.equal(small(x), large(x))
    assert torch.equal(small(x[:, :1], 4000), large(x[:, :1], 4000))
    assert torch.equal(small(x), large(x))
    assert not list(small.state_dict())  # the table follows from d_model, and its size may change


def test_a_table_that_grew_while_decoding_serves_training_afterwards():
    positions = sinusoidal(8, dropout=0.1, size=3)
    with torch.inference_mode():
        positions(torch.zeros(1, 10, 8))
    x = torch.randn(1, 10, 8, requires_grad=True)
    positions(x).sum().backward()
    assert x.grad is not None and x.grad.any()


def test_learned_positions_are_rows_of_a_table_and_end():
    positions = build_positions(stack(kind="learned", max_length=6))
    x = torch.randn(2, 4, 16)
    torch.testing.assert_close(positions(x, 2), x + positions.table[2:6])
    with pytest.raises(AsrError, match="needs 7 positions, but this model has 6"):
        positions(x, 3)
    with pytest.raises(AsrError, match="needs 7 positions"):
        positions.at(x, torch.arange(3, 7).unsqueeze(0), 7)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_each_row_equal_consecutive_positions(kind):
    positions = build_positions(stack(kind=kind, dropout=0.5)).eval()
    x, starts = torch.randn(3, 4, 16), [5, 0, 2]
    own = torch.tensor(starts).unsqueeze(1) + torch.arange(4)
    found, relation = positions.at(x, own, 9), positions.relation(own)
    for row, start in enumerate(starts):
        torch.testing.assert_close(found[row], positions(x[row : row + 1], start)[0])
        single = positions.relation(torch.arange(start, start + 4))
        if relation is not None:
            for each, expected in zip(relation, single, strict=True):
                torch.testing.assert_close(each[row, 0], expected)
    assert (relation is None) == (kind != "rotary")


def test_rotary_scores_depend_on_distances_only():
    queries, keys = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    cosines, sines = build_positions(stack(kind="rotary")).relation(torch.arange(12))

    def score(i: int, j: int) -> float:
        q = rotate(queries, cosines[i : i + 1], sines[i : i + 1])
        k = rotate(keys, cosines[j : j + 1], sines[j : j + 1])
        return float((q * k).sum())

    assert score(2, 5) == pytest.approx(score(6, 9), abs=1e-5)
    assert abs(score(2, 5) - score(2, 6)) > 1e-3 and abs(score(2, 5) - score(5, 2)) > 1e-3
    assert score(0, 0) == pytest.approx(float((queries * keys).sum()), abs=1e-6)
