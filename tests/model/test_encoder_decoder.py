"""The EncoderDecoder by its interface: caches, padding, causality, lengths, gradients."""

import shutil

import pytest
import torch
from helpers import BOS, EOS
from hypothesis import given, settings
from hypothesis import strategies as st
from model_networks import VOCABULARY, batch, close, network, tokens
from torch import nn

from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import HasCTC, Memory, ShowsAttention
from asr.tokenizers import CharacterTokenizer
from asr.training.losses import joint_loss

MODEL = network()  # for what does not depend on sizes
NORMS = pytest.mark.parametrize("norm", ["pre", "post"])
SIZES = st.fixed_dictionaries(
    {
        "n_heads": st.sampled_from([1, 2, 4]),
        "d_model": st.sampled_from([8, 16]),
        "encoder_layers": st.integers(1, 2),
        "decoder_layers": st.integers(1, 3),
        "norm": st.sampled_from(["pre", "post"]),
        "conv_kernel": st.sampled_from([0, 3, 5]),
    }
)
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


# ------------------------------------------------------------------------------------------------- caches


@torch.no_grad()
@settings(max_examples=30)
@given(SIZES, LENGTHS, st.integers(1, 8), st.integers(0, 100))
def test_step_by_step_equals_all_positions_at_once(sizes, lengths, count, seed):
    model = network(seed, **sizes)
    memory, spoken = model.encode(*batch(lengths)), tokens(len(lengths), count)
    expected = model.decode(spoken, memory).log_softmax(-1)  # (B, U, V)
    state = model.start(memory, count)
    for position in range(count):
        close(model.step(spoken[:, position], state), expected[:, position])


@torch.no_grad()
@NORMS
@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0, 2, 2, 2], [2], [0, 2]])
def test_rows_of_a_state_are_reordered_repeated_and_dropped(norm, rows):
    model, before, after = network(norm=norm), 3, 3
    memory, spoken = model.encode(*batch([30, 7, 18])), tokens(3, before)
    state = model.start(memory, before + after)
    for position in range(before):
        model.step(spoken[:, position], state)
    chosen = state.select(torch.tensor(rows))
    further = tokens(len(rows), after + 1)[:, 1:]  # copies of a row continue with different tokens
    whole = torch.cat([spoken[rows], further], dim=1)
    selected = memory.select(torch.tensor(rows))
    expected = model.decode(whole, selected).log_softmax(-1)
    for position in range(before, before + after):
        close(model.step(whole[:, position], chosen), expected[:, position])

    # The original state is not changed.
    assert state.position == before
    others = torch.cat([spoken, tokens(3, after + 1)[:, 1:].flip(0)], dim=1)
    expected = model.decode(others, memory).log_softmax(-1)
    for position in range(before, before + after):
        close(model.step(others[:, position], state), expected[:, position])


@torch.no_grad()
def test_a_step_beyond_the_capacity_is_refused():
    model = network()
    state = model.start(model.encode(*batch([9, 5])), 2)
    for _ in range(2):
        model.step(torch.tensor([BOS, BOS]), state)
    with pytest.raises(IndexError, match="2 positions"):
        model.step(torch.tensor([BOS, BOS]), state)


@torch.no_grad()
def test_positions_beyond_the_table():
    model, small = network(), network()
    for module in (small.encoder.positions, small.decoder.positions):
        module.table = module.table[:2]
    features, spoken = batch([60, 33]), tokens(2, 12)
    expected = model.decode(spoken, model.encode(*features))
    memory = small.encode(*features)
    state = small.start(memory, 12)
    for position in range(12):
        close(small.step(spoken[:, position], state), expected[:, position].log_softmax(-1))
    close(small.decode(spoken, memory), expected)


# ---------------------------------------------------------------------------- padding, causality and lengths


