"""A public model is fine-tuned in each way, is an ordinary model then, and goes back to the hub's layout."""

import json

import pytest
import soundfile
import torch
from public_models import padded, waveforms, write_whisper

from asr.config import load_config
from asr.errors import AsrError
from asr.model.adapters import LowRankUpdate, add_adapters, load_merged_state, merged_state
from asr.model_folder import load_model, load_tensors
from asr.public.exporting import export_model
from asr.public.importing import import_model
from asr.training.checkpoints import newest
from asr.training.loop import train
from asr.training.recognition import RecognitionTask
from asr.training.weights import choose_trained, start_from
from asr.transcription.recognizer import Recognizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
TEXTS = ["fox", "lazy dog", "emoji", "the"]
RECIPE = "recipes/whisper/finetune.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An imported model and a manifest of four recordings."""
    root = tmp_path_factory.mktemp("finetune")
    write_whisper(root / "theirs", seconds=1)
    import_model(str(root / "theirs"), root / "ours")
    lines = []
    for i, (text, samples) in enumerate(zip(TEXTS, waveforms(0.5, 0.6, 0.7, 0.9), strict=True)):
        soundfile.write(root / f"{i}.wav", samples, 16000)
        line = {"id": str(i), "audio": f"{i}.wav", "text": text, "duration": len(samples) / 16000}
        lines.append(json.dumps(line))
    (root / "train.jsonl").write_text("\n".join(lines))
    return root


def settings(data, *overrides, recipe=RECIPE):
    manifest = data / "train.jsonl"
    values = {
        "data.train": f"[{manifest}]",
        "data.dev": f"[{manifest}]",
        "train.init": data / "ours",
        "train.average": 1,
        "train.precision": "float32",
        "tokenizer.language": "de",
        "augment.specaugment": "null",
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.decay_steps": 0,
    }
    return load_config(recipe, (*(f"{key}={value}" for key, value in values.items()), *overrides))


