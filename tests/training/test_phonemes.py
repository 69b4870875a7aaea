"""Phonemes as a second target: from the manifest to the loss, also of utterances without a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sections
from torch.nn.functional import ctc_loss

from asr.config import Config
from asr.datasets.manifest import read_manifest, write_manifest
from asr.errors import AsrError
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import PHONEMES
from asr.model_folder import load_model
from asr.tokenizers import SpecialTokens
from asr.training.loop import train
from asr.training.losses import joint_loss
from asr.training.recognition import RecognitionTask

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
SYMBOLS = "θɹitu"
SPOKEN = [  # text, phonemes; several are too long for the audio, but not for the two outputs of a state
    ("three", "θɹiː"),
    (None, "tu"),
    ("two", None),
    ("tree", "tɹi"),
]


@pytest.fixture
def manifest(tmp_path):
    rows = [
        replace(u, text=text, phonemes=phonemes, speaker="one")
        for u, (text, phonemes) in zip(read_manifest(SAMPLES), SPOKEN, strict=False)
    ]
    write_manifest(tmp_path / "a.jsonl", rows)
    assert [(u.text, u.phonemes) for u in read_manifest(tmp_path / "a.jsonl")] == SPOKEN
    return tmp_path / "a.jsonl"


def config(manifest, encoder=(), **changes):
    phonemes = {"symbols": SYMBOLS, "weight": 0.5}
    values = {
        "model": sections(d_model=16, n_heads=2, d_ffn=24, dropout=0.0)
        | {
            "encoder": dict(kind="conformer", half_rate_layers=2, phonemes=6, phonemes_after=1)
            | dict(encoder)
        },
        "data": {"train": [manifest], "dev": [manifest], "max_batch": 4},
        "augment": {"specaugment": None},
        "train": {"phonemes": phonemes, "steps": 1},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return Config.model_validate(values)


def first_batch(task):
    """The batch with all utterances, and the order of its rows in the manifest."""
    batch = next(task.pool(0, 0).batches([0]))
    order = [read_manifest(SAMPLES)[i].id for i in range(4)]
    return batch, [order.index(id) for id in batch.ids]


def test_batches_have_phonemes_and_masks_for_missing_ones(manifest):
    batch, order = first_batch(RecognitionTask(config(manifest), lambda line: None))
    for row, (text, phonemes) in enumerate(SPOKEN[i] for i in order):
        assert bool(batch.has_text[row]) == (text is not None)
        assert bool(batch.has_phonemes[row]) == (phonemes is not None)
        assert batch.texts[row] == (text or "") and batch.token_lengths[row] == len(text or "")
        known = [SYMBOLS.index(c) + 1 for c in phonemes or "" if c in SYMBOLS]  # the length mark is left out
        assert batch.phonemes[row, : batch.phoneme_lengths[row]].tolist() == known
    assert batch.n_targets == len("three" + "two" + "tree") + len("tu") + 4


@pytest.mark.parametrize("ctc_weight", [0.3, 1.0])
def test_the_loss_is_that_of_the_texts_and_of_the_phonemes_that_are_known(manifest, ctc_weight):
    task = RecognitionTask(config(manifest, train={"ctc_weight": ctc_weight}), lambda line: None)
    objective, (batch, order) = task.objective().eval(), first_batch(task)
    sums, unalignable = objective(batch)
    total, attention, ctc, phoneme_loss, *_ = sums.tolist()

    memory = task.bundle.network.encode(*objective.extract(batch))
    log_probs, (logits, lengths) = task.bundle.network.ctc(memory), memory.intermediate[PHONEMES]
    expected_ctc, expected_phonemes, n_decoded = 0.0, 0.0, 0.0
    for row, (text, phonemes) in enumerate(SPOKEN[i] for i in order):
        states = int(memory.lengths[row])
        if text is not None:
            targets = batch.tokens[row : row + 1, : len(text)]
            expected_ctc += ctc_loss(
                log_probs[row, :states, None], targets, memory.lengths[row : row + 1],
                torch.tensor([len(text)]), 0, reduction="sum",
            ).item()  # fmt: skip
            n_decoded += len(text) + 1
        if phonemes is not None:
            targets = torch.tensor([[SYMBOLS.index(c) + 1 for c in phonemes if c in SYMBOLS]])
            expected_phonemes += ctc_loss(
                logits[row, : lengths[row], None].log_softmax(-1), targets, lengths[row : row + 1],
                torch.tensor([targets.size(1)]), 0, reduction="sum",
            ).item()  # fmt: skip
    assert ctc == pytest.approx(expected_ctc, rel=1e-4)
    assert phoneme_loss == pytest.approx(expected_phonemes, rel=1e-4)
    assert total == pytest.approx(
        (1 - ctc_weight) * attention + ctc_weight * ctc + 0.5 * phoneme_loss, rel=1e-4
    )
    assert not unalignable.any() and (attention > 0) == (ctc_weight < 1)


def test_a_row_without_text_is_not_reported_as_too_long():
    """No encoder state at all: too few for a text, even for an empty one if it needed any."""
    special = SpecialTokens((1,), 2, 0, 0, (0, 1), 9)
    network = EncoderDecoder(EncoderDecoder.Config(**sections(d_model=16, n_heads=2, d_ffn=24)), 8, 9)
    memory = network.encode(torch.randn(2, 8, 8), torch.tensor([8, 8]))  # two states
    tokens, lengths = torch.tensor([[4, 5, 6], [4, 5, 6]]), torch.tensor([3, 3])
    found = joint_loss(network, memory, tokens, lengths, special, 1.0, has_text=torch.tensor([True, False]))
    assert found.unalignable.tolist() == [True, False]


def test_a_row_without_text_gives_the_decoder_no_gradient(manifest):
    """Of utterances without any text, only the phoneme loss and its gradients are left."""
    rows = [replace(u, text=None, phonemes="tu") for u in read_manifest(manifest)]
    only = manifest.with_name("only.jsonl")
    write_manifest(only, rows)
    settings = config(manifest, data={"train": [only]}, tokenizer={"characters": "ehortw"})
    task = RecognitionTask(settings, lambda line: None)
    batch, _ = first_batch(task)
    sums, _ = task.objective()(batch)
    assert sums[1:3].tolist() == [0.0, 0.0] and float(sums[3]) > 0
    sums[0].backward()
    network = task.bundle.network
    assert all(not p.grad.any() for p in network.decoder.parameters() if p.grad is not None)
    assert network.encoder.half_rate.phoneme_head.weight.grad.any()


def test_strings_have_a_target_only_if_all_their_parts_have_it(manifest):
    join = {"per_epoch": 60, "min_items": 2, "max_items": 2, "max_pause": 0.1}
    task = RecognitionTask(config(manifest, augment={"join": join}), lambda line: None)
    spoken = {u.id: u for u in read_manifest(manifest)}
    seen = set()
    for batch in task.pool(0, 0).batches(range(len(task.plan(0)))):
        for row, id in enumerate(batch.ids):
            parts = [spoken[part] for part in id.split("+")]
            assert bool(batch.has_text[row]) == all(u.text is not None for u in parts)
            assert bool(batch.has_phonemes[row]) == all(u.phonemes is not None for u in parts)
            assert batch.texts[row] == (" ".join(u.text for u in parts) if batch.has_text[row] else "")
            seen.add((len(parts), bool(batch.has_text[row]), bool(batch.has_phonemes[row])))
    assert {(2, True, False), (2, True, True), (2, False, True), (2, False, False)} <= seen


def test_training_lowers_the_phoneme_loss(manifest, tmp_path):
    optim = {"lr": 5e-3, "warmup_steps": 5, "schedule": "constant"}
    steps = {"steps": 60, "validate_every": 60, "checkpoint_every": 60, "average": 1, "ctc_weight": 1.0}
    settings = config(manifest, train=steps, optim=optim)
    assert isinstance(settings, Config) and settings.model.decoder is None
    task = RecognitionTask(settings, lambda line: None)
    batch, _ = first_batch(task)
    start = float(task.objective().eval()(batch)[0][3])
    assert train(settings, tmp_path / "run") == 0
    task.bundle.network.load_state_dict(load_model(tmp_path / "run", "cpu").network.state_dict())
    assert float(task.objective().eval()(batch)[0][3]) < 0.6 * start


def test_without_phonemes_a_text_is_required(manifest):
    values = config(manifest).model_dump()
    values["train"]["phonemes"], values["model"]["encoder"]["phonemes"] = None, 0
    with pytest.raises(AsrError, match=r"a\.jsonl, line 2: no 'text'; training needs text and duration"):
        RecognitionTask(Config.model_validate(values), lambda line: None)


def test_utterances_without_text_are_no_validation_data(manifest):
    lines = []
    task = RecognitionTask(config(manifest), lines.append)
    assert len(task.dev_loader.corpus) == 3 and len(task.loader.corpus) == 4
    assert "1 without a text" in lines[1] and "without a text" not in lines[0]


def test_the_head_has_an_output_for_each_symbol_and_the_blank(manifest):
    with pytest.raises(ValueError, match=r"5 symbols, but model\.encoder\.phonemes is 7; set it to 6"):
        config(manifest, encoder={"phonemes": 7})
    with pytest.raises(ValueError, match="a character twice"):
        config(manifest, train={"phonemes": {"symbols": "aba"}})
