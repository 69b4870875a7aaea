"""Every option of the Transformer: batch equals single, caches equal no caches, and its formula."""

import math

import pytest
import torch
from model_networks import MELS, VOCABULARY, batch, close, network, tokens
from pydantic import ValidationError

from asr.decoding import DecodingOptions, greedy
from asr.errors import AsrError
from asr.model.blocks import BlockSection
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.encoders.conformer import ConformerEncoder
from asr.model.encoders.transformer import TransformerEncoder
from asr.model.interfaces import LimitsPositions
from asr.model.language_model import LanguageModel
from asr.tokenizers import CharacterTokenizer

SPEECH2TEXT = dict(
    kind="convolution1d", channels=6, kernels=(5, 5), strides=(2, 2), activation="glu", scale=True
)
OPTIONS = {
    "none": dict(positions="none"),
    "concatenated": dict(positions=dict(kind="sinusoidal", layout="concatenated", offset=2)),
    "learned": dict(positions=dict(kind="learned", max_length=20)),
    "rotary": dict(positions="rotary"),
    "relative": dict(encoder=dict(n_layers=2, positions="relative")),
    "shaw": dict(encoder=dict(n_layers=2, positions=dict(kind="shaw", max_distance=3))),
    "window": dict(encoder=dict(n_layers=2, window=2)),
    "patches": dict(front_end=dict(kind="patches", frames=4, bins=5)),
    "stacked": dict(front_end=dict(kind="stacked", frames=5, stride=3)),
    "gelu": dict(activation="gelu", norm="post"),
    "swiglu": dict(activation="swiglu"),
    "whisper": dict(
        front_end=dict(kind="convolution1d"),
        encoder=dict(n_layers=2, positions=dict(kind="sinusoidal", layout="concatenated")),
        decoder=dict(n_layers=2, positions="learned", tie_embedding=True, scale_embedding=False),
        activation="gelu",
        key_bias=False,
    ),
    "speech2text": dict(
        front_end=SPEECH2TEXT,
        decoder=dict(n_layers=2, tie_embedding=True),
        positions=dict(kind="sinusoidal", layout="concatenated", offset=2),
    ),
}
LENGTHS = [31, 8, 1, 17]
EVERY_OPTION = pytest.mark.parametrize("option", OPTIONS)


def model_of(option, **settings):
    return network(**OPTIONS[option] | settings)


# ------------------------------------------------------------------------------- what every option must keep


@torch.no_grad()
@EVERY_OPTION
def test_batch_equals_single(option):
    model, spoken = model_of(option), tokens(4, 5)
    memory = model.encode(*batch(LENGTHS, padding=7))
    logits = model.decode(torch.cat([spoken, torch.zeros(4, 2, dtype=torch.long)], 1), memory)
    for row, length in enumerate(LENGTHS):
        alone = model.encode(*batch([length]))
        states = int(alone.lengths[0])
        assert int(memory.lengths[row]) == states == alone.states.size(1)
        close(memory.states[row, :states], alone.states[0])
        close(logits[row, :5], model.decode(spoken[row : row + 1], alone)[0])


@torch.no_grad()
@EVERY_OPTION
def test_steps_and_cached_passes_equal_all_positions_at_once(option):
    model, count = model_of(option), 7
    memory, spoken = model.encode(*batch(LENGTHS)), tokens(4, count)
    expected = model.decode(spoken, memory).log_softmax(-1)  # (B, U, V)
    state, cached = model.start(memory, count), model.start(memory, count)
    for position in range(count):
        close(model.step(spoken[:, position], state), expected[:, position])
    close(model.forward_cached(spoken[:, :3], cached, torch.zeros(4, dtype=torch.long)), expected[:, :3])
    starts = torch.tensor([3, 1, 2, 0])  # each row goes on from its own position
    own = starts.unsqueeze(1) + torch.arange(4)
    found = model.forward_cached(spoken.gather(1, own), cached, starts)
    close(found, expected.gather(1, own.unsqueeze(2).expand(-1, -1, VOCABULARY)))


@torch.no_grad()
@EVERY_OPTION
def test_reordered_and_selected_hypotheses_go_on(option):
    model = model_of(option)
    memory, spoken = model.encode(*batch([30, 7, 18])), tokens(6, 6).view(3, 2, 6)
    state = model.start(memory, 6).reorder(torch.zeros(3, 2, dtype=torch.long))
    for position in range(3):
        model.step(spoken[:, :, position].flatten(), state)
    parents, kept = torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([2, 0])
    state = state.reorder(parents).select(kept)
    prefixes = spoken[:, :, :3].gather(1, parents.unsqueeze(2).expand(-1, -1, 3))
    whole = torch.cat([prefixes, spoken[:, :, 3:]], 2)[kept].flatten(0, 1)  # (4, 6)
    expected = model.decode(whole, memory.select(kept.repeat_interleave(2))).log_softmax(-1)
    for position in range(3, 6):
        close(model.step(whole[:, position], state), expected[:, position])


