"""Timestamps, fallback, silence, earlier text and word times of Whisper, next to those of transformers."""

import math
import zlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from public_models import padded, waveforms, write_whisper

from asr.decoding import DecodingOptions, FinishReason, Hypothesis, build_decoder
from asr.decoding.alignment import attention_align
from asr.decoding.fallback import TEMPERATURES, compression_ratio, decode_with_fallback, mean_log_prob
from asr.decoding.prompted import no_speech_probabilities
from asr.decoding.timestamps import TimedPart, TimestampGrammar, timed_parts
from asr.errors import AsrError
from asr.model.interfaces import HasAlignmentHeads, Memory
from asr.model_folder import load_model
from asr.public.importing import read_model
from asr.public.source import Source
from asr.tokenizers.special import PromptTokens
from asr.transcription.recognizer import Recognizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
SAMPLES = waveforms(*[0.5 + 0.15 * i for i in range(10)])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    return folder, write_whisper(folder)


@pytest.fixture(scope="module")
def bundle(original):
    return read_model(Source(original[0]), ("tokenizer.language=en",)).eval()


@pytest.fixture(scope="module")
def memory(bundle):
    with torch.inference_mode():
        return bundle.network.encode(*bundle.features(*padded(SAMPLES)))


def generate(original, prompt, samples=SAMPLES, processors=(), **settings):
    """`generate` of transformers on one window, with the rules of the model."""
    folder, model = original
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
    names = ("suppress_tokens", "eos_token_id", "begin_suppress_tokens")
    config = transformers.GenerationConfig(
        **{name: getattr(model.generation_config, name) for name in names},
        pad_token_id=model.generation_config.eos_token_id,
        return_dict_in_generate=True,
        **settings,
    )
    with torch.inference_mode():
        return transformers.GenerationMixin.generate(
            model,
            features,
            decoder_input_ids=torch.tensor(prompt).expand(len(samples), -1),
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList(processors),
        )


def texts_of(result, prompt, eos):
    rows = result.sequences[:, len(prompt) :].tolist()
    return [[*row, eos][: [*row, eos].index(eos)] for row in rows]


@pytest.mark.parametrize("last_initial", [50, None])
def test_the_grammar_of_timestamps_is_that_of_transformers(last_initial):
    """On random scores, after random tokens."""
    eos, first, size = 20, 30, 60
    config = transformers.GenerationConfig(eos_token_id=eos, no_timestamps_token_id=first - 1)
    config.max_initial_timestamp_index = last_initial and 5
    prompts = PromptTokens(
        start=21, no_timestamps=first - 1, first_timestamp=first, last_initial_timestamp=last_initial and 5
    )
    theirs = transformers.WhisperTimeStampLogitsProcessor(config, begin_index=3)
    ours = TimestampGrammar(prompts, eos, 3)
    torch.manual_seed(0)
    for length in (0, 1, 2, 3, 8):
        rows = torch.randint(0, eos, (200, length))
        times = torch.randint(first, size, (200, length))
        rows = torch.where(torch.rand(200, length) < 0.5, rows, times)
        tokens = torch.cat([torch.tensor([[21, 22, 23]]).expand(200, -1), rows], 1)
        scores = (3 * torch.randn(200, size)).log_softmax(-1)
        assert torch.equal(ours(tokens, scores.clone()), theirs(tokens, scores))


