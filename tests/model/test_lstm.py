"""The pyramidal LSTM encoder and the LSTM decoder against independent code and against their definition."""

import pytest
import torch
from helpers import import_speechbrain
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.masks import length_mask
from asr.model.decoders.lstm import AdditiveScore, LSTMDecoder
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.encoders.pyramidal_lstm import PyramidalLSTMEncoder
from asr.model.interfaces import CachedForward, Memory, ShowsAttention

ATTENTIONS = ["additive", "dot_product", "none"]


def encoder(**settings):
    torch.manual_seed(0)
    return PyramidalLSTMEncoder(PyramidalLSTMEncoder.Config(d_model=8, **settings)).eval()


def decoder(attention="additive", n_layers=2):
    torch.manual_seed(0)
    config = LSTMDecoder.Config(d_model=8, n_layers=n_layers, attention=attention)
    model = LSTMDecoder(config, 9).eval()
    for parameter in model.parameters():
        parameter.data *= 2  # so that everything matters
    return model


def memory(lengths=(7, 4, 1), d_model=8):
    torch.manual_seed(1)
    lengths = torch.tensor(lengths)
    states = torch.randn(len(lengths), int(lengths.max()), d_model)
    return Memory(states * length_mask(lengths, states.size(1)).unsqueeze(2), lengths)


def test_a_row_alone_equals_the_row_in_a_batch_with_padding():
    model, x = encoder(halve_before=(2, 3)), torch.randn(3, 11, 8)
    lengths = torch.tensor([11, 6, 1])
    together = model(x, lengths)
    assert together.lengths.tolist() == [3, 2, 1] and together.states.shape == (3, 3, 8)
    for row, length in enumerate(lengths.tolist()):
        alone = model(x[row : row + 1, :length], lengths[row : row + 1])
        size = alone.states.size(1)
        torch.testing.assert_close(together.states[row, :size], alone.states[0])
        assert not together.states[row, size:].any()


def torch_lstm(layer):
    """torch's bidirectional LSTM with the weights of a layer."""
    size, cells = layer.from_start.input_size, layer.from_start.hidden_size
    lstm = nn.LSTM(size, cells, batch_first=True, bidirectional=True)
    for suffix, direction in (("", layer.from_start), ("_reverse", layer.from_end)):
        for name, value in direction.named_parameters():
            getattr(lstm, name + suffix).data.copy_(value)
    return lstm


def test_a_layer_equals_torchs_lstm_of_packed_rows():
    layer, x, lengths = encoder(n_layers=1, halve_before=()).layers[0], memory().states, memory().lengths
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    expected, _ = pad_packed_sequence(torch_lstm(layer)(packed)[0], batch_first=True)
    torch.testing.assert_close(layer(x, lengths), expected)


def test_layers_read_joined_pairs_in_both_directions():
    """The same weights in torch's bidirectional LSTM, one row without padding."""
    model, x = encoder(n_layers=2, halve_before=(2,)), torch.randn(1, 6, 8)
    first, _ = torch_lstm(model.layers[0])(x)
    pairs = torch.stack([torch.cat([first[0, i], first[0, i + 1]]) for i in (0, 2, 4)])[None]
    expected, _ = torch_lstm(model.layers[1])(pairs)
    torch.testing.assert_close(model(x, torch.tensor([6])).states, expected)
    changed = x.clone()
    changed[0, -1] += 1  # the backward direction carries the last frame to the first state
    assert (model(changed, torch.tensor([6])).states - expected)[0, 0].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 7}, "d_model 7 is odd"),
        ({"n_layers": 2, "halve_before": (3,)}, "layer 3, but n_layers is 2"),
        ({"halve_before": (2, 2)}, "names a layer twice"),
    ],
)
def test_impossible_encoders_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PyramidalLSTMEncoder.Config(**{"d_model": 8} | settings)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_steps_equal_teacher_forcing(attention):
    model, tokens = decoder(attention), torch.randint(1, 9, (3, 5))
    state = model.start(memory(), 5)
    steps = torch.stack([model.step(tokens[:, i], state) for i in range(5)], 1)
    torch.testing.assert_close(steps, model(tokens, memory()))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_hypotheses_continue_others_and_rows_are_selected(attention):
    """Rows of utterances 2 and 0, then two hypotheses for each, one continuing the other's history."""
    model, prefix = decoder(attention), torch.tensor([[1, 3], [1, 4], [1, 5]])
    state = model.start(memory(), 4)
    for column in prefix.unbind(1):
        model.step(column, state)
    state = state.select(torch.tensor([2, 0])).reorder(torch.tensor([[0, 0], [0, 0]]))
    model.step(torch.tensor([6, 7, 6, 7]), state)
    state = state.reorder(torch.tensor([[1, 1], [0, 1]]))
    found = model.step(torch.tensor([2, 8, 2, 8]), state)
    texts = [(2, [1, 5, 7, 2]), (2, [1, 5, 7, 8]), (0, [1, 3, 6, 2]), (0, [1, 3, 7, 8])]
    for row, (utterance, tokens) in zip(found, texts, strict=True):
        alone = memory().select(torch.tensor([utterance]))
        torch.testing.assert_close(row, model(torch.tensor([tokens]), alone)[0, -1])


