"""Folders that are damaged or of another kind give one clear line, and so do names that the hub lacks."""

import json
import random

import pytest
import torch
from public_models import change, copied
from safetensors.torch import load_file, save_file

from asr.errors import AsrError
from asr.model_folder import check_model_folder
from asr.public.hub import needed_files
from asr.public.importing import import_model, read_model
from asr.public.names import is_hub_name
from asr.public.source import Source, Weights

pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
pytest.importorskip("sentencepiece")


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


def merges_of_bytes(folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_bytes(b"\xff\xfe a b\n")
    no_tokenizer(folder)


def no_eos(folder):
    change(folder / "generation_config.json", eos_token_id=[])


def odd_penalty(folder):
    change(folder / "generation_config.json", length_penalty="x")


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
        (other_architecture, "the model has the type 'wav2vec2'; only whisper and speech_to_text"),
        (other_head, "holds WhisperForAudioClassification; only WhisperForConditionalGeneration"),
        (wrong_shape, "has the shape .*they do not belong together"),
        (other_tokenizer, "use the tokenizer that belongs to the model"),
        (large_tokenizer, "but the model 300; they do not belong together"),
        (no_tokenizer, "no merges.txt in this folder"),
        (no_layers, "lacks settings .'encoder_layers'"),
        (merges_of_bytes, "merges.txt: cannot be read as text"),
        (no_eos, "lacks settings .list index"),
        (odd_penalty, "lacks settings .could not convert"),
    ],
)
def test_a_broken_folder_gives_one_clear_line(change_folder, message, originals, tmp_path):
    folder = copied(originals["whisper"][0], tmp_path)
    change_folder(folder)
    with pytest.raises(AsrError, match=message) as caught:
        import_model(str(folder), tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_that_is_cut_or_changed_anywhere_is_refused_or_read(legacy, tmp_path):
    path, draw = tmp_path / "pytorch_model.bin", random.Random(0)
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for _ in range(300):
        end = draw.randrange(len(data))
        path.write_bytes(draw.choice((data[:end], data[:end] + draw.randbytes(1) + data[end + 1 :])))
        try:
            Weights([path])
        except AsrError as error:
            assert "pytorch_model.bin" in str(error) and "\n" not in str(error)


def test_without_generation_settings_those_of_the_configuration_count(originals, tmp_path):
    """As transformers reads older checkpoints."""
    folder = copied(originals["whisper"][0], tmp_path)
    expected = read_model(Source(folder)).tokenizer.prompts.suppressed_at_begin
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", begin_suppress_tokens=list(expected))
    assert expected and read_model(Source(folder)).tokenizer.prompts.suppressed_at_begin == expected


def test_the_vocabulary_of_speech_to_text_must_have_the_size_of_the_model(originals, tmp_path):
    folder = copied(originals["speech_to_text"][0], tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary.popitem()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(AsrError, match="they do not belong together"):
        read_model(Source(folder))


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
    with pytest.raises(AsrError, match=r"no such folder, and the hub cannot be searched"):
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
