"""The states of the tokens of a known text, compared with all possible paths."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from asr.errors import AsrError
from asr.inspection.attention import align_attention
from asr.inspection.gather import _ctc_spans
from asr.tokenizers import CharacterTokenizer

SPECIAL = CharacterTokenizer.from_characters("ab").special


def test_a_text_that_ctc_has_no_states_for_is_refused():
    log_probs = torch.zeros(4, 3).log_softmax(-1)
    assert _ctc_spans(log_probs, [1, 2, 1, 2], SPECIAL) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    with pytest.raises(AsrError, match="3 tokens needs 5 states of CTC, and this audio has 4"):
        _ctc_spans(log_probs, [1, 1, 1], SPECIAL)


@pytest.mark.parametrize("seed", range(20))
def test_the_attention_path_is_the_best_of_all_monotonic_paths(seed):
    weights = np.random.default_rng(seed).random((4, 9))
    spans = align_attention(weights)
    assert spans[0][0] == 0 and spans[-1][1] == 9
    assert all(end == start for (_, end), (start, _) in pairwise(spans))

    def total(bounds):
        return sum(weights[row, a:b].sum() for row, (a, b) in enumerate(bounds))

    every = [list(zip((0, *cuts), (*cuts, 9), strict=True)) for cuts in combinations(range(1, 9), 3)]
    assert total(spans) == pytest.approx(max(map(total, every)))


def test_more_tokens_than_states_are_refused():
    assert align_attention(np.eye(3)) == [(0, 1), (1, 2), (2, 3)]
    assert align_attention(np.zeros((0, 3))) == []
    with pytest.raises(AsrError, match="4 tokens is too long to be aligned with 3 states"):
        align_attention(np.ones((4, 3)))
