"""The guard against going round in circles: what it stops, what it lets pass, and where it cuts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import Hypothesis
from asr.decoding.options import FinishReason
from asr.decoding.repetition import LOOK_EVERY, cut_repetitions, first_round, going_round
from asr.model.interfaces import Memory

tokens = st.lists(st.integers(4, 6), max_size=12)


def stopped(text):
    """Where decoding would have been stopped that looks while it decodes."""
    for size in range(LOOK_EVERY, len(text) + 1, LOOK_EVERY):
        if bool(going_round(torch.tensor([text[:size]]))):
            return size
    return None


@settings(max_examples=100)
@given(tokens, st.lists(st.integers(4, 6), min_size=1, max_size=40), st.integers(1, 60), tokens)
def test_looking_afterwards_finds_what_looking_meanwhile_does(before, phrase, copies, after):
    text = (*before, *phrase * copies, *after)
    size, kept = stopped(text), first_round(text)
    assert (size is None) == (kept is None)
    if size is not None:
        period = next(p for p in range(1, 33) if text[kept - p : size - p] == text[kept:size])
        assert size - kept >= 7 * period and size - kept + period >= 32  # eight copies, one of which is kept


@given(st.lists(st.integers(4, 9), min_size=1, max_size=32), tokens)
def test_whoever_goes_on_long_enough_is_stopped(phrase, before):
    kept = first_round((*before, *phrase * (9 + 48 // len(phrase))))
    assert kept is not None and kept <= len(before) + len(phrase) + LOOK_EVERY


@pytest.mark.parametrize("text", ["seven " * 5 + "six", "no " * 7, "a" * 25, "ha" * 12 + "x" * 9, "", "abc"])
def test_what_people_say_passes(text):
    assert first_round(tuple(map(ord, text))) is None


def test_rows_are_judged_on_their_own():
    rows = torch.tensor([[5] * 32, [5, 6] * 16, [*range(4, 36)], [7, *[5] * 31], [*[5] * 31, 7]])
    assert going_round(rows).tolist() == [True, True, False, False, False]
    assert going_round(rows.view(5, 1, 32)).shape == (5, 1)


def test_a_text_is_cut_after_the_first_copy_and_its_probability_is_that_of_what_is_left():
    class Decoder:
        def decode(self, tokens, memory):
            assert memory.lengths.tolist() == [7]  # the row's own
            logits = torch.zeros(*tokens.shape, 10)
            return logits + torch.arange(10) * tokens.unsqueeze(2) / 100  # depends on the token before

    memory = Memory(torch.zeros(2, 9, 4), torch.tensor([9, 7]))
    fine = Hypothesis((5, 6), -1.0)
    wild = [Hypothesis((4, 5, 6) * n, -2.0, FinishReason.length, score=-3.0) for n in (16, 20)]
    first, second = cut_repetitions(Decoder(), memory, [[fine], wild])
    assert first == [fine]
    (cut,) = second  # both are the same text now
    assert (cut.tokens, cut.finish_reason, cut.score) == ((4, 5, 6), FinishReason.repetition, -3.0)
    fed, token_log_probs = torch.tensor([1.0, 4, 5]), torch.tensor([4, 5, 6])
    log_probs = (torch.arange(10) * fed.unsqueeze(1) / 100).log_softmax(1)
    assert cut.log_prob == pytest.approx(
        float(log_probs.gather(1, token_log_probs.unsqueeze(1)).sum()), abs=1e-5
    )
