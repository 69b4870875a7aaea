"""Training a language model: perplexity, stopping and resuming, and settings that are refused."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections import Counter
from dataclasses import replace

import pytest
import torch

from asr.config import LanguageConfig
from asr.errors import AsrError
from asr.files import claimed
from asr.model_folder import load_language_model, load_model, load_tensors
from asr.run_folder import checkpoint_folder
from asr.tokenizers import load_tokenizer
from asr.training import checkpoints
from asr.training.distributed import Ranks
from asr.training.language_modeling import LanguageTask
from asr.training.loop import train
from asr.training.monitor import Monitor

# A Markov chain: what follows each letter, "." being the end of a sentence.
CHAIN = {
    "": {"a": 0.5, "b": 0.5},
    "a": {"a": 0.1, "b": 0.8, ".": 0.1},
    "b": {"c": 0.6, "a": 0.35, ".": 0.05},
    "c": {"c": 0.7, "a": 0.2, ".": 0.1},
}


def chain_text(sentences, seed):
    generator, lines = random.Random(seed), []
    for _ in range(sentences):
        line = ""
        while True:
            follows = CHAIN[line[-1:]]
            letter = generator.choices([*follows], [*follows.values()])[0]
            if letter == ".":
                break
            line += letter
        lines.append(line[:80])
    return lines


def settings(tmp_path, **sections):
    """A very small model on a text of the chain, of which the last 50 lines are held out."""
    path = tmp_path / "text.txt"
    if not path.exists():
        path.write_text("\n".join(chain_text(400, seed=0)) + "\n")
    values = {
        "model": dict(d_model=16, n_heads=2, d_ffn=32, n_layers=1),
        "data": dict(text=[path], hold_out=50, batch_characters=400, max_characters=100),
        "optim": dict(warmup_steps=5, accumulate=2),
        "train": dict(steps=12, validate_every=5, checkpoint_every=4),
    }
    return LanguageConfig.model_validate({key: values[key] | sections.get(key, {}) for key in values})


def test_perplexity_comes_close_to_the_entropy_of_a_markov_chain(tmp_path):
    lines = chain_text(1500, seed=1)
    (tmp_path / "text.txt").write_text("\n".join(lines[:1200]))
    (tmp_path / "dev.txt").write_text("\n".join(lines[1200:]))
    config = settings(
        tmp_path,
        model={"d_model": 32, "dropout": 0.0},
        data={"dev": [tmp_path / "dev.txt"], "hold_out": 0, "batch_characters": 600},
        optim={"lr": 0.005, "accumulate": 1, "schedule": "cosine"},
        train={"steps": 150, "validate_every": 150, "checkpoint_every": 150},
    )
    assert train(config, tmp_path / "run", device="cpu") == 0
    found = float(load_language_model(tmp_path / "run", "cpu").metadata["dev_perplexity"])

    held_out = [line + "." for line in lines[1200:]]
    losses = [
        -math.log(CHAIN[before][letter])
        for line in held_out
        for before, letter in zip(["", *line], line, strict=False)
    ]
    bound = math.exp(sum(losses) / len(losses))
    counts = Counter("".join(held_out))
    share = [count / counts.total() for count in counts.values()]
    unigram = math.exp(-sum(p * math.log(p) for p in share))
    assert 0.995 * bound < found < 1.02 * bound < 0.8 * unigram


def test_perplexity_counts_every_character_and_EOS_but_not_BOS(tmp_path):
    """A network that predicts EOS with 1/2 and everything else equally, in every context."""
    (tmp_path / "some.txt").write_text("abc\na\n\ncb\n")
    data = {"hold_out": 0, "dev": [tmp_path / "some.txt"]}
    task = LanguageTask(settings(tmp_path, data=data), tmp_path, lambda line: None)  # seven tokens
    with torch.no_grad():
        task.bundle.network.decoder.out.weight.zero_()
        task.bundle.network.decoder.out.bias.copy_(torch.tensor([1, 1, 6, 1, 1, 1, 1]).log())
    expected = (2**3 * 12**6) ** (1 / 9)  # three sentences, six characters
    found = task.validate(Ranks(0, 1, torch.device("cpu")))
    assert found.scores["perplexity"] == pytest.approx(expected, rel=1e-6)
    assert found.scores["loss"] == pytest.approx(math.log(expected), rel=1e-6)


def weights(folder):
    return load_tensors(folder / "model.safetensors")[0]


def newest(run):
    return checkpoints.newest(run)


def interrupt_at(monkeypatch, targets, number):
    """Send this process a signal in the middle of a step."""
    original = Monitor.step

    def step(self, step):
        original(self, step)
        if step.number == targets:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Monitor, "step", step)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, stop):
    config = settings(tmp_path)
    assert train(config, tmp_path / "alone", device="cpu") == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop, signal.SIGTERM)
        assert train(config, tmp_path / "stopped", device="cpu") == 128 + signal.SIGTERM
    assert newest(tmp_path / "stopped").name == f"step-{stop:08d}"
    torch.rand(3)  # the state of the global generator must not matter
    assert train(config, tmp_path / "stopped", resume="always", device="cpu") == 0
    for part in ("", "checkpoints/step-00000012"):
        alone, stopped = weights(tmp_path / "alone" / part), weights(tmp_path / "stopped" / part)
        assert alone.keys() == stopped.keys()
        assert all(torch.equal(alone[name], stopped[name]) for name in alone)


def test_ctrl_c_saves_a_model_folder_and_ends(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3, signal.SIGINT)
    assert train(settings(tmp_path), tmp_path / "run", device="cpu") == 128 + signal.SIGINT
    assert newest(tmp_path / "run").name == "step-00000003"
    bundle = load_language_model(newest(tmp_path / "run"), "cpu")
    assert bundle.tokenizer.characters == ("a", "b", "c") and not bundle.network.training


def test_a_run_is_a_model_folder_with_checkpoints_and_curves(tmp_path):
    train(settings(tmp_path), tmp_path / "run", device="cpu")
    assert newest(tmp_path / "run").name == "step-00000012"
    for folder in (tmp_path / "run", newest(tmp_path / "run")):
        assert load_language_model(folder, "cpu").parameters() > 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["kind"] == "language model"


def test_the_run_folder_holds_the_best_model_and_not_the_last(tmp_path, monkeypatch):
    found = iter([3.0, 2.0, 2.5])
    original = LanguageTask.validate

    def validate(*given):
        return replace(original(*given), scores={"loss": 1.0, "perplexity": next(found)})

    monkeypatch.setattr(LanguageTask, "validate", validate)
    train(settings(tmp_path), tmp_path / "run", device="cpu")
    metadata = load_language_model(tmp_path / "run", "cpu").metadata
    assert (metadata["step"], metadata["dev_perplexity"]) == ("10", "2.0")


def test_the_model_is_the_moving_average_of_the_weights(tmp_path, monkeypatch):
    config = settings(tmp_path, optim={"ema": 0.9})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7, signal.SIGTERM)
        assert train(config, tmp_path / "run", device="cpu") == 128 + signal.SIGTERM
    live = load_tensors(newest(tmp_path / "run") / "optimizer.safetensors")[0]
    averaged = weights(newest(tmp_path / "run"))
    name = "decoder.out.weight"
    assert not torch.equal(live[f"{name}/live"], averaged[f"network.{name}"])
    assert train(config, tmp_path / "run", resume="always", device="cpu") == 0
    assert train(config, tmp_path / "alone", device="cpu") == 0
    resumed, alone = (weights(tmp_path / run) for run in ("run", "alone"))
    assert all(torch.equal(resumed[key], alone[key]) for key in alone)
    # The average was validated, so it is also the model of the run folder.
    step = int(load_language_model(tmp_path / "run", "cpu").metadata["step"])
    assert all(
        torch.equal(resumed[key], weights(checkpoint_folder(tmp_path / "run", step))[key]) for key in resumed
    )


def test_an_unfinished_checkpoint_is_never_resumed_from(tmp_path, monkeypatch):
    run, config = tmp_path / "run", settings(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGTERM)
        train(config, run, device="cpu")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save_tensors", die)
        train(config, run, resume="always", device="cpu")
    assert newest(run).name == "step-00000004"
    assert train(config, run, resume="always", device="cpu") == 0


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    """Three batches of four sentences, or one of all twelve."""
    (tmp_path / "text.txt").write_text("\n".join(["abcabc", "cabcab"] * 8))
    common = dict(model={"dropout": 0.0}, train={"steps": 1, "precision": "float32"})
    optim = {"lr": 1e-3, "warmup_steps": 0}
    for name, size, count in (("many", 7 * 4, 3), ("one", 7 * 12, 1)):
        config = settings(
            tmp_path,
            data={"batch_characters": size, "hold_out": 4, "max_characters": 10},
            optim=optim | {"accumulate": count},
            **common,
        )
        train(config, tmp_path / name, device="cpu")
    # The first moments are a tenth of the gradients, which the weights are not compared by: where a gradient
    # is nothing but rounding errors, AdamW makes a whole step of it.
    many, one = (
        load_tensors(newest(tmp_path / name) / "optimizer.safetensors")[0] for name in ("many", "one")
    )
    assert many.keys() == one.keys()
    assert all(torch.allclose(many[name], one[name], atol=1e-6) for name in one if name.endswith("exp_avg"))


# ------------------------------------------------------------------------------------------- what is refused


def refusal(config, run, **options):
    with pytest.raises(AsrError) as caught:
        train(config, run, device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_text_that_cannot_be_used_is_refused_before_the_first_step(tmp_path):
    def message(**data):
        config = settings(tmp_path, data=data)
        return refusal(config, tmp_path / "run")

    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "long.txt").write_text("a" * 101 + "\nab\n")
    assert "data.text names no file" in message(text=[])
    assert "no.txt: cannot be read as text" in message(text=[tmp_path / "no.txt"])
    assert "data.text: all sentences are left out" in message(
        text=[tmp_path / "empty.txt"], hold_out=0, dev=[tmp_path / "text.txt"]
    )
    assert "held-out text: all sentences are left out" in message(hold_out=0, dev=[tmp_path / "empty.txt"])
    assert "no held-out text" in message(hold_out=0)
    assert "the file has 400 lines, and hold_out 400 leaves no line" in message(hold_out=400)
    assert "1 longer than data.max_characters" in message(text=[tmp_path / "long.txt"], hold_out=1)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_sentences_longer_than_the_positions_of_the_model_are_left_out(tmp_path):
    """Learned positions have a fixed number, of which the prompt takes one."""
    model = {"positions": {"kind": "learned", "max_length": 9}}
    config = settings(tmp_path, model=model, data={"hold_out": 50}, train={"steps": 3})
    lines = []
    task = LanguageTask(config, tmp_path / "scratch", lines.append)
    texts = (tmp_path / "text.txt").read_text().split()
    longer = sum(len(text) > 8 for text in texts[:-50])
    assert 0 < longer < 350 and f"{longer} with more tokens than the model has positions" in lines[0]
    lengths = [len(tokens) for group in task.pool(0, 0).groups for tokens in group]
    assert max(lengths) == 8 and len(lengths) == 350 - longer
    train(config, tmp_path / "run")


def test_the_characters_of_a_model_decide_what_is_read(tmp_path, tiny_model):
    (tmp_path / "text.txt").write_text("\n".join(["one two", "naïve", "three"] * 9))
    config = settings(tmp_path, data={"characters_of": tiny_model, "hold_out": 3})
    assert train(config, tmp_path / "run", device="cpu") == 0
    assert load_language_model(tmp_path / "run", "cpu").tokenizer == load_tokenizer(
        tiny_model / "tokenizer.json"
    )
    upper = settings(tmp_path, data={"characters_of": tiny_model, "hold_out": 3, "case": "upper"})
    assert "unknown characters, such as 'O'" in refusal(upper, tmp_path / "other")


def test_folders_that_hold_something_else_are_refused(tmp_path, tiny_model):
    config, run = settings(tmp_path, train={"steps": 2}), tmp_path / "run"
    assert "nothing to resume" in refusal(config, run, resume="always")
    with claimed(run):
        assert "another process is using this folder" in refusal(config, run)
    train(config, run, device="cpu")
    assert "--resume" in refusal(config, run)
    other = settings(tmp_path, model={"n_layers": 2})
    assert "must keep: model.n_layers 1 (now 2)" in refusal(other, run, resume="always")
    (tmp_path / "text.txt").write_text("\n".join(chain_text(401, seed=3)))
    assert "the data have changed since this run began (then 350 sentences" in refusal(
        config, run, resume="always"
    )

    with pytest.raises(AsrError, match=r"run: this is a language model; name the folder of a recognizer"):
        load_model(run, "cpu")
    with pytest.raises(AsrError, match=r"this is a recognizer; name the folder of a language model"):
        load_language_model(tiny_model, "cpu")
    with pytest.raises(AsrError, match="no such model folder"):
        load_language_model(tmp_path / "nowhere", "cpu")


def test_ruined_weights_end_the_run_and_are_not_saved(tmp_path):
    message = refusal(
        settings(tmp_path, optim={"lr": 1e30, "warmup_steps": 0}, train={"checkpoint_every": 1}),
        tmp_path / "run",
    )
    assert "step 1: the weights are ruined, and are not saved; lower optim.lr" in message
    assert newest(tmp_path / "run") is None