@pytest.mark.parametrize("attention", ["additive", "dot_product"])
def test_attention_weights_sum_to_one_over_valid_states_and_give_the_context(attention):
    model, tokens = decoder(attention), torch.randint(1, 9, (3, 5))
    weights = model.cross_attention(tokens, memory())  # (B, 1, 1, U, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 1, 5))
    assert not weights[1, ..., 4:].any() and not weights[2, ..., 1:].any()
    state = model.start(memory(), 5)
    model.step(tokens[:, 0], state)
    torch.testing.assert_close(state.context, (weights[:, 0, 0, :1] @ memory().states).squeeze(1))


def test_without_attention_one_vector_is_all_that_the_decoder_sees():
    model, tokens, original = decoder("none"), torch.randint(1, 9, (1, 5)), memory((7,))
    logits = model(tokens, original)
    inner = original.states.clone()
    inner[0, 1:-1] += 1  # the first and the last state form the context
    torch.testing.assert_close(model(tokens, Memory(inner, original.lengths)), logits)
    for position, half in ((0, slice(4, 8)), (-1, slice(0, 4))):
        changed = original.states.clone()
        changed[0, position, half] += 1
        assert (model(tokens, Memory(changed, original.lengths)) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_model_offers_what_its_decoder_can_do(attention):
    section = {"d_model": 8, "encoder": {"kind": "pyramidal_lstm"}, "decoder": {"kind": "lstm"}}
    section["decoder"]["attention"] = attention
    model = EncoderDecoder(EncoderDecoder.Config.model_validate(section), 12, 9)
    assert isinstance(model, ShowsAttention) is (attention != "none")
    assert not isinstance(model, CachedForward)


def test_a_decoder_equals_torchs_lstm_when_the_context_is_constant():
    model, tokens, encoded = decoder("none"), torch.randint(1, 9, (3, 5)), memory()
    lstm = nn.LSTM(16, 8, num_layers=2, batch_first=True)
    for layer, cell in enumerate(model.cells):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(lstm, f"{name}_l{layer}").data.copy_(getattr(cell, name))
    context = model.start(encoded, 5).context.unsqueeze(1).expand(-1, 5, -1)  # (B, U, d_model)
    states, _ = lstm(torch.cat((model.embed(tokens), context), 2))
    expected = model.out(torch.tanh(model.combine(torch.cat((states, context), 2))))
    torch.testing.assert_close(model(tokens, encoded), expected)


def test_additive_attention_equals_speechbrain():
    attention = import_speechbrain("speechbrain.nnet.attention")
    torch.manual_seed(0)
    theirs = attention.ContentBasedAttention(enc_dim=8, dec_dim=8, attn_dim=8, output_dim=8, scaling=1.0)
    ours, encoded, query = AdditiveScore(8), memory(), torch.randn(3, 8)
    with torch.no_grad():
        ours.query.weight.copy_(theirs.mlp_dec.weight)
        theirs.mlp_dec.bias.zero_()  # one bias is enough: both are added before tanh
        ours.key.weight.copy_(theirs.mlp_enc.weight)
        ours.key.bias.copy_(theirs.mlp_enc.bias)
        ours.vector.weight.copy_(theirs.mlp_attn.weight)
    _, expected = theirs(encoded.states, encoded.lengths, query)
    scores = ours(query.unsqueeze(1), ours.key(encoded.states)).squeeze(1)
    mask = length_mask(encoded.lengths, scores.size(1))
    torch.testing.assert_close(scores.masked_fill(~mask, -torch.inf).softmax(-1), expected.squeeze(-1))