@torch.no_grad()
@settings(max_examples=30)
@given(SIZES, LENGTHS, st.integers(0, 30), st.integers(1, 6), st.integers(0, 100))
def test_padding_changes_neither_memory_nor_logits_nor_ctc(sizes, lengths, padding, count, seed):
    model = network(seed, **sizes)
    memory, spoken = model.encode(*batch(lengths, padding)), tokens(len(lengths), count)
    padded = torch.cat([spoken, torch.zeros(len(lengths), 3, dtype=torch.long)], dim=1)
    logits, ctc = model.decode(padded, memory), model.ctc(memory)
    for row, length in enumerate(lengths):
        alone = model.encode(*batch([length]))
        states = int(alone.lengths[0])
        assert int(memory.lengths[row]) == states == alone.states.size(1)
        close(memory.states[row, :states], alone.states[0])
        close(logits[row, :count], model.decode(spoken[row : row + 1], alone)[0])
        close(ctc[row, :states], model.ctc(alone)[0])


@torch.no_grad()
@NORMS
def test_the_decoder_does_not_see_the_padding_of_the_memory(norm):
    model = network(norm=norm)
    memory, spoken = model.encode(*batch([40, 9])), tokens(2, 5)
    changed = memory.states.clone()
    changed[1, int(memory.lengths[1]) :] = 1e3
    changed = Memory(changed, memory.lengths)
    close(model.decode(spoken, changed), model.decode(spoken, memory))
    close(model.step(spoken[:, 0], model.start(changed, 1)), model.step(spoken[:, 0], model.start(memory, 1)))


@torch.no_grad()
@NORMS
def test_a_later_token_changes_no_earlier_logits(norm):
    model = network(norm=norm)
    memory, spoken = model.encode(*batch([20])), tokens(1, 6)
    logits = model.decode(spoken, memory)
    for position in range(1, 6):
        changed = spoken.clone()
        changed[0, position] = EOS if spoken[0, position] != EOS else EOS + 1
        found = model.decode(changed, memory)
        close(found[:, :position], logits[:, :position])
        assert (found[0, position:] - logits[0, position:]).abs().amax(-1).gt(1e-3).all()


@torch.no_grad()
@NORMS
def test_every_frame_changes_the_output(norm):
    model = network(norm=norm)
    features, lengths = batch([23])
    expected = model.decode(tokens(1, 3), model.encode(features, lengths))
    for frame in range(23):
        changed = features.clone()
        changed[0, frame] += 3
        assert not torch.allclose(
            model.decode(tokens(1, 3), model.encode(changed, lengths)), expected, atol=1e-4
        )


