"""Which decoder a model gets, and what is refused in one line because a part is missing."""

import pytest
import torch
from decoding_networks import StepOnly, StepOnlyWithCTC, random_processor
from helpers import sections

from asr.config import Config
from asr.decoding import DecodingOptions, beam_search, build_decoder, greedy
from asr.decoding.ctc import ctc_decode
from asr.decoding.rescoring import rescore
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer(tuple(" abcd"))  # nine tokens
SPECIAL = TOKENIZER.special


def bundle(wrap=lambda network: network, **parts):
    """A small random recognizer. `parts` are settings of the model; `wrap` hides operations."""
    torch.manual_seed(1)
    sizes = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=1, conv_channels=2)
    train = {"ctc_weight": 0.0 if parts.get("ctc") is False else 1.0 if "decoder" in parts else 0.3}
    config = Config.model_validate({"model": sections(**sizes) | parts, "train": train})
    made = Bundle.build(config, TOKENIZER).eval()
    made.network.requires_grad_(False)
    for parameter in made.network.parameters():
        parameter *= 1.5
    made.encode = made.network.encode
    network = wrap(made.network)
    made.network = network
    return made


@pytest.fixture
def audio():
    return torch.randn(2, 60, 80), torch.tensor([60, 31])


def test_the_default_decoder_is_greedy_or_ctc_if_there_is_no_decoder(audio):
    for model, decode in (
        (bundle(), greedy),
        (bundle(ctc=False), greedy),
        (bundle(decoder=None), ctc_decode),
    ):
        memory = model.encode(*audio)
        options = DecodingOptions()
        assert build_decoder(model, options)(memory) == decode(model.network, memory, SPECIAL, options)


def test_a_ctc_model_takes_the_options_of_the_decoder_ctc(audio):
    model = bundle(decoder=None)
    memory = model.encode(*audio)
    options = DecodingOptions(beam=4, n_best=3)
    found = build_decoder(model, options)(memory)
    assert found == ctc_decode(model.network, memory, SPECIAL, DecodingOptions("ctc", beam=4, n_best=3))
    assert len(found[0]) == 3
    with pytest.raises(AsrError, match="max_tokens: the decoder 'ctc' has no such option"):
        build_decoder(model, DecodingOptions(max_tokens=3))
    with pytest.raises(AsrError, match="beam: the decoder 'greedy' has no such option"):
        build_decoder(bundle(), options)


@pytest.mark.parametrize(
    "options, decode",
    [
        (DecodingOptions("greedy", max_tokens=4), greedy),
        (DecodingOptions("beam", beam=3, n_best=2), beam_search),
        (DecodingOptions("ctc", beam=3, n_best=2), ctc_decode),
        (DecodingOptions("rescoring", beam=3, n_best=2), rescore),
    ],
)
def test_each_name_is_its_decoder(options, decode, audio):
    model = bundle()
    memory = model.encode(*audio)
    assert build_decoder(model, options)(memory) == decode(model.network, memory, SPECIAL, options)


WITHOUT_CTC, WITHOUT_DECODER = dict(ctc=False), dict(decoder=None)


@pytest.mark.parametrize(
    "parts, options, complaint",
    [
        (WITHOUT_CTC, dict(decoder="ctc"), "decoder ctc: this model has no CTC head"),
        (WITHOUT_CTC, dict(decoder="rescoring"), "decoder rescoring: this model has no CTC head"),
        (WITHOUT_CTC, dict(draft=True), "draft: this model has no CTC head"),
        (WITHOUT_CTC, dict(ctc_weight=0.3), "ctc_weight 0.3: this model has no CTC head"),
        (WITHOUT_CTC, dict(candidates=3), "candidates: only the decoder scores"),
        (
            WITHOUT_DECODER,
            dict(decoder="greedy"),
            "decoder greedy: this model has no decoder; use the decoder ctc",
        ),
        (WITHOUT_DECODER, dict(decoder="beam"), "decoder beam: this model has no decoder"),
        (WITHOUT_DECODER, dict(decoder="rescoring"), "decoder rescoring: this model has no decoder"),
        (WITHOUT_DECODER, dict(draft=True), "draft: the decoder 'ctc' has no such option"),
    ],
)
def test_what_a_missing_part_cannot_do_is_refused(parts, options, complaint):
    with pytest.raises(AsrError) as caught:
        build_decoder(bundle(**parts), DecodingOptions(**options))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_what_ctc_alone_cannot_use_is_refused(tmp_path):
    with pytest.raises(AsrError, match="beam 1: the decoder ctc then uses no other scores; give a beam of 2"):
        build_decoder(bundle(), DecodingOptions("ctc", hot_words=("ab",)))
    with pytest.raises(AsrError, match="the decoder ctc cannot use a network; use a word n-gram model"):
        build_decoder(bundle(), DecodingOptions("ctc", beam=2, language_model=str(tmp_path)))


