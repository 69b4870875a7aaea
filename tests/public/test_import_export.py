"""Public models run in our network: logits equal those of transformers, also after an export."""

import shutil

import pytest
import torch
from public_models import WRITERS, change, copied, padded, waveforms, write_whisper
from typer.testing import CliRunner

from asr.commands import app
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.prompted import detect_languages
from asr.errors import AsrError
from asr.model_folder import load_model
from asr.public.exporting import export_model
from asr.public.importing import import_model, read_model
from asr.public.source import Source

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
pytest.importorskip("sentencepiece")


def tokens(size, prompt):
    torch.manual_seed(3)
    return torch.cat([torch.tensor([prompt]), torch.randint(4, size, (1, 20))], 1)


def logits_of(bundle, sample, ids):
    with torch.inference_mode():
        memory = bundle.network.encode(*bundle.features(*padded([sample])))
        return bundle.network.decode(ids, memory)


def logits_of_original(folder, model, sample, ids):
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    features = extractor(sample, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        return model(**features, decoder_input_ids=ids).logits


def check_equal(folder, model, bundle):
    (sample,) = waveforms(1.3)
    ids = tokens(len(bundle.tokenizer), list(bundle.special.prompt))
    expected = logits_of_original(folder, model, sample, ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits_of(bundle, sample, ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", WRITERS)
def test_logits_equal_and_survive_the_round_trip(family, originals, tmp_path):
    folder, model = originals[family]
    import_model(str(folder), tmp_path / "ours")
    bundle = load_model(tmp_path / "ours", "cpu")
    check_equal(folder, model, bundle)

    assert export_model(bundle, tmp_path / "theirs") == []
    loaded = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "theirs").eval()
    check_equal(tmp_path / "theirs", loaded, bundle)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in (
        "no_timestamps_token_id",
        "suppress_tokens",
        "lang_to_id",
        "eos_token_id",
        "alignment_heads",
    ):
        value = getattr(model.generation_config, name, None)
        assert getattr(loaded.generation_config, name, None) == value

    assert bundle.metadata["length_normalization"] == "1.0"
    assert loaded.generation_config.length_penalty == 1.0
    again = read_model(Source(tmp_path / "theirs"))
    assert again.config.model == bundle.config.model
    assert again.tokenizer.symbols == bundle.tokenizer.symbols
    assert again.special == bundle.special
    text = "The quick brown fox"
    old = transformers.AutoTokenizer.from_pretrained(folder)
    new = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert old(text).input_ids == new(text).input_ids


@pytest.mark.parametrize("family", WRITERS)
def test_the_length_penalty_of_the_generation_settings_is_kept(family, originals, tmp_path):
    folder = copied(originals[family][0], tmp_path)
    change(folder / "generation_config.json", length_penalty=0.5)
    bundle = read_model(Source(folder))
    assert bundle.metadata["length_normalization"] == "0.5"
    export_model(bundle, tmp_path / "theirs")
    assert read_model(Source(tmp_path / "theirs")).metadata == bundle.metadata
    bundle.metadata = {}  # one of our own models divides by nothing
    export_model(bundle, tmp_path / "own")
    assert read_model(Source(tmp_path / "own")).metadata["length_normalization"] == "0.0"


@pytest.mark.parametrize("family", WRITERS)
def test_a_batch_equals_single_recordings(family, originals):
    bundle = read_model(Source(originals[family][0])).eval()
    samples = waveforms(0.4, 1.9, 1.1)
    ids = tokens(len(bundle.tokenizer), list(bundle.special.prompt))
    with torch.inference_mode():
        memory = bundle.network.encode(*bundle.features(*padded(samples)))
        together = bundle.network.decode(ids.expand(3, -1), memory)
    for row, sample in zip(together, samples, strict=True):
        torch.testing.assert_close(row, logits_of(bundle, sample, ids)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("language", ["en", "de"])
def test_greedy_tokens_equal(language, originals):
    """With the suppressed tokens, those at the begin, and the prompt of a language."""
    folder, model = originals["whisper"]
    bundle = read_model(Source(folder), (f"tokenizer.language={language}",)).eval()
    samples = waveforms(*[0.3 + 0.15 * i for i in range(10)])
    decoder = build_decoder(bundle, DecodingOptions(max_tokens=31))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        found = decoder(bundle.network.encode(*bundle.features(*padded(samples))))
        features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        # Whisper's own `generate` goes on after a timestamp, with a window that begins there.
        prompt = torch.tensor(bundle.special.prompt).expand(len(samples), -1)
        settings = transformers.GenerationConfig(
            **{name: getattr(model.generation_config, name) for name in ("suppress_tokens", "eos_token_id")},
            begin_suppress_tokens=model.generation_config.begin_suppress_tokens,
            pad_token_id=bundle.special.eos,
            max_new_tokens=31,
        )
        generate = transformers.GenerationMixin.generate
        rows = generate(model, features, decoder_input_ids=prompt, generation_config=settings)
    eos, different = bundle.special.eos, set()
    for (hypothesis,), row in zip(found, rows[:, prompt.size(1) :].tolist(), strict=True):
        expected = [*row, eos][: [*row, eos].index(eos)]
        own = list(hypothesis.tokens)
        assert own == expected[: len(own)]
        assert len(own) == len(expected) or hypothesis.finish_reason == "repetition"
        different.add(tuple(own))
    assert len(different) > 3


def test_languages_are_detected_as_by_the_original(originals):
    folder, model = originals["whisper"]
    bundle = read_model(Source(folder)).eval()
    samples = waveforms(*[0.2 + 0.05 * i for i in range(30)], seed=5)
    features = transformers.AutoFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=16000, return_tensors="pt"
    ).input_features
    with torch.inference_mode():
        expected = model.detect_language(features).tolist()
        memory = bundle.network.encode(*bundle.features(*padded(samples)))
    prompts = bundle.tokenizer.prompts
    found = detect_languages(bundle.network, memory, prompts)
    assert [prompts.languages[language] for language in found] == expected
    assert len(set(found)) > 1

    def log_probs(language):
        decoder = build_decoder(bundle, DecodingOptions(language=language, max_tokens=12))
        return [hypothesis.log_prob for (hypothesis,) in decoder(memory)]

    by_language = {language: log_probs(language) for language in prompts.languages}
    assert by_language["en"] != pytest.approx(by_language["de"], abs=1e-3)
    expected = pytest.approx([by_language[each][row] for row, each in enumerate(found)], abs=1e-4)
    assert log_probs(None) == expected and log_probs("auto") == expected
    with pytest.raises(AsrError, match="language 'xx'"):
        log_probs("xx")
    with pytest.raises(AsrError, match="no choice of language or task"):
        build_decoder(load_model("digits", "cpu"), DecodingOptions(language="auto"))


def test_shards_and_torch_files_give_the_same_weights(originals, tmp_path):
    folder, model = originals["whisper"]
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    (tmp_path / "bin").mkdir()
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    expected = read_model(Source(folder)).network.state_dict()
    for name in ("shards", "bin"):
        for file in folder.glob("*.json"):
            shutil.copy(file, tmp_path / name / file.name)
        found = read_model(Source(tmp_path / name)).network.state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_model_that_the_layout_cannot_describe_is_not_exported(originals, tmp_path):
    with pytest.raises(AsrError, match="tokenizer of the kind characters"):
        export_model(load_model("digits", "cpu"), tmp_path / "no")
    bundle = read_model(Source(originals["whisper"][0]))
    values = bundle.config.model_dump()
    values["model"]["decoder"]["key_bias"] = True
    bundle.config = type(bundle.config).model_validate(values)
    with pytest.raises(
        AsrError, match=r"cannot describe this model: model\.decoder\.key_bias is True, not False"
    ):
        export_model(bundle, tmp_path / "no")
    values["model"]["decoder"]["key_bias"] = False
    values["model"]["encoder"]["positions"] = {"kind": "sinusoidal"}
    bundle.config = type(bundle.config).model_validate(values)
    with pytest.raises(AsrError, match=r"cannot describe this model: model\.encoder\.positions"):
        export_model(bundle, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_language_and_task_survive_the_round_trip(originals, tmp_path):
    choice = ("tokenizer.language=de", "tokenizer.task=translate")
    bundle = read_model(Source(originals["whisper"][0]), choice)
    export_model(bundle, tmp_path / "theirs")
    again = read_model(Source(tmp_path / "theirs")).tokenizer
    assert (again.language, again.task) == ("de", "translate") and again == bundle.tokenizer
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "theirs")
    assert (loaded.language, loaded.task) == ("de", "translate")
    change(tmp_path / "theirs" / "generation_config.json", language="<|zh|>", task="sing")
    again = read_model(Source(tmp_path / "theirs")).tokenizer
    assert (again.language, again.task) == ("zh", None)


def test_features_that_the_layout_cannot_describe(originals, tmp_path):
    whisper = originals["whisper"][0]
    bundle = read_model(Source(whisper), ("features.window_seconds=1.5",))
    assert export_model(bundle, tmp_path / "a") == ["the window of the features (features.window_seconds)"]
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "a").chunk_length == 2
    assert read_model(Source(tmp_path / "a")).config.features.window_seconds == 2.0
    speech = read_model(Source(originals["speech_to_text"][0]), ("features.variance=false",))
    assert export_model(speech, tmp_path / "b") == []
    assert read_model(Source(tmp_path / "b")).config.features == speech.config.features
    speech = read_model(Source(originals["speech_to_text"][0]), ("features.sample_rate=8000",))
    with pytest.raises(AsrError, match=r"features\.sample_rate is 8000, not 16000"):
        export_model(speech, tmp_path / "c")
    values = bundle.config.model_dump()
    values["model"]["encoder"]["positions"]["max_length"] = 40
    bundle.config = type(bundle.config).model_validate(values)
    with pytest.raises(AsrError, match="windows of whole seconds"):
        export_model(bundle, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_commands_import_export_and_refuse_an_existing_folder(originals, tmp_path):
    run = CliRunner().invoke
    folder = str(originals["whisper"][0])
    result = run(app, ["import", folder, str(tmp_path / "a"), "features.window_seconds=null"])
    assert result.exit_code == 0 and "parameters" in result.output
    assert load_model(tmp_path / "a", "cpu").config.features.window_seconds is None
    result = run(app, ["export", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "huggingface"])
    assert result.exit_code == 0 and (tmp_path / "b" / "preprocessor_config.json").is_file()
    assert "window_seconds) has no place in this layout and is left out" in result.output
    assert "exists already" in str(run(app, ["import", folder, str(tmp_path / "a")]).exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "d_model", "heads", "layers", "bins"),
    [
        (torch.float64, 384, 6, 4, 80),
        (torch.float32, 384, 6, 4, 80),
        (torch.float32, 512, 8, 6, 80),
        (torch.float32, 768, 12, 12, 80),
        (torch.float32, 1024, 16, 24, 80),
        (torch.float32, 1280, 20, 2, 128),
    ],
)
def test_logits_of_the_real_shapes_equal(dtype, d_model, heads, layers, bins, tmp_path):
    """tiny, base, small and medium; large-v3 with fewer layers.

    Large weights, with which no error of a part cancels, give logits above 100. In float32 their rounding
    errors are above 1e-4 in transformers too, so they are compared in float64.
    """
    sizes = {"d_model": d_model, "num_mel_bins": bins, "max_target_positions": 448}
    for stack in ("encoder", "decoder"):
        sizes |= {
            f"{stack}_layers": layers,
            f"{stack}_attention_heads": heads,
            f"{stack}_ffn_dim": 4 * d_model,
        }
    model = write_whisper(tmp_path, sizes=sizes, seconds=30, large_weights=dtype == torch.float64).to(dtype)
    bundle, (sample,) = read_model(Source(tmp_path)).eval(), waveforms(12)
    ids = tokens(len(bundle.tokenizer), list(bundle.special.prompt))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    expected_features = extractor(sample, sampling_rate=16000, return_tensors="pt").input_features
    features, lengths = bundle.features(*padded([sample]))
    torch.testing.assert_close(features.transpose(1, 2), expected_features, atol=1e-5, rtol=0)
    features, network = features.to(dtype), bundle.network.to(dtype)
    with torch.inference_mode():
        expected = model(input_features=features.transpose(1, 2), decoder_input_ids=ids).logits
        found = network.decode(ids, network.encode(features, lengths))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
