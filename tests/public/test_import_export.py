"""Public models run in our network: logits equal those of transformers, also after an export."""

import json
import shutil

import pytest
import torch
from public_models import padded, waveforms, write_speech_to_text, write_whisper
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from asr.commands import app
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.prompted import detect_languages
from asr.errors import AsrError
from asr.model_folder import check_model_folder, load_model
from asr.public.exporting import export_model
from asr.public.hub import needed_files
from asr.public.importing import import_model, read_model
from asr.public.names import is_hub_name
from asr.public.source import Source

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
pytest.importorskip("sentencepiece")
WRITERS = {"whisper": write_whisper, "speech_to_text": write_speech_to_text}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder in the hub's layout and the model of transformers, by family."""
    root = tmp_path_factory.mktemp("public")
    return {family: (root / family, write(root / family)) for family, write in WRITERS.items()}


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
    folder = broken(tmp_path, originals, family)
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


def broken(tmp_path, originals, family="whisper"):
    shutil.copytree(originals[family][0], tmp_path / "copy")
    return tmp_path / "copy"


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def missing(folder):
    (folder / "config.json").unlink()


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_short(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def cut_torch_file(folder):
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 not all of it")


def shard_missing(folder):
    no_weights(folder)
    table = {"model.encoder.conv1.weight": "model-00001-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def shard_cut_short(folder):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    tensors = load_file(folder / "model.safetensors")
    no_weights(folder)
    half = len(tensors) // 2
    table = {name: names[i >= half] for i, name in enumerate(tensors)}
    for shard in names:
        save_file({n: t for n, t in tensors.items() if table[n] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    data = (folder / names[1]).read_bytes()
    (folder / names[1]).write_bytes(data[:-100])


def code_in_torch_file(folder):
    no_weights(folder)
    torch.save({"a": print}, folder / "pytorch_model.bin")


def other_architecture(folder):
    change(folder / "config.json", model_type="wav2vec2")


def other_head(folder):
    change(folder / "config.json", architectures=["WhisperForAudioClassification"])


def wrong_shape(folder):
    change(folder / "config.json", d_model=64)


def other_tokenizer(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    for token in values["added_tokens"]:
        token["id"] += 1
    path.write_text(json.dumps(values))


def large_tokenizer(folder):
    change(folder / "config.json", vocab_size=300)


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def no_layers(folder):
    values = json.loads((folder / "config.json").read_text())
    del values["encoder_layers"]
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change_folder", "message"),
    [
        (missing, "no config.json in this folder"),
        (no_weights, "no model.safetensors in this folder"),
        (cut_short, "model.safetensors: cannot be read, it is cut short or damaged"),
        (cut_torch_file, "pytorch_model.bin: cannot be read, it is cut short or damaged"),
        (code_in_torch_file, "pytorch_model.bin: cannot be read"),
        (shard_missing, "no model-00001-of-00002.safetensors in this folder"),
        (shard_cut_short, "model-00002-of-00002.safetensors: cannot be read, it is cut short or damaged"),
        (other_architecture, "a model of the type 'wav2vec2'; only whisper and speech_to_text"),
        (other_head, "holds WhisperForAudioClassification; only WhisperForConditionalGeneration"),
        (wrong_shape, "has the shape .*they do not belong together"),
        (other_tokenizer, "use the tokenizer that belongs to the model"),
        (large_tokenizer, "but the model 300; they do not belong together"),
        (no_tokenizer, "no merges.txt in this folder"),
        (no_layers, "lacks settings .'encoder_layers'"),
    ],
)
def test_a_broken_folder_gives_one_clear_line(change_folder, message, originals, tmp_path):
    folder = broken(tmp_path, originals)
    change_folder(folder)
    with pytest.raises(AsrError, match=message) as caught:
        import_model(str(folder), tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_without_generation_settings_those_of_the_configuration_count(originals, tmp_path):
    """As transformers reads older checkpoints."""
    folder = broken(tmp_path, originals)
    expected = read_model(Source(folder)).tokenizer.prompts.suppressed_at_begin
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", begin_suppress_tokens=list(expected))
    assert expected and read_model(Source(folder)).tokenizer.prompts.suppressed_at_begin == expected


def test_the_vocabulary_of_speech_to_text_must_have_the_size_of_the_model(originals, tmp_path):
    folder = broken(tmp_path, originals, "speech_to_text")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary.popitem()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(AsrError, match="they do not belong together"):
        read_model(Source(folder))


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


def test_commands_import_export_and_refuse_an_existing_folder(originals, tmp_path):
    run = CliRunner().invoke
    folder = str(originals["whisper"][0])
    result = run(app, ["import", folder, str(tmp_path / "a"), "features.window_seconds=null"])
    assert result.exit_code == 0 and "parameters" in result.output
    assert load_model(tmp_path / "a", "cpu").config.features.window_seconds is None
    result = run(app, ["export", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "huggingface"])
    assert result.exit_code == 0 and (tmp_path / "b" / "preprocessor_config.json").is_file()
    assert "exists already" in str(run(app, ["import", folder, str(tmp_path / "a")]).exception)


def test_a_name_of_the_hub_is_imported_once_into_a_cache(originals, tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("ASR_CACHE", str(tmp_path / "cache"))
    snapshot = originals["whisper"][0]
    calls = []
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: calls.append(1) or 1 / 0)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(snapshot))
    for _ in range(2):
        found = check_model_folder("somebody/whisper-mine")
        assert found == tmp_path / "cache" / "models" / "somebody--whisper-mine"
    assert capsys.readouterr().err.count("asr: importing somebody/whisper-mine") == len(calls) == 1


def test_a_hub_out_of_reach_gives_one_clear_line(tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("ASR_CACHE", str(tmp_path))
    with pytest.raises(AsrError, match=r"no such folder, and the hub, .*, cannot be reached"):
        check_model_folder("somebody/whisper-absent")
    assert capsys.readouterr().err == ""  # nothing is announced that does not happen


def test_a_mistyped_path_is_not_looked_up_in_the_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    for path in ("runs/x", "./x", "models/x", "../x"):
        with pytest.raises(AsrError, match=r"no such model folder; give the folder .*, or a name of the hub"):
            check_model_folder(path)


def test_only_needed_files_are_downloaded():
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    present = ["README.md", "config.json", "flax_model.msgpack", "pytorch_model.bin", "vocab.json", *shards]
    assert needed_files([*present, "model.safetensors.index.json"]) == [
        "model.safetensors.index.json", *shards, "config.json", "vocab.json"
    ]  # fmt: skip
    assert needed_files(present) == ["pytorch_model.bin", "config.json", "vocab.json"]


def test_a_path_below_a_folder_is_not_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("mine/tiny") and is_hub_name("openai/whisper-large-v3")
    (tmp_path / "mine").mkdir()
    assert (
        not is_hub_name("mine/tiny")
        and not is_hub_name("runs/mine")
        and not is_hub_name("mine")
        and not is_hub_name("/a/b")
    )


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
