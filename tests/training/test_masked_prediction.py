"""The loss of decoders that fill masks: its definition, its masks, and the length as one more token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.masks import length_mask
from asr.model.interfaces import Memory
from asr.training.masked_prediction import masked_loss, random_masks

TOKENS, LENGTHS = torch.tensor([[1, 2, 3], [3, 1, 0]]), torch.tensor([3, 2])
MEMORY = Memory(torch.zeros(2, 5, 4), torch.tensor([5, 4]))


class Filling:
    """A decoder that gives every right token the probability 1/2, whatever it sees."""

    def __init__(self):
        self.masked = torch.empty(0)

    def encode(self, features, lengths):
        raise NotImplementedError

    def fill(self, tokens, masked, lengths, memory):
        self.masked = masked
        return torch.full((2, 3, 4), 1 / 6).scatter(2, TOKENS.unsqueeze(2), 0.5).log()


class FillingWithLengths(Filling):
    """It gives the first row's length the probability 1/4, and the longest possible length, 2, 3/4."""

    def predict_lengths(self, memory):
        return torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]).log()


def loss(network, has_text=(True, True), random=False):
    return masked_loss(network, MEMORY, TOKENS, TOKENS, LENGTHS, 0.0, torch.tensor(has_text), random)


def test_validation_masks_all_tokens():
    network = Filling()
    assert float(loss(network)) == pytest.approx(5 * math.log(2))
    assert network.masked.tolist() == [[True, True, True], [True, True, False]]
    assert float(loss(network, (False, True))) == pytest.approx(2 * math.log(2))


def test_training_estimates_the_loss_of_all_tokens_from_those_that_are_masked():
    torch.manual_seed(0)
    assert float(loss(Filling(), random=True)) == pytest.approx(5 * math.log(2))


def test_a_length_counts_as_one_more_token_and_a_long_one_as_the_limit():
    lengths = -math.log(0.25) - math.log(0.75)
    assert float(loss(FillingWithLengths())) == pytest.approx(5 * math.log(2) + lengths)
    without = 2 * math.log(2) - math.log(0.75)
    assert float(loss(FillingWithLengths(), (False, True))) == pytest.approx(without)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 100))
def test_each_text_has_at_least_one_mask_and_none_outside(lengths, seed):
    torch.manual_seed(seed)
    valid = length_mask(torch.tensor(lengths), 6)
    masks = random_masks(valid)
    assert not (masks & ~valid).any()
    assert masks.any(1).tolist() == [length > 0 for length in lengths]
