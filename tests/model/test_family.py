"""What every architecture must do: the same in a batch and alone, with caches and without, saved and loaded.

The models are in tests/architectures.py. Resuming is in tests/training/test_family_training.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from architectures import ARCHITECTURES, bundle
from torch.nn.functional import ctc_loss

from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.build import default_decoder
from asr.decoding.prompts import start_with_prompt, teacher_forced_log_probs, with_prompt
from asr.model.interfaces import CachedForward, FillsMasks, HasCTC, HasDecoder
from asr.model_folder import load_bundle

LENGTHS = (61, 13, 90, 30)  # frames
BEAMS = {"greedy": "beam", "ctc": "ctc"}  # mask-predict has no beam


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return bundle(request.param)


def batch(model, padding=0):
    """Features (B, T, F) that are zero after each length, and lengths."""
    features = torch.zeros(len(LENGTHS), max(LENGTHS) + padding, model.features.n_features)
    for row, length in zip(features, LENGTHS, strict=True):
        row[:length] = torch.randn(length, row.size(1), generator=torch.Generator().manual_seed(length))
    return features, torch.tensor(LENGTHS)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)


def decoded(model, memory, **options):
    return build_decoder(model, DecodingOptions(**options))(memory)


@torch.no_grad()
def test_a_batch_with_more_padding_equals_each_utterance_alone(model):
    features, lengths = batch(model, padding=17)
    memory = model.network.encode(features, lengths)
    for row, found in enumerate(decoded(model, memory)):
        alone = model.network.encode(features[row : row + 1, : LENGTHS[row]], lengths[row : row + 1])
        size = int(alone.lengths)
        assert size == int(memory.lengths[row])
        close(memory.states[row, :size], alone.states[0, :size])
        (expected,) = decoded(model, alone)
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert found[0].log_prob == pytest.approx(expected[0].log_prob, abs=1e-3)
    assert len({int(length) for length in memory.lengths}) == len(LENGTHS)


@torch.no_grad()
def test_the_rate_of_states_is_that_of_a_long_recording(model):
    frames = 480
    memory = model.network.encode(torch.zeros(1, frames, model.features.n_features), torch.tensor([frames]))
    assert int(memory.lengths) * model.network.frames_per_state == pytest.approx(frames)


@torch.no_grad()
def test_a_model_that_was_saved_and_loaded_is_the_same(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_bundle(tmp_path / "model", "cpu")
    assert loaded.config == model.config
    memory, again = (each.network.encode(*batch(each)) for each in (model, loaded))
    assert torch.equal(memory.states, again.states)
    assert decoded(model, memory) == decoded(loaded, again)


@torch.no_grad()
def test_caches_change_nothing(model):
    """Step by step, and several at once, against all positions without a cache; rows change places."""
    network, special = model.network, model.special
    if not isinstance(network, HasDecoder):
        assert isinstance(network, FillsMasks) or model.config.model.decoder is None
        return
    memory = network.encode(*batch(model))
    tokens = torch.randint(special.eos + 1, special.vocabulary_size, (len(LENGTHS), 7))
    expected = teacher_forced_log_probs(network, memory, tokens, special)  # (B, 8, V)
    order = torch.tensor([2, 0, 3, 1])
    state, last = start_with_prompt(network, memory, special, capacity=8)
    given, found = torch.cat([last.unsqueeze(1), tokens], 1), []
    for position in range(8):
        if position == 4:  # the rows change places
            state, given, expected = state.select(order), given[order], expected[order]
            found = [each[order] for each in found]
        found.append(network.step(given[:, position], state))
    close(torch.stack(found, 1), expected)
    if isinstance(network, CachedForward):
        memory = memory.select(order)
        state, _ = start_with_prompt(network, memory, special, capacity=8)
        sequences, first = with_prompt(tokens[order], special), len(special.prompt) - 1
        parts = []
        for begin, end in ((0, 3), (3, 8)):
            starts = torch.full((len(order),), first + begin)
            parts.append(network.forward_cached(sequences[:, first + begin : first + end], state, starts))
        close(torch.cat(parts, 1), expected)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_the_probability_of_a_hypothesis_is_that_of_its_tokens(model, beam):
    """Of greedy decoding, of CTC, and of their beams: scored again without caches, one by one."""
    network, special, name = model.network, model.special, default_decoder(model.network)
    options = {"decoder": BEAMS[name], "beam": beam, "n_best": beam} if beam > 1 and name in BEAMS else {}
    if name == "greedy" and beam == 1 and isinstance(network, HasCTC):
        options = {"draft": False}
    memory = network.encode(*batch(model))
    for row, hypotheses in enumerate(decoded(model, memory, **options)):
        alone = memory.select(torch.tensor([row]))
        assert 1 <= len(hypotheses) <= beam and (len(hypotheses) > 1) == ("n_best" in options)
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
        for found in hypotheses:
            tokens = torch.tensor([found.tokens], dtype=torch.long)
            assert 0 < found.confidence <= 1 and not set(found.tokens) & {special.eos, *special.suppressed}
            if name == "greedy" and found.finish_reason != "repetition":
                log_probs = teacher_forced_log_probs(network, alone, tokens, special)[0]
                targets = [*found.tokens, special.eos][: len(found.tokens) + found.finished]
                expected = sum(float(log_probs[i, token]) for i, token in enumerate(targets))
                assert found.log_prob == pytest.approx(expected, abs=2e-3)
            elif name == "ctc":
                log_probs = network.ctc(alone)[0, : int(alone.lengths)].unsqueeze(1)
                loss = ctc_loss(
                    log_probs, tokens, alone.lengths, torch.tensor([tokens.size(1)]), special.blank, "sum"
                )
                assert found.log_prob == pytest.approx(-float(loss), abs=2e-3)
            elif name == "mask-predict":
                assert found.finished and math.isfinite(found.log_prob)


@torch.no_grad()
def test_masked_positions_see_the_other_tokens_from_both_sides_and_not_their_own(model):
    network = model.network
    if not isinstance(network, FillsMasks):
        assert not hasattr(network, "fill")
        return
    memory = network.encode(*batch(model))
    tokens = torch.randint(4, model.special.vocabulary_size, (len(LENGTHS), 6))
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    masked[:, 2] = True
    lengths = torch.full((len(LENGTHS),), 5)

    def with_other(position):
        changed = tokens.clone()
        changed[:, position] = 4 + (changed[:, position] - 3) % (model.special.vocabulary_size - 4)
        return network.fill(changed, masked, lengths, memory)[:, 2]

    found = network.fill(tokens, masked, lengths, memory)[:, 2]
    assert torch.equal(with_other(2), found) and torch.equal(with_other(5), found)  # its own, and padding
    for position in (0, 4):
        assert (with_other(position) - found).abs().max() > 1e-3
