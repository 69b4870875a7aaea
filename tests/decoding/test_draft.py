"""Drafts from the output of CTC: their tokens, their place after each token, revisions, lengths of passes."""

import itertools
import math

import pytest
import torch
from decoding_networks import EOS, LONG_PROMPT, SPECIAL, VOCABULARY, ctc_output
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.ctc import collapse_paths
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.draft import MAX_LENGTH, Draft, DraftLength


def test_where_the_rest_of_the_draft_begins():
    for change, tokens, position in [
        ("5 _ 6 _ 7 _ 8 _", (5, 6), 2),
        ("5 _ 6/8 _ 7 _", (5, 8), 2),
        ("5 _ 6 _/5 7 _", (5, 6, 5), 2),
        ("5/_ _ 6 _ 7 _", (6,), 2),
        ("5 _ 6 _ 7 _", (5, 6, 7), 3),
        ("5 _ 6 _ 7 _/5 _", (5, 6, 7, 5), 3),
        ("5 5 6/8 6 6 _ 7 _", (5, 8), 1),  # then the 6 is decoded again
    ]:
        ctc, lengths, _ = ctc_output(change)
        rows, lengths = torch.tensor([0]), torch.tensor(lengths)
        scorer = CTCPrefixScorer(ctc, lengths, SPECIAL)
        for token in tokens:
            scorer.advance(torch.tensor([token]))
        draft = Draft(ctc, lengths, SPECIAL)
        assert draft.align(rows, scorer.exact_paths(), torch.tensor(tokens[-1:])).tolist() == [position]


def test_a_token_that_was_just_decoded_is_not_proposed_again():
    """CTC is so sure that all times within the three states of the 6 are equally likely."""
    log_probs = torch.full((1, 6, VOCABULARY), -200.0)
    for state, token in enumerate((5, 6, 6, 6, SPECIAL.blank, 7)):
        log_probs[0, state, token] = 0.0
    draft = Draft(log_probs, torch.tensor([6]), SPECIAL)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([6]), SPECIAL)
    for token, position in ((5, 1), (6, 2), (7, 3)):
        last = torch.tensor([token])
        scorer.advance(last)
        assert draft.align(torch.tensor([0]), scorer.exact_paths(), last).tolist() == [position]


def test_choices_after_a_mismatch_revise_the_rest_of_the_draft():
    """The first mismatch is at position 1. The choice at position 3 replaces a token (row 0), deletes one
    (row 1), inserts one because CTC is confident of its own (row 2), is EOS (row 4), or is improbable
    (row 5). The last two change nothing. Row 3 is not in the batch any more."""
    ctc, lengths, _ = ctc_output(*["5 _ 6 _ 7 _ 8 _ 6 _ 5 _"] * 6)
    draft = Draft(ctc, torch.tensor(lengths), SPECIAL)
    draft._probabilities[:] = torch.tensor([0.6, 0.6, 0.9, 0.9, 0.6, 0.6]).unsqueeze(1)
    rows = torch.tensor([0, 1, 2, 4, 5])
    positions = torch.zeros(5, dtype=torch.long)
    proposed = draft.next_tokens(rows, positions, 7)
    chosen, log_probs = proposed.clone(), torch.full_like(proposed, 0.9, dtype=torch.float).log()
    chosen[:, 1] = 8
    for row, choice in enumerate((5, 6, 5, EOS, 5)):
        chosen[row, 3] = choice
    log_probs[4, 3] = math.log(0.3)
    draft.revise(rows, positions, torch.ones(5, 1, dtype=torch.long), proposed, chosen, log_probs)
    original = [5, 6, 7, 8, 6, 5]
    revised = [[5, 6, 7, 5, 6, 5], [5, 6, 7, 6, 5], [5, 6, 7, 5, 8, 6, 5], original, original, original]
    tokens = [t[:n] for t, n in zip(draft.tokens.tolist(), draft.lengths.tolist(), strict=True)]
    assert tokens == revised
    assert all(set(t[n:]) <= {EOS} for t, n in zip(draft.tokens.tolist(), draft.lengths, strict=True))
    # A revised token begins in the state of the token that it replaces.
    scorer = CTCPrefixScorer(ctc, torch.tensor(lengths), SPECIAL)
    for position, token in enumerate((5, 6, 7), 1):
        last = torch.full((6,), token)
        scorer.advance(last)
        assert draft.align(torch.arange(6), scorer.exact_paths(), last).tolist() == [position] * 6
    last = torch.full((6,), 8)
    scorer.advance(last)
    assert draft.align(torch.arange(6), scorer.exact_paths(), last).tolist() == [4, 3, 5, 4, 4, 4]


def test_ctc_output_in_the_padding_is_no_draft():
    ctc, _, _ = ctc_output("5 _ 6 6 6 6", "_ 7 7 7 7 7")  # of which 3 states and 1 are valid
    lengths = torch.tensor([3, 1])
    draft, scorer = Draft(ctc, lengths, SPECIAL), CTCPrefixScorer(ctc, lengths, SPECIAL)
    assert draft.tokens.tolist() == [[5, 6], [EOS, EOS]]
    for token, positions in ((5, [1, 0]), (6, [2, 0]), (7, [2, 0])):
        last = torch.tensor([token, token])
        scorer.advance(last)
        assert draft.align(torch.arange(2), scorer.exact_paths(), last).tolist() == positions


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 300))
def test_the_number_of_positions_checked_costs_least(rows, right, wrong):
    draft_length = DraftLength(96, 0.9)
    draft_length.learn(right + wrong, wrong)
    share = (right + 9) / (right + wrong + 10)
    costs = [(96 + rows * n) / sum(share**i for i in range(n)) for n in range(1, MAX_LENGTH + 1)]
    length, gain = draft_length.best(rows)
    assert costs[length - 1] == pytest.approx(min(costs))
    assert gain == pytest.approx((96 + rows) / min(costs))


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["blank 0", "blank 8"])
@given(st.data())
def test_the_tokens_of_ctc_paths(special, data):
    blank = special.blank
    line = st.lists(st.sampled_from([blank, 5, 6]), min_size=1, max_size=12)
    rows = data.draw(st.lists(line, min_size=1, max_size=4))
    size = max(map(len, rows))
    padded = torch.tensor([[*row, *[5] * (size - len(row))] for row in rows])
    tokens, begun = collapse_paths(padded, torch.tensor([len(row) for row in rows]), special)
    for row, sequence, counts in zip(rows, tokens.tolist(), begun.tolist(), strict=True):
        expected = [t for t, _ in itertools.groupby(row) if t != blank]
        assert sequence == expected + [special.eos] * (len(sequence) - len(expected))
        assert counts[0] == 0 and counts[-1] == counts[len(row)] == len(expected)