@EVERY_OPTION
def test_gradients_reach_every_parameter(option):
    model = model_of(option, dropout=0.1).train()
    memory = model.encode(*batch([40, 30]))
    # The sum of log-probabilities would have no gradient at the output's bias.
    loss = (
        model.decode(tokens(2, 5), memory).log_softmax(-1)[..., 1:4].sum() + model.ctc(memory)[..., 2].sum()
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-6, name


# --------------------------------------------------------------------------------------- what an option means


@torch.no_grad()
@pytest.mark.parametrize("kind", [TransformerEncoder, ConformerEncoder])
def test_an_encoder_without_positions_is_permutation_equivariant(kind):
    """A convolution with a kernel of 1 sees one state alone."""

    def states(positions):
        torch.manual_seed(0)
        sizes = dict(d_model=16, n_heads=2, d_ffn=24, n_layers=3, positions=positions, conv_kernel=1)
        encoder = kind(kind.Config(**sizes)).eval()
        order, lengths = torch.randperm(9), torch.tensor([9])
        x = torch.randn(1, 9, 16)
        return encoder(x[:, order], lengths).states, encoder(x, lengths).states[:, order]

    torch.testing.assert_close(*states("none"), rtol=1e-5, atol=1e-5)
    for positions in ("sinusoidal", "learned", "rotary", "relative", "shaw"):
        permuted, expected = states(positions)
        assert (permuted - expected).abs().max() > 1e-2, positions


@torch.no_grad()
def test_a_tied_output_is_the_embedding_without_bias():
    model = model_of("whisper")
    names = [name for name, _ in model.decoder.named_parameters()]
    assert "embed.weight" in names and not any(name.startswith("out.") for name in names)
    memory, spoken = model.encode(*batch([20])), tokens(1, 4)
    seen = []
    model.decoder.norm.register_forward_hook(lambda _, __, output: seen.append(output))
    logits = model.decode(spoken, memory)
    torch.testing.assert_close(logits, seen[0] @ model.decoder.embed.weight.T)


@torch.no_grad()
@pytest.mark.parametrize(("scaled", "factor"), [(True, 4.0), (False, 1.0)])
def test_embeddings_are_scaled_by_the_root_of_d_model_or_not(scaled, factor):
    model = network(decoder=dict(n_layers=1, scale_embedding=scaled, positions="none"))
    memory, spoken = model.encode(*batch([20])), tokens(1, 4)
    seen = []
    model.decoder.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.decode(spoken, memory)
    torch.testing.assert_close(seen[0], factor * model.decoder.embed.weight[spoken])


@torch.no_grad()
def test_keys_without_bias_are_a_product_alone():
    attention = model_of("whisper").encoder.blocks[0].attention
    assert attention.key_value.bias is None and attention.value_bias.shape == (16,)
    keys, values = attention.project(torch.zeros(1, 3, 16))
    assert not keys.any()
    torch.testing.assert_close(values.transpose(1, 2).flatten(2)[0, 0], attention.value_bias)


@torch.no_grad()
def test_decoding_ends_where_learned_positions_end():
    """Neither the duration nor EOS ends this text: without the limit decoding would fail."""
    special = CharacterTokenizer(tuple("abcde")).special
    model = network(decoder=dict(n_layers=1, positions=dict(kind="learned", max_length=6)))
    model.decoder.out.bias[special.eos] = -100.0
    assert isinstance(model, LimitsPositions) and not isinstance(network(), LimitsPositions)
    memory = model.encode(*batch([200, 90]))
    for ctc_weight in (0.0, 0.3):
        found = greedy(model, memory, special, DecodingOptions(decoder="greedy", ctc_weight=ctc_weight))
        assert [len(best.tokens) for (best,) in found] == [5, 5]
    with pytest.raises(AsrError, match="needs 7 positions, but this model has 6"):
        model.decode(tokens(2, 7), memory)


@torch.no_grad()
def test_recordings_beyond_the_learned_positions_are_refused():
    model = network(encoder=dict(n_layers=1, positions=dict(kind="learned", max_length=6)))
    assert model.encode(*batch([24])).states.shape == (1, 6, 16)
    with pytest.raises(AsrError, match="needs 7 positions, but this model has 6"):
        model.encode(*batch([25]))


def test_a_language_model_has_the_same_options():
    config = LanguageModel.Config(d_model=16, n_heads=2, d_ffn=8, positions="rotary", tie_embedding=True)
    model, text = LanguageModel(config, VOCABULARY).eval(), tokens(2, 5)
    with torch.no_grad():
        expected, state = model(text).log_softmax(-1), model.start(2, 5)
        for position in range(5):
            close(model.step(text[:, position], state), expected[:, position])


# ------------------------------------------------------------------------------------------------- front ends


@torch.no_grad()
@pytest.mark.parametrize(
    ("front_end", "divisors"),
    [(dict(kind="convolution1d"), (1, 2)), (SPEECH2TEXT, (2, 2))],
)
def test_lengths_of_one_dimensional_convolutions(front_end, divisors):
    model = network(front_end=front_end)
    lengths = list(range(1, 14))
    memory = model.encode(*batch(lengths))
    expected = [math.ceil(math.ceil(n / divisors[0]) / divisors[1]) for n in lengths]
    assert memory.lengths.tolist() == expected and memory.states.size(1) == max(expected)


@torch.no_grad()
def test_states_of_the_patch_front_end_are_patches_in_the_order_of_time():
    front_end = network(front_end=dict(kind="patches", frames=4, bins=5)).front_end
    features, lengths = batch([9, 3])
    found, states = front_end(features, lengths)  # 3 times of 3 bands: the last of each is filled with zeros
    assert states.tolist() == [9, 3] and found.shape == (2, 9, 16)
    filled = torch.zeros(2, 12, 15)
    filled[:, :9, :MELS] = features
    for time in range(3):
        for band in range(3):
            patch = filled[:, 4 * time : 4 * time + 4, 5 * band : 5 * band + 5].flatten(1)
            expected = front_end.norm(front_end.project(patch) + front_end.band[band])
            torch.testing.assert_close(found[:, 3 * time + band], expected)


@torch.no_grad()
def test_states_of_the_stacked_front_end_are_frames_side_by_side():
    front_end = network(front_end=dict(kind="stacked", frames=5, stride=3)).front_end
    features, lengths = batch([7, 3])
    found, states = front_end(features, lengths)
    assert states.tolist() == [3, 1] and found.shape == (2, 3, 16)
    filled = torch.cat([features, torch.zeros(2, 4, MELS)], 1)
    for state in range(3):
        expected = front_end.norm(front_end.project(filled[:, 3 * state : 3 * state + 5].flatten(1)))
        torch.testing.assert_close(found[:, state], expected)


@torch.no_grad()
def test_the_front_end_equals_that_of_whisper():
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        num_mel_bins=MELS, d_model=16, encoder_layers=0, max_source_positions=20
    )
    theirs = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
    ours = network(front_end=dict(kind="convolution1d")).front_end
    theirs.conv1.load_state_dict(ours.convolutions[0].state_dict())
    theirs.conv2.load_state_dict(ours.convolutions[1].state_dict())
    theirs.embed_positions.weight.zero_()
    theirs.layer_norm = torch.nn.Identity()
    features, lengths = batch([40, 40])
    found, _ = ours(features, lengths)
    torch.testing.assert_close(found, theirs(features.transpose(1, 2))[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_front_end_equals_that_of_speech2text():
    transformers = pytest.importorskip("transformers")
    config = transformers.Speech2TextConfig(
        input_feat_per_channel=MELS, d_model=16, conv_channels=12, conv_kernel_sizes=(5, 5), encoder_layers=0
    )
    theirs = transformers.models.speech_to_text.modeling_speech_to_text.Speech2TextEncoder(config).eval()
    ours = network(front_end=SPEECH2TEXT).front_end
    for ours_, theirs_ in zip(ours.convolutions, theirs.conv.conv_layers, strict=True):
        theirs_.load_state_dict(ours_.state_dict())
    features, lengths = batch([37])
    found, _ = ours(features, lengths)
    torch.testing.assert_close(found, theirs.conv(features) * theirs.embed_scale, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------- wrong settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(positions="circular"), "unknown kind 'circular'; choose one of none, sinusoidal"),
        (dict(positions=dict(kind="rotary", layout="interleaved")), "unknown key"),
        (dict(positions="rotary", d_model=12, n_heads=4), "rotary positions need an even number"),
        (dict(positions="relative"), "positions relative are only for encoders; choose none, sinusoidal"),
        (dict(front_end=dict(kind="stacked", stride=5)), "stride 5 is more than frames 4"),
        (dict(encoder=dict(window=0)), "greater than 0"),
        (dict(front_end=dict(kind="convolution1d", kernels=(4, 3))), "odd numbers"),
        (dict(front_end=dict(kind="convolution1d", kernels=(3, 3, 3))), "3 kernels but 2 strides"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        EncoderDecoder.Config.model_validate(settings)


def test_the_activation_of_blocks_is_not_that_of_the_front_end():
    config = EncoderDecoder.Config.model_validate(
        dict(activation="relu", front_end=dict(kind="convolution1d"), d_model=32)
    )
    assert config.front_end.activation == "gelu" and config.encoder.activation == "relu"
    assert config.front_end.d_model == 32


def test_positions_by_name_are_a_section():
    by_name = BlockSection(kind="test", positions="learned")
    assert by_name.positions == BlockSection(kind="test", positions=dict(kind="learned")).positions
    assert by_name.positions.max_length == 1024