def test_greedy_with_timestamps_equals_transformers(original, bundle, memory):
    folder, model = original
    options = DecodingOptions(timestamps=True, max_tokens=40)
    found = build_decoder(bundle, options)(memory)
    prompt, eos = bundle.tokenizer.prompt(timestamps=True), bundle.special.eos
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    features = extractor(SAMPLES, sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        result = model.generate(
            features, language="en", return_timestamps=True, max_new_tokens=40, num_beams=1,
            return_dict_in_generate=True, force_unique_generate_call=True,
        )  # fmt: skip
    different, first_time = set(), bundle.tokenizer.prompts.first_timestamp
    for (hypothesis,), row in zip(found, result.sequences.tolist(), strict=True):
        expected = [t for t in row if t not in prompt or t >= first_time]
        expected = [*expected, eos][: [*expected, eos].index(eos)]
        own = list(hypothesis.tokens)
        assert own == expected[: len(own)]
        assert len(own) == len(expected) or hypothesis.finish_reason == "repetition"
        different.add(tuple(own))
    assert len(different) > 3
    assert sum(t >= first_time for each in different for t in each) > len(different)


def test_parts_begin_and_end_at_timestamps():
    prompts = PromptTokens(start=0, first_timestamp=100)
    assert timed_parts((100, 1, 2, 150, 150, 3, 175), prompts) == [
        TimedPart(1, 3, 0.0, 1.0),
        TimedPart(5, 6, 1.0, 1.5),
    ]
    assert timed_parts((125, 1, 2), prompts) == [TimedPart(1, 3, 0.5, None)]
    assert timed_parts((1, 2), PromptTokens(start=0)) == [TimedPart(0, 2, 0.0, None)]
    assert timed_parts((), PromptTokens(start=0)) == timed_parts((100,), prompts) == []


def test_segments_have_the_times_of_the_text(bundle, monkeypatch):
    times = bundle.tokenizer.prompts.first_timestamp
    words = [bundle.tokenizer.encode(text) for text in (" The quick", " brown fox")]
    tokens = (times, *words[0], times + 30, times + 40, *words[1], times + 5000)
    recognizer = Recognizer(bundle, options=DecodingOptions(timestamps=True), voice_activity=False)
    recognizer.decoder = lambda memory, previous=(): [[Hypothesis(tokens[:-1], -1.0)] for _ in memory.lengths]
    transcript = recognizer.transcribe(SAMPLES[-1], 16000)
    assert [(s.text, s.start, s.end) for s in transcript.segments] == [
        ("The quick", 0.0, 0.6),
        ("brown fox", 0.8, 1.85),
    ]
    assert transcript.text == "The quick brown fox"
    assert [w.text for w in transcript.words] == ["The", "quick", "brown", "fox"]
    assert all(0 <= w.start <= w.end <= 1.85 for w in transcript.words)


# --------------------------------------------------------------------------------- silence and fallback


def test_the_probability_of_silence_is_that_of_the_original(original, bundle, memory):
    folder, model = original
    prompts = bundle.tokenizer.prompts
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    features = extractor(SAMPLES, sampling_rate=16000, return_tensors="pt").input_features
    prompt = bundle.tokenizer.prompt(previous=(5, 6, 7))
    with torch.inference_mode():
        logits = model(features, decoder_input_ids=torch.tensor(prompt).expand(len(SAMPLES), -1)).logits
    expected = logits[:, prompt.index(prompts.start)].softmax(-1)[:, prompts.no_speech]
    found = no_speech_probabilities(bundle.network, memory, prompt, prompts)
    assert found == pytest.approx(expected.tolist(), abs=1e-6)


def attempts(*tables):
    """A decoder whose rows have the given hypotheses at each attempt, and the temperatures it was given."""
    calls = []

    def attempt(memory, temperature):
        calls.append((temperature, memory.lengths.tolist()))
        found = (tables[len(calls) - 1][row] for row in memory.lengths.tolist())
        return [[replace(each, temperature=temperature)] for each in found]

    return attempt, calls


GOOD, UNLIKELY = Hypothesis((1, 2), -1.0), Hypothesis((1, 3), -9.0)
REPEATED, CUT = Hypothesis((9,), -0.1), Hypothesis((1, 2), -0.1, FinishReason.repetition)
TEXTS = {(1, 2): "good", (1, 3): "odd", (9,): "again and " * 50, (): ""}
MEMORY = Memory(torch.zeros(4, 1, 1), torch.arange(4))


def test_texts_that_fail_are_decoded_again_at_rising_temperatures():
    first = [GOOD, UNLIKELY, REPEATED, CUT]
    tables = [first, [None, GOOD, UNLIKELY, REPEATED], [None, None, GOOD, UNLIKELY]]
    attempt, calls = attempts(*tables, *[[None, None, None, UNLIKELY]] * 3)
    options = DecodingOptions(fallback=True)
    found = decode_with_fallback(attempt, MEMORY, TEXTS.__getitem__, None, options)
    assert [(each.tokens, each.temperature) for (each,) in found] == [
        ((1, 2), 0.0), ((1, 2), 0.2), ((1, 2), 0.4), ((1, 3), 1.0)
    ]  # fmt: skip
    assert [temperature for temperature, _ in calls] == [0.0, *TEMPERATURES]
    assert [rows for _, rows in calls] == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [3], [3], [3]]
    attempt, calls = attempts(first)
    assert [h for (h,) in decode_with_fallback(attempt, MEMORY, TEXTS.get, None, DecodingOptions())] == first