WAYS = {
    "all": ("optim.lr=0.003",),
    "norms_and_biases": ("optim.lr=0.03",),
    "lora": ("optim.lr=0.01", "train.lora={rank: 4, layers: ['*attention*', '*feed_forward*']}"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_learns_four_recordings_by_heart(way, data, tmp_path):
    run = tmp_path / "run"
    config = settings(
        data, f"train.trainable={way}", *WAYS[way], "train.steps=400", "train.validate_every=40",
        "train.checkpoint_every=400", "train.stop_wer=0",
    )  # fmt: skip
    assert train(config, run, device="cpu") == 0
    found = Recognizer(run, device="cpu", voice_activity=False).transcribe(
        [data / f"{i}.wav" for i in range(4)]
    )
    assert [each.text for each in found] == TEXTS

    before = load_tensors(data / "ours" / "model.safetensors")[0]
    after = load_tensors(run / "model.safetensors")[0]
    assert before.keys() == after.keys()  # adapters are merged
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    vectors = {name for name in before if before[name].dim() == 1}
    expected = {
        "all": set(before),
        "norms_and_biases": vectors,
        "lora": {name for name in before if name.endswith("weight") and before[name].dim() == 2
                 and ("attention" in name or "feed_forward" in name)},
    }[way]  # fmt: skip
    assert changed <= expected and len(changed) > 0.9 * len(expected)

    bundle = load_model(run, "cpu")
    export_model(bundle, tmp_path / "theirs")
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "theirs").eval()
    (sample,) = waveforms(0.8, seed=3)
    ids = torch.tensor([[*bundle.special.prompt, *bundle.tokenizer.encode("lazy fox")]])
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "theirs")
    with torch.inference_mode():
        features = extractor(sample, sampling_rate=16000, return_tensors="pt")
        expected = model(**features, decoder_input_ids=ids).logits
        memory = bundle.network.encode(*bundle.features(*padded([sample])))
        own = bundle.network.decode(ids, memory)
    torch.testing.assert_close(own, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def prepared(data, *overrides, **recipe):
    """The task of a run before its first step."""
    config = settings(data, *overrides, **recipe)
    task = RecognitionTask(config, lambda line: None)
    start_from(config.train.init, task.bundle)
    choose_trained(task.bundle.network, config.train)
    return task


def test_adapters_begin_at_zero_and_are_merged_and_loaded(data):
    network = prepared(data, "train.trainable=lora").bundle.network.eval()
    original = load_model(data / "ours", "cpu").network
    features, ids = torch.randn(1, 100, 80), torch.tensor([[5, 6, 7]])
    lengths = torch.tensor([100])

    def logits(network):
        with torch.no_grad():
            return network.decode(ids, network.encode(features, lengths))

    assert torch.equal(logits(network), logits(original))
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert all(name.endswith((".up", ".down")) for name in trained)
    assert len(trained) == 2 * 2 * (2 + 4)  # query and key_value of 2 self- and 4 decoder attentions
    updates = [each for each in network.modules() if isinstance(each, LowRankUpdate)]
    assert all(each.scale == 2.0 and each.down.size(0) == 8 for each in updates)
    for each in updates:
        torch.nn.init.normal_(each.up)
    changed = logits(network)
    assert not torch.allclose(changed, logits(original), atol=1e-2)
    state = {name: tensor.clone() for name, tensor in merged_state(network).items()}
    assert state.keys() == original.state_dict().keys()
    load_merged_state(original, state)
    torch.testing.assert_close(logits(original), changed)
    load_merged_state(network, state)
    torch.testing.assert_close(logits(network), changed)
    assert all(not each.up.any() for each in updates)
    with pytest.raises(LookupError, match="nothing"):
        add_adapters(network, ("nothing",), 2, 1.0)


def test_adapters_are_resumed(data, tmp_path):
    """A run that was stopped and resumed equals one that was not."""
    few = ("train.trainable=lora", "optim.lr=0.01", "train.validate_every=2", "train.checkpoint_every=1")
    assert train(settings(data, *few, "train.steps=2"), tmp_path / "whole", device="cpu") == 0
    last = newest(tmp_path / "whole")
    expected = [load_tensors(last / f"{name}.safetensors")[0] for name in ("model", "optimizer")]
    assert any("parametrizations.weight.0.up/live" in name for name in expected[1])
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    assert (
        train(settings(data, *few, "train.steps=2"), tmp_path / "whole", resume="always", device="cpu") == 0
    )
    for name, tensors in zip(("model", "optimizer"), expected, strict=True):
        found = load_tensors(newest(tmp_path / "whole") / f"{name}.safetensors")[0]
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in found)


def test_a_run_keeps_the_length_normalization_of_its_model(data):
    assert prepared(data).bundle.metadata["length_normalization"] == "1.0"


def test_a_ctc_head_is_trained_first_alone(data, tmp_path):
    recipe = "recipes/whisper/ctc_head.yaml"
    config = settings(data, "train.steps=3", "train.validate_every=3", recipe=recipe)
    assert train(config, tmp_path / "head", device="cpu") == 0
    before = load_tensors(data / "ours" / "model.safetensors")[0]
    after = load_tensors(tmp_path / "head" / "model.safetensors")[0]
    assert after.keys() - before.keys() == {"network.ctc_head.weight", "network.ctc_head.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    task = prepared(data, f"train.init={tmp_path / 'head'}", "train.ctc_weight=0.3", "train.trainable=lora")
    network = task.bundle.network
    assert torch.equal(network.ctc_head.weight, after["network.ctc_head.weight"])
    assert network.ctc_head.weight.requires_grad and not network.decoder.embed.weight.requires_grad
    bundle = load_model(tmp_path / "head", "cpu")
    assert export_model(bundle, tmp_path / "theirs") == ["the CTC head"]


def test_sections_of_the_kind_init_are_those_of_the_model(data):
    config = settings(data, "model.decoder.dropout=0.2")
    stored = load_model(data / "ours", "cpu").config
    assert config.features == stored.features and config.model.encoder == stored.model.encoder
    assert config.model.decoder.dropout == 0.2 and config.model.decoder.n_heads == 4
    assert config.tokenizer.folder == str(data / "ours") and config.tokenizer.language == "de"
    with pytest.raises(AsrError, match=r"train\.init is not set"):
        load_config(RECIPE, ("train.init=null",))
    with pytest.raises(AsrError, match="lora has no effect without adapters"):
        settings(data, "train.lora={rank: 2}")
