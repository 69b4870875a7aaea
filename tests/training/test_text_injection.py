"""Training on text without audio beside recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import sections

from asr.config import Config
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.model.interfaces import PHONEME_STATES
from asr.training.losses import joint_loss
from asr.training.recognition import RecognitionTask

SYMBOLS = "kætdɔɡ"
WORDS = {"cat": "kæt", "dog": "dɔɡ", "act": "ækt", "god": "ɡɔd"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A manifest of three recordings of noise, and sentences without audio."""
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    rows = []
    for number, (text, phonemes) in enumerate(list(WORDS.items())[:3]):
        soundfile.write(tmp_path / f"{number}.wav", noise[number * 1000 :], 16_000)
        seconds = 1 - number / 16
        rows.append(
            Utterance(f"u{number}", tmp_path / f"{number}.wav", text, seconds, "s", phonemes=phonemes)
        )
    write_manifest(tmp_path / "train.jsonl", rows)
    lines = [
        json.dumps({"text": f"{a} {b}", "phonemes": f"{WORDS[a]} {WORDS[b]}"}) for a in WORDS for b in WORDS
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def config(data: Path, injection: dict[str, object] | None, **train: object) -> Config:
    settings = sections(d_model=32, n_heads=2, d_ffn=48, dropout=0.0)
    settings["encoder"] = dict(
        kind="conformer",
        half_rate_layers=2,
        phonemes=7,
        phonemes_after=1,
        reads_phonemes=injection is not None,
    )
    if injection is not None:
        train["text_injection"] = {"file": data / "texts.jsonl", "sentences": 3} | injection
    return Config.model_validate(
        {
            "model": settings,
            "tokenizer": {"characters": " acdgot"},
            "data": {"train": [data / "train.jsonl"], "dev": [data / "train.jsonl"], "max_batch": 3},
            "augment": {"specaugment": None},
            "train": {"phonemes": {"symbols": SYMBOLS}} | train,
        }
    )


def task(config: Config) -> RecognitionTask:
    return RecognitionTask(config, lambda line: None)


def test_the_loss_of_the_texts_is_added_with_its_weight(data: Path) -> None:
    with_texts = task(config(data, {"weight": 0.7}))
    objective, batch = with_texts.objective().eval(), next(with_texts.pool(0, 0).batches([0]))
    sums, _ = objective(batch)
    plain = task(config(data, None))
    weights = with_texts.bundle.module.state_dict()
    shared = {name: each for name, each in weights.items() if ".phoneme_reader." not in name}
    plain.bundle.module.load_state_dict(shared)
    alone, _ = plain.objective().eval()(next(plain.pool(0, 0).batches([0])))
    injected = batch.injected
    assert injected is not None and len(injected.tokens) == 3
    network = with_texts.bundle.network
    memory = network.encode_phonemes(injected.probabilities, injected.lengths)
    expected = joint_loss(
        network, memory, injected.tokens, injected.token_lengths, with_texts.bundle.special, 0.3, 0.1
    )
    assert float(sums[4]) == pytest.approx(float(expected.total), rel=1e-4)
    assert float(sums[0]) == pytest.approx(float(alone[0]) + 0.7 * float(sums[4]), rel=1e-4)
    assert sums[1:4].tolist() == pytest.approx(alone[1:4].tolist(), rel=1e-4)


def test_in_training_the_error_of_the_predicted_states_is_added(data: Path) -> None:
    learner = task(config(data, {"weight": 0.7}, ctc_weight=0.3))
    objective, batch = learner.objective().train(), next(learner.pool(0, 0).batches([0]))
    total, attention, ctc, phonemes, texts, _ = objective(batch)[0].tolist()
    memory = learner.bundle.network.encode(*objective.extract(batch))
    errors, lengths = memory.intermediate[PHONEME_STATES]
    rows = [row[:length].square().mean(1) for row, length in zip(errors, lengths.tolist(), strict=True)]
    expected = 0.7 * attention + 0.3 * ctc + 0.3 * phonemes + 0.7 * texts
    expected += float(torch.cat(rows).mean()) * batch.n_targets
    assert total == pytest.approx(expected, rel=1e-4)


def test_the_decoder_learns_the_texts(data: Path) -> None:
    """The recordings are noise with three words, so pairs of words come from the texts alone."""
    learner = task(config(data, {"sentences": 8, "weight": 1.0}))
    objective = learner.objective().train()
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    losses = []
    for epoch in range(60):
        batch = next(learner.pool(epoch, 0).batches([0]))
        sums, _ = objective(batch)
        optimizer.zero_grad()
        (sums[0] / batch.n_targets).backward()
        optimizer.step()
        losses.append(float(sums[4].detach()))
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


def test_batches_of_validation_have_no_texts(data: Path) -> None:
    found = task(config(data, {}))
    assert all(batch.injected is None for batch in found.dev.batches(range(len(found.dev))))


def test_a_run_with_other_texts_is_another_run(data: Path) -> None:
    first = task(config(data, {})).data
    assert first != task(config(data, None)).data
    with (data / "texts.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"text": "cat", "phonemes": "kæt"}))
    assert task(config(data, {})).data != first


def test_texts_need_the_phoneme_head(data: Path) -> None:
    with pytest.raises(
        ValueError, match=r"needs an encoder that reads phonemes; set train\.phonemes and model"
    ):
        task(config(data, {}, phonemes=None))


def test_texts_need_an_encoder_that_reads_phonemes(data: Path) -> None:
    settings = config(data, {}).model_dump()
    settings["model"]["encoder"]["reads_phonemes"] = False
    with pytest.raises(ValueError, match=r"needs an encoder that reads phonemes"):
        Config.model_validate(settings)


def test_texts_that_the_decoder_has_no_positions_for(data: Path) -> None:
    settings = config(data, {}).model_dump()
    settings["model"]["decoder"]["positions"] = {"kind": "learned", "max_length": 6}
    with pytest.raises(
        AsrError, match=r"texts\.jsonl, line 1: 7 tokens, but the decoder has only 5 positions"
    ):
        task(Config.model_validate(settings))


def test_a_check_on_few_utterances_has_no_other_texts(data: Path) -> None:
    few = config(data, {}).overfit(2)
    assert few.train.text_injection is None and not few.model_dump()["model"]["encoder"]["reads_phonemes"]


def test_tokens_are_not_replaced_in_evaluation(data: Path) -> None:
    learner = task(config(data, {}, token_noise=0.9))
    objective, batch = learner.objective().eval(), next(learner.pool(0, 0).batches([0]))
    first, second = (float(objective(batch)[0][4]) for _ in range(2))
    assert first == second
