"""Forced alignment: tokens are where the path has them, and on the best path that spells the text."""

import itertools

import numpy as np
import pytest
import torch
from decoding_networks import SPECIAL, VOCABULARY, paths

from asr.decoding.alignment import ctc_align, warp_time


def test_tokens_are_where_the_path_has_them():
    blank = SPECIAL.blank
    log_probs = paths([blank, 6, 6, blank, 7, blank, 7, 7, 8], [7, blank, 8])
    lengths = torch.tensor([9, 3])
    first, second = ctc_align(log_probs, lengths, [(6, 7, 7, 8), (7, 8)], SPECIAL)
    assert [(s.start, s.end) for s in first] == [(1, 3), (4, 5), (6, 8), (8, 9)]
    assert [(s.start, s.end) for s in second] == [(0, 1), (2, 3)]  # not in the padding
    likely = float(log_probs.exp().max())
    assert [s.probability for s in first] == pytest.approx([likely] * 4)


def test_the_probability_of_a_token_is_its_highest():
    probs = torch.full((1, 3, VOCABULARY), 1e-9)
    for state, prob in enumerate((0.3, 0.9, 0.5)):  # all three states are 6
        probs[0, state, 6] = prob
    ((only,),) = ctc_align(probs.log(), torch.tensor([3]), [(6,)], SPECIAL)
    assert (only.start, only.end) == (0, 3) and only.probability == pytest.approx(0.9)


def test_the_path_is_the_most_likely_one():
    """Against all paths of short random outputs."""
    torch.manual_seed(0)
    text = (6, 7, 7)
    for _ in range(20):
        log_probs = torch.randn(1, 6, VOCABULARY).mul(2).log_softmax(-1)

        def score(path, log_probs=log_probs):
            return sum(float(log_probs[0, i, token]) for i, token in enumerate(path))

        possible = [
            path
            for path in itertools.product((SPECIAL.blank, 6, 7), repeat=6)
            if tuple(t for t, _ in itertools.groupby(path) if t != SPECIAL.blank) == text
        ]
        best = max(possible, key=score)
        (spans,) = ctc_align(log_probs, torch.tensor([6]), [text], SPECIAL)
        found = [SPECIAL.blank] * 6
        for token, span in zip(text, spans, strict=True):
            found[span.start : span.end] = [token] * (span.end - span.start)
        assert score(found) == pytest.approx(score(best), abs=1e-4)


def test_a_text_that_cannot_be_spelled_is_spread_evenly():
    log_probs = paths([6, 6, 7])
    (spans,) = ctc_align(log_probs, torch.tensor([3]), [(6, 6, 7)], SPECIAL)  # needs a blank: four states
    assert [(s.start, s.end, s.probability) for s in spans] == [(0, 1, 0), (1, 2, 0), (2, 3, 0)]
    assert ctc_align(log_probs, torch.tensor([3]), [()], SPECIAL) == [[]]


def test_the_path_through_the_attention_is_the_best_one():
    """Compared with all paths through small random weights of attention."""
    random = np.random.default_rng(0)

    def paths_to(row, state):
        if (row, state) == (0, 0):
            yield [(0, 0)]
        for before in ((row - 1, state - 1), (row - 1, state), (row, state - 1)):
            if min(before) >= 0:
                for path in paths_to(*before):
                    yield [*path, (row, state)]

    for rows, states in ((1, 4), (3, 4), (4, 2), (3, 1)):
        weights = random.normal(size=(rows, states))
        best = max(paths_to(rows - 1, states - 1), key=lambda path: sum(weights[cell] for cell in path))
        assert warp_time(weights) == [min(s for r, s in best if r == row) for row in range(rows)]