def test_limits_are_options():
    attempt, calls = attempts([GOOD, UNLIKELY, REPEATED, GOOD])
    options = DecodingOptions(fallback=True, max_compression_ratio=99.0, min_log_prob=-4.0)
    decode_with_fallback(attempt, MEMORY, TEXTS.__getitem__, None, options)
    assert len(calls) == 1
    assert compression_ratio("again and " * 50) == 500 / len(zlib.compress(b"again and " * 50)) > 9
    assert mean_log_prob(UNLIKELY) == -3.0


def test_an_improbable_text_of_silence_is_left_out_and_not_decoded_again():
    attempt, calls = attempts([GOOD, UNLIKELY, UNLIKELY, GOOD], [None, None, GOOD, None])
    options = DecodingOptions(fallback=True)
    found = decode_with_fallback(attempt, MEMORY, TEXTS.__getitem__, [0.9, 0.9, 0.1, 0.2], options)
    assert [each.tokens for (each,) in found] == [(1, 2), (), (1, 2), (1, 2)]
    assert [each.no_speech for (each,) in found] == [0.9, 0.9, 0.1, 0.2]
    assert [rows for _, rows in calls] == [[0, 1, 2, 3], [2]]
    attempt, _ = attempts([GOOD, UNLIKELY, UNLIKELY, GOOD])
    options = DecodingOptions(no_speech_threshold=0.05)
    found = decode_with_fallback(attempt, MEMORY, TEXTS.__getitem__, [0.9, 0.9, 0.1, 0.2], options)
    assert [each.tokens for (each,) in found] == [(1, 2), (), (), (1, 2)]
    attempt, _ = attempts([GOOD, UNLIKELY, UNLIKELY, GOOD])
    options = DecodingOptions(no_speech_threshold=0.5)
    found = decode_with_fallback(attempt, MEMORY, TEXTS.__getitem__, [0.9, 0.9, 0.1, 0.2], options)
    assert [each.tokens for (each,) in found] == [(1, 2), (), (1, 3), (1, 2)]


def test_fallback_decodes_and_its_limits_use_allowed_tokens_only(bundle, memory):
    """The log-probability is that among the tokens that are not suppressed, as in transformers."""
    plain = build_decoder(bundle, DecodingOptions(max_tokens=8))(memory)
    options = DecodingOptions(max_tokens=8, fallback=True, min_log_prob=-100.0, max_compression_ratio=99.0)
    found = build_decoder(bundle, options)(memory)
    assert [h.tokens for (h,) in found] == [h.tokens for (h,) in plain]
    assert all(h.log_prob >= p.log_prob for (h,), (p,) in zip(found, plain, strict=True))
    assert any(h.log_prob > p.log_prob + 1e-3 for (h,), (p,) in zip(found, plain, strict=True))
    beam = replace(options, decoder="beam", beam=1, length_normalization=0.0)
    same = [hypothesis.log_prob for (hypothesis,) in build_decoder(bundle, beam)(memory)]
    assert same == pytest.approx([hypothesis.log_prob for (hypothesis,) in found], abs=1e-3)
    options = DecodingOptions(max_tokens=8, fallback=True, min_log_prob=-1e-6, no_speech_threshold=1.0)
    drawn = build_decoder(bundle, options)(memory)
    assert {h.temperature for (h,) in drawn} == {1.0}
    assert [h.tokens for (h,) in drawn] != [h.tokens for (h,) in plain]
    beam = DecodingOptions(decoder="beam", beam=2, max_tokens=8, fallback=True, min_log_prob=-1e-6, seed=1)
    assert {h.temperature for (h,) in build_decoder(bundle, beam)(memory)} == {1.0}


