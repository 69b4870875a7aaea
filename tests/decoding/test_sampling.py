"""Drawn tokens: in proportion to their probabilities, and independent of the batch."""

import math

import pytest
import torch
from decoding_networks import SPECIAL, Scripted, batch, network, same

from asr.decoding import DecodingOptions, greedy
from asr.decoding.sampling import Sampling


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_in_proportion_to_their_probabilities(temperature):
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    scores, prefix = probabilities.log().unsqueeze(0), torch.tensor([[1, 2]])
    counts = torch.zeros(5)
    for seed in range(3000):
        counts[Sampling(temperature, seed, 5).perturb(prefix, scores).argmax()] += 1
    expected = probabilities ** (1 / temperature)
    assert torch.allclose(counts / 3000, expected / expected.sum(), atol=0.03)
    assert counts[4] == 0


def test_noise_belongs_to_the_token_and_to_the_tokens_before():
    sampling, prefixes = Sampling(1.0, 3, 8), torch.tensor([[1, 2], [1, 3], [1, 2]])
    noise = sampling.perturb(prefixes, torch.zeros(3, 8))
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    some = torch.tensor([[4, 1], [0, 7], [2, 2]])
    assert torch.equal(sampling.perturb(prefixes, torch.zeros(3, 2), some), noise.gather(1, some))
    assert not torch.equal(Sampling(1.0, 4, 8).perturb(prefixes, torch.zeros(3, 8)), noise)


@pytest.mark.parametrize("ctc", [True, False])
def test_a_text_is_drawn_alike_in_every_batch(ctc):
    model = network(3, ctc=ctc)
    features, lengths = batch()
    options = DecodingOptions(decoder="greedy", temperature=1.0, seed=5)

    def decode(options, rows=slice(None)):
        size = int(lengths[rows].max())
        return greedy(model, model.encode(features[rows, :size], lengths[rows]), SPECIAL, options)

    together = decode(options)
    alone = [decode(options, slice(i, i + 1))[0] for i in range(len(lengths))]
    same(together, alone)
    texts = [h.tokens for (h,) in together]
    assert [h.tokens for (h,) in decode(DecodingOptions())] != texts
    other = DecodingOptions(decoder="greedy", temperature=1.0, seed=6)
    assert [h.tokens for (h,) in decode(other)] != texts


def test_the_log_probability_of_a_drawn_text_is_the_decoders():
    model = Scripted((5, 6, 7))
    cold = DecodingOptions(decoder="greedy", temperature=0.05)
    ((found,),) = greedy(model, model.memory(9), SPECIAL, cold)
    assert found.tokens == (5, 6, 7) and found.log_prob == pytest.approx(4 * math.log(0.5))
    assert found.temperature == 0.05
