"""The guard against repetitions: which hypotheses it stops, and where it cuts them."""

import pytest
import torch
from decoding_networks import LONG_PROMPT, SPECIAL, random_processor
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import Hypothesis
from asr.decoding.options import FinishReason
from asr.decoding.processors import LogitProcessors
from asr.decoding.repetition import CHECK_INTERVAL, cut_repetitions, is_repeating, length_without_copies
from asr.model.interfaces import Memory

tokens = st.lists(st.integers(4, 6), max_size=12)


def stopped(sequence):
    """The length at which a decoder stops that checks while it decodes."""
    for size in range(CHECK_INTERVAL, len(sequence) + 1, CHECK_INTERVAL):
        if bool(is_repeating(torch.tensor([sequence[:size]]))):
            return size
    return None


@settings(max_examples=100)
@given(tokens, st.lists(st.integers(4, 6), min_size=1, max_size=40), st.integers(1, 60), tokens)
def test_checking_afterwards_agrees_with_checking_while_decoding(before, phrase, copies, after):
    sequence = (*before, *phrase * copies, *after)
    size, kept = stopped(sequence), length_without_copies(sequence)
    assert (size is None) == (kept is None)
    if size is not None:
        period = next(p for p in range(1, 33) if sequence[kept - p : size - p] == sequence[kept:size])
        assert size - kept >= 7 * period and size - kept + period >= 32  # eight copies, one of which is kept


@given(st.lists(st.integers(4, 9), min_size=1, max_size=32), tokens)
def test_a_repetition_that_is_long_enough_is_stopped(phrase, before):
    kept = length_without_copies((*before, *phrase * (9 + 48 // len(phrase))))
    assert kept is not None and kept <= len(before) + len(phrase) + CHECK_INTERVAL


@pytest.mark.parametrize("text", ["seven " * 5 + "six", "no " * 7, "a" * 25, "ha" * 12 + "x" * 9, "", "abc"])
def test_ordinary_repetitions_are_not_stopped(text):
    assert length_without_copies(tuple(map(ord, text))) is None


def test_rows_are_judged_independently():
    rows = torch.tensor([[5] * 32, [5, 6] * 16, [*range(4, 36)], [7, *[5] * 31], [*[5] * 31, 7]])
    assert is_repeating(rows).tolist() == [True, True, False, False, False]
    assert is_repeating(rows.view(5, 1, 32)).shape == (5, 1)


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
@pytest.mark.parametrize("processed", [False, True])
def test_a_hypothesis_is_cut_after_the_first_copy_and_has_the_probability_of_the_rest(special, processed):
    class Decoder:
        def decode(self, tokens, memory):
            assert memory.lengths.tolist() == [7]  # the row's own
            logits = torch.zeros(*tokens.shape, 9)
            return logits + torch.arange(9) * tokens.unsqueeze(2) / 100  # depends on the token before

    memory = Memory(torch.zeros(2, 9, 4), torch.tensor([9, 7]))
    others = [random_processor(5)] if processed else []
    processors = LogitProcessors(special, others, torch.device("cpu"))
    fine = Hypothesis((5, 6), -1.0)
    wild = [Hypothesis((4, 5, 7) * n, -2.0, FinishReason.length, score=-3.0) for n in (16, 20)]
    first, second = cut_repetitions(Decoder(), memory, special, processors, [[fine], wild])
    assert first == [fine]
    (cut,) = second  # both are the same hypothesis now
    assert (cut.tokens, cut.finish_reason, cut.score) == ((4, 5, 7), FinishReason.repetition, -3.0)
    expected = 0.0
    sequence = [*special.prompt, 4, 5, 7]
    for size in range(len(special.prompt), len(sequence)):
        log_probs = (torch.arange(9) * sequence[size - 1] / 100).log_softmax(0).unsqueeze(0)
        for processor in others:
            log_probs = processor(torch.tensor([sequence[:size]]), log_probs)
        expected += float(log_probs[0, sequence[size]])
    assert cut.log_prob == pytest.approx(expected, abs=1e-5)