# ------------------------------------------------------------------------------------------ earlier text


def test_a_prompt_of_earlier_text_changes_the_text_as_in_transformers(original, bundle, memory):
    text = "The lazy dog"
    found = build_decoder(bundle, DecodingOptions(initial_prompt=text, max_tokens=20))(memory)
    previous = bundle.tokenizer.encode(f" {text}")
    prompt = bundle.tokenizer.prompt(previous=previous)
    assert prompt[0] == bundle.tokenizer.prompts.previous
    expected = texts_of(generate(original, prompt, max_new_tokens=20), prompt, bundle.special.eos)
    assert [list(h.tokens) for (h,) in found] == expected
    same = build_decoder(bundle, DecodingOptions(max_tokens=20))(memory, previous)
    assert [h.tokens for (h,) in same] == [h.tokens for (h,) in found]
    assert [h.tokens for (h,) in build_decoder(bundle, DecodingOptions(max_tokens=20))(memory)] != expected


def test_earlier_text_has_less_than_half_of_the_positions(bundle, memory):
    decoder = build_decoder(bundle, DecodingOptions(max_tokens=3))
    previous = list(range(3, 103))
    room = bundle.network.max_positions // 2 - 1
    expected = decoder(memory, previous[-room:])
    assert [h.tokens for (h,) in decoder(memory, previous)] == [h.tokens for (h,) in expected]


def test_segments_are_decoded_one_after_the_other_with_the_text_before(bundle):
    options = DecodingOptions(previous_text=True, initial_prompt="fox")
    recognizer = Recognizer(bundle, options=options, voice_activity=False)
    calls = []

    def decoder(memory, previous=()):
        calls.append((len(memory.lengths), previous))
        hot = 0.8 if len(calls) == 3 else 0.2
        return [[Hypothesis((65 + len(calls),), -0.1, temperature=hot)]]

    decoder.in_order = build_decoder(bundle, options).in_order
    recognizer.decoder = decoder
    recognizer.transcribe(np.concatenate(waveforms(6.5)), 16000)
    assert [count for count, _ in calls] == [1] * len(calls)
    assert [previous for _, previous in calls[:4]] == [(), (66,), (66, 67), ()]
    calls.clear()
    recognizer.transcribe(waveforms(1.0), 16000)
    assert set(calls) == {(1, ())}  # each is another recording


# -------------------------------------------------------------------------------------------- word times