@torch.no_grad()
@given(LENGTHS, st.integers(0, 9))
def test_time_is_divided_by_exactly_4(lengths, padding):
    memory = MODEL.encode(*batch(lengths, padding))
    assert memory.lengths.tolist() == [-(-n // 4) for n in lengths]
    assert memory.states.shape == (len(lengths), -(-(max(lengths) + padding) // 4), 16)


@torch.no_grad()
def test_one_frame_is_enough():
    memory = MODEL.encode(*batch([1]))
    assert memory.states.shape == (1, 1, 16) and memory.states.isfinite().all()
    assert MODEL.step(torch.tensor([BOS]), MODEL.start(memory, 1)).isfinite().all()


@torch.no_grad()
def test_probabilities_sum_to_1_and_there_is_no_ctc_without_a_head():
    memory = MODEL.encode(*batch([20, 5]))
    ctc, step = MODEL.ctc(memory), MODEL.step(torch.tensor([BOS] * 2), MODEL.start(memory, 1))
    assert ctc.shape == (2, 5, VOCABULARY) and step.shape == (2, VOCABULARY)
    close(ctc.exp().sum(-1), torch.ones(2, 5))
    close(step.exp().sum(-1), torch.ones(2))
    headless = network(ctc=False)
    assert not isinstance(headless, HasCTC) and isinstance(MODEL, HasCTC)
    assert not [name for name in headless.state_dict() if "ctc" in name]


# ------------------------------------------------------------------------------------ what attention looks at


@torch.no_grad()
@NORMS
def test_cross_attention_weights_are_those_of_decode(norm, monkeypatch):
    """Decoding with the weights shown, in place of computing them, gives the same logits."""
    model = network(norm=norm, decoder_layers=3)
    assert isinstance(model, ShowsAttention)
    given_, memory = tokens(3, 6), model.encode(*batch([40, 23, 5]))
    weights = model.cross_attention(given_, memory)
    assert weights.shape == (3, 3, 2, 6, 10)  # (B, n_layers, n_heads, U, S)
    close(weights.sum(-1), torch.ones(3, 3, 2, 6))
    for row, length in zip(weights, memory.lengths, strict=True):
        assert (row[..., length:] == 0).all() and (row[..., :length] > 0).all()

    logits = model.decode(given_, memory)
    for layer, block in enumerate(model.decoder.blocks):

        def attend(x, keys, values, mask, layer=layer, out=block.cross_attention.out):
            return out((weights[:, layer] @ values).transpose(1, 2).flatten(2))

        monkeypatch.setattr(block.cross_attention, "attend", attend)
    close(model.decode(given_, memory), logits)


# ----------------------------------------------------------------------------------------------- gradients


@NORMS
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_of_the_joint_loss_reach_every_parameter(norm, dropout):
    model = network(norm=norm, dropout=dropout).train()
    texts = torch.tensor([[5, 6, 4, 8], [7, 5, 0, 0]])
    special = CharacterTokenizer(tuple("abcde")).special
    loss = joint_loss(model, model.encode(*batch([40, 30])), texts, torch.tensor([4, 2]), special, 0.3, 0.1)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-6, name


def test_without_ctc_weight_the_ctc_head_learns_nothing():
    model = network().train()
    special = CharacterTokenizer(tuple("abcde")).special
    texts, lengths = torch.tensor([[5, 6]]), torch.tensor([2])
    loss = joint_loss(model, model.encode(*batch([40])), texts, lengths, special, ctc_weight=0.0)
    loss.total.backward()
    unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unreached == ["ctc_head.weight", "ctc_head.bias"]


def test_the_base_preset_has_the_paper_s_size():
    """6 blocks each of attention (4 d^2) and feed-forward (8 d^2); the decoder's have two attentions."""
    with torch.device("meta"):
        model = EncoderDecoder(EncoderDecoder.Config(preset="base"), 80, 100)
    d = 512
    for blocks, attentions in ((model.encoder.blocks, 1), (model.decoder.blocks, 2)):
        matrices = sum(p.numel() for p in blocks.parameters() if p.dim() == 2)
        assert matrices == 6 * (attentions * 4 * d * d + 2 * d * 2048)


def test_blocks_at_every_rate_are_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append(type(self).__name__))
    settings = {"kind": "conformer", "n_layers": 3, "half_rate_layers": 2, "quarter_rate_layers": 1}
    network(encoder=settings, decoder={"n_layers": 2}).compile(dynamic=True)
    assert sorted(compiled) == ["ConformerBlock"] * 6 + ["DecoderBlock"] * 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"positions": "rotary", "activation": "swiglu", "key_bias": False},
        {"encoder": {"n_layers": 2, "positions": "relative", "window": 2}},
        {"encoder": {"kind": "conformer", "n_layers": 1, "half_rate_layers": 1}},
    ],
)
def test_compiled_blocks_compute_the_same(settings):
    model, (features, lengths) = network(**settings), batch([40, 23])
    given_tokens = tokens(2, 5)
    plain = model.decode(given_tokens, model.encode(features, lengths))
    model.compile(dynamic=True)
    compiled = model.decode(given_tokens, model.encode(features, lengths))
    assert torch.allclose(plain, compiled, atol=1e-4)