def test_a_path_of_a_model_is_stored_as_text(tmp_path):
    assert DecodingOptions("beam", language_model=tmp_path).language_model == str(tmp_path)


def test_options_with_impossible_values():
    with pytest.raises(AsrError, match="hot_words 'anna': the value has the wrong type; give a tuple"):
        DecodingOptions("beam", hot_words="anna")
    for name, value, complaint in (
        ("no_speech_threshold", -0.1, "below 0"),
        ("no_speech_threshold", 7.0, "above 1"),
        ("max_compression_ratio", -1, "below 0"),
        ("min_log_prob", 3, "above 0"),
    ):
        with pytest.raises(AsrError, match=f"{name} {value}: {complaint}; choose"):
            DecodingOptions(fallback=True, **{name: value})
    with pytest.raises(AsrError, match="omit draft or temperature"):
        DecodingOptions(draft=True, temperature=1.0)
    with pytest.raises(AsrError, match="min_log_prob: has no effect without fallback or no_speech_threshold"):
        DecodingOptions(min_log_prob=-1.0)
    assert DecodingOptions(min_log_prob=-1.0, no_speech_threshold=0.0).no_speech_limit == 0.0


def test_a_draft_is_for_the_first_attempt(audio):
    """Those that follow draw their tokens."""
    model = bundle()
    options = DecodingOptions(draft=True, fallback=True, min_log_prob=-1e-6, max_tokens=4)
    found = build_decoder(model, options)(model.encode(*audio))
    assert {hypothesis.temperature for (hypothesis,) in found} == {1.0}


def test_without_cached_scoring_a_draft_is_refused_and_the_rest_works(audio):
    model = bundle(wrap=StepOnlyWithCTC)
    with pytest.raises(AsrError, match="draft: the decoder of this model can only decode step by step"):
        build_decoder(model, DecodingOptions(draft=True))
    full, memory = bundle(), model.encode(*audio)
    for options in (DecodingOptions(), DecodingOptions(draft=False), DecodingOptions("rescoring", beam=3)):
        for (one, *_), (other, *_) in zip(
            build_decoder(model, options)(memory), build_decoder(full, options)(memory), strict=True
        ):
            assert one.tokens == other.tokens and one.log_prob == pytest.approx(other.log_prob, abs=1e-3)
    with pytest.raises(AsrError, match="no CTC head"):
        build_decoder(bundle(wrap=StepOnly), DecodingOptions("ctc"))


def test_logit_processors_are_applied_or_refused(audio):
    model = bundle()
    memory, processor = model.encode(*audio), random_processor(2)
    for options, decode in ((DecodingOptions(), greedy), (DecodingOptions("beam", beam=2), beam_search)):
        found = build_decoder(model, options, [processor])(memory)
        assert found == decode(model.network, memory, SPECIAL, options, processors=[processor])
        assert found != build_decoder(model, options)(memory)
    for decoder in ("ctc", "rescoring"):
        with pytest.raises(AsrError, match="logit processors do not apply"):
            build_decoder(model, DecodingOptions(decoder), [processor])


def test_the_length_normalization_of_a_model_is_the_default_of_beam_search(audio):
    model = bundle()
    memory = model.encode(*audio)

    def scores(stored, **options):
        model.metadata = {} if stored is None else {"length_normalization": stored}
        found = build_decoder(model, DecodingOptions("beam", beam=2, max_tokens=6, **options))(memory)
        return [hypothesis.score for (hypothesis,) in found]

    assert scores("0.5") == scores(None, length_normalization=0.5) != scores(None)
    assert scores("0.5", length_normalization=0.0) == scores(None)
    with pytest.raises(AsrError, match="metadata of the model has length_normalization 'long'"):
        scores("long")
    model.metadata = {"length_normalization": "0.5"}
    build_decoder(model, DecodingOptions("greedy"))  # has no such option