def test_times_of_tokens_are_those_of_transformers(original, bundle, memory):
    folder, model = original
    found = build_decoder(bundle, DecodingOptions(timestamps=True, max_tokens=30))(memory)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(SAMPLES, sampling_rate=16000, return_tensors="pt")
    lengths = torch.tensor([len(each) // 320 for each in SAMPLES])
    prompt = bundle.tokenizer.prompt(timestamps=True)
    compared = 0
    for row, (hypothesis,) in enumerate(found[:6]):
        if hypothesis.finish_reason == "repetition":
            continue
        mask = torch.zeros(1, inputs.input_features.size(2), dtype=torch.long)
        mask[:, : 2 * int(lengths[row])] = 1
        with torch.inference_mode():
            result = model.generate(
                inputs.input_features[row : row + 1], attention_mask=mask, language="en",
                return_timestamps=True, return_token_timestamps=True, num_beams=1,
                    max_new_tokens=len(hypothesis.tokens) + 1,  # the last token has no attention
                return_dict_in_generate=True, force_unique_generate_call=True,
            )  # fmt: skip
        own, used = memory.select(torch.tensor([row])), lengths[row : row + 1]
        (spans,) = attention_align(bundle.network, own, used, [hypothesis.tokens], [prompt])
        times = result["token_timestamps"][0].tolist()[-len(hypothesis.tokens) - 1 : -1]
        assert [0.02 * span.start for span in spans] == pytest.approx(times, abs=0.021)
        assert all(a.end == b.start for a, b in pairwise(spans))
        compared += len(times)
    assert compared > 20


def test_probabilities_of_aligned_tokens_are_the_decoders(bundle, memory):
    own = memory.select(torch.tensor([4]))
    ((hypothesis,),) = build_decoder(bundle, DecodingOptions(max_tokens=12))(own)
    (spans,) = attention_align(bundle.network, own, own.lengths, [hypothesis.tokens], [bundle.special.prompt])
    total = sum(math.log(span.probability) for span in spans)
    if hypothesis.finish_reason == "length":
        assert total == pytest.approx(hypothesis.log_prob, abs=1e-4)
    assert total >= hypothesis.log_prob - 1e-4


@pytest.mark.parametrize("language", ["de", "zh"])
def test_segments_and_words_of_a_chosen_language_are_those_of_a_stored_one(language, original, bundle):
    """Times, confidence and spaces are the same whether the language was an option or is stored."""
    stored = read_model(Source(original[0]), (f"tokenizer.language={language}",)).eval()
    samples = np.concatenate(waveforms(1.9, 1.9, 1.9))
    given, expected = (
        Recognizer(model, "cpu", voice_activity=False).transcribe(samples, 16000, options=options)
        for model, options in (
            (bundle, DecodingOptions(language=language, max_tokens=8)),
            (stored, DecodingOptions(max_tokens=8)),
        )
    )
    assert given == expected and len(given.segments) > 1 and given.words


def test_translations_are_written_with_spaces(bundle):
    tokenizer = bundle.tokenizer
    for language, task, spaced in (("zh", None, False), ("zh", "translate", True), ("de", None, True)):
        assert tokenizer.words_are_spaced_after(tokenizer.prompt(language, task)) == spaced


def test_models_that_lack_the_tokens_refuse_the_options(bundle):
    assert isinstance(bundle.network, HasAlignmentHeads)
    digits = load_model("digits", "cpu")
    assert not isinstance(digits.network, HasAlignmentHeads)
    for name, value in (("timestamps", True), ("initial_prompt", "a"), ("previous_text", True),
                        ("no_speech_threshold", 0.5)):  # fmt: skip
        with pytest.raises(AsrError, match=f"{name}: this model has no token"):
            build_decoder(digits, DecodingOptions(**{name: value}))


def test_the_length_normalization_of_the_model_is_a_default(bundle, memory):
    def scores(metadata, **options):
        options = DecodingOptions(decoder="beam", beam=2, max_tokens=6, **options)
        found = build_decoder(replace(bundle, metadata=metadata), options)(memory)
        return [hypothesis.score for (hypothesis,) in found]

    stored = {"length_normalization": "0.5"}
    assert scores(stored) == scores({}, length_normalization=0.5) != scores({})
    assert scores(stored, length_normalization=0.0) == scores({})
    with pytest.raises(AsrError, match="metadata of the model has length_normalization 'long'"):
        scores({"length_normalization": "long"})
    build_decoder(replace(bundle, metadata=stored), DecodingOptions())  # greedy decoding has no such option


@pytest.mark.parametrize("timestamps", [False, True])
def test_beam_search_equals_that_of_transformers(original, bundle, memory, timestamps):
    """A beam of 5. The sum of the log-probabilities is divided by the number of tokens, EOS included.

    It is the default of an imported model.
    """
    _, model = original
    options = DecodingOptions(decoder="beam", beam=5, max_tokens=14, timestamps=timestamps or None)
    found = build_decoder(bundle, options)(memory)
    prompt, eos = bundle.tokenizer.prompt(timestamps=timestamps), bundle.special.eos
    settings = dict(num_beams=5, length_penalty=1.0, early_stopping="never", max_new_tokens=15)
    rules = []
    if timestamps:
        rules = [transformers.WhisperTimeStampLogitsProcessor(model.generation_config, len(prompt))]
    result = generate(original, prompt, processors=rules, output_scores=True, **settings)
    for (hypothesis,), expected in zip(found, texts_of(result, prompt, eos), strict=True):
        # The token after a hypothesis of maximum length counts in its score, but is not part of it.
        assert list(hypothesis.tokens) == expected[:14]
    assert [h.score for (h,) in found] == pytest.approx(result.sequences_scores.tolist(), abs=1e-4)
