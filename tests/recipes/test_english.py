"""The data of the English recipe: text, phonemes, splits, synthesized speech."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.config import load_config
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "english"
sys.path.append(str(RECIPE))
from phonemes import base_symbols, inventory, phonemes, restrict, voice_for  # noqa: E402
from prepare_recordings import split, usable  # noqa: E402
from sentences import everyday, from_book  # noqa: E402
from text import Exclusion, normalize, number_words  # noqa: E402
from voices import SHARES, Voice, draw_voice  # noqa: E402

needs_espeak = pytest.mark.skipif(find_library("espeak-ng") is None, reason="needs libespeak-ng")
needs_synthesizers = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("espeak-ng", "flite", "festival")),
    reason="needs espeak-ng, flite and festival",
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("Author of the danger trail, Philip Steels, etc.", "author of the danger trail philip steels etc"),
        ("Don\u2019t \u2018quote\u2019 the caf\u00e9's owners'", "don't quote the cafe's owners"),
        ("Press 1 for A.M, or 2 for P.M.", "press one for a m or two for p m"),
        ("your 12-digit number", "your twelve digit number"),
        ("one\u2014two & three", "one two and three"),
        ("dial 411", None),
        ("28.8 kilobit", None),
        ("at 10:30", None),
        ("3D audio", None),
        ("press * now", None),
        ("laugh {like a villain}", None),
        ("the PBX", None),
        ("...", None),
    ],
)
def test_normalized_text(text: str, normalized: str | None) -> None:
    assert normalize(text) == normalized


def test_a_corpus_in_capitals_has_no_acronyms() -> None:
    assert normalize("WE CALL IT BEAR", capitals=True) == "we call it bear"


def test_number_words() -> None:
    assert [number_words(n) for n in (0, 13, 20, 42, 99)] == [
        "zero", "thirteen", "twenty", "forty two", "ninety nine",
    ]  # fmt: skip


def test_exclusion_finds_five_words_in_a_row() -> None:
    excluded = Exclusion(["the cat sat on the mat", "no"])
    assert "no" in excluded
    assert "i saw that the cat sat on the chair" in excluded
    assert "the cat sat on a mat" not in excluded
    assert "no never" not in excluded


def test_base_symbols_have_no_stress_length_ties_or_tones() -> None:
    assert base_symbols("(en)t͡ʃˈɡːã5 (fr)") == "tʃga"


@needs_espeak
def test_phonemes_of_texts_in_several_languages() -> None:
    texts = ["bath", "one, two. three", ""]
    assert phonemes(texts) == ["bæθ", "wʌntuθɹi", ""]
    assert phonemes(["car"], "en-gb") == ["kɑ"]
    assert phonemes(["car"], "en-us") == ["kɑɹ"]
    assert phonemes(["ночь"], "ru")[0][0] == "n"
    assert voice_for("sv-SE") == "sv"
    assert voice_for("zh-HK") == "yue"
    assert voice_for("ja") is None
    assert voice_for("xx") is None
    with pytest.raises(AsrError, match="no voice for the language 'xx'"):
        phonemes(texts, "xx")


def test_inventory_has_english_symbols_and_widespread_ones() -> None:
    others = [(lang, "ç" * 20) for lang in ("de", "el", "no")] + [("sw", "ǃ" * 100)]
    symbols = inventory(["ab" * 5, "θ" * 4], others)
    assert symbols == "abç"
    assert restrict("aǃbθç", symbols) == "abç"


def utterance(name: str, number: int, text: str, **more: object) -> Utterance:
    return Utterance(f"{name}-{number}", Path("a.wav"), text, 3.0, str(more.pop("speaker", name)), extra=more)


def test_held_out_sentences_are_in_no_other_set() -> None:
    sentences = [f"sentence {number_words(n)} is read by kathleen" for n in range(20)]
    corpora = {
        # Each sentence twice: a split by utterance would put one of the two into the training set.
        "kathleen": [
            utterance("kathleen", i, s) for i, s in enumerate(s for s in sentences for _ in range(2))
        ],
        "asterisk_en_GB": [utterance("asterisk_en_GB", i, s) for i, s in enumerate(sentences)],
        "freeswitch_callie": [
            utterance("freeswitch_callie", 0, "a prompt of five words"),
            utterance("freeswitch_callie", 1, "a short one"),
            utterance("freeswitch_callie", 2, sentences[3]),
        ],
        "speechocean762": [
            utterance(
                "speechocean762", i, "we call it bear", speaker=f"s{i}", split="train" if i < 12 else "test"
            )
            for i in range(13)
        ],
        "fsdd": [utterance("fsdd", i, "one", split="test" if i < 5 else "train") for i in range(59)],
    }
    sets = split(corpora)
    train = {u.text for u in sets["train-real"]}
    dev = {u.text for u in sets["dev-native"]}
    assert dev == {sentences[0], sentences[3], sentences[10], "a prompt of five words"}
    assert [u.text for u in sets["dev-callie"]] == ["a prompt of five words"]
    assert not train & dev
    assert len(sets["dev-native"]) == 6
    assert "a short one" not in train  # the voice of dev-callie is in no training set
    assert {u.speaker for u in sets["dev-so762"]} == {"s0"}
    assert {u.speaker for u in sets["test-so762"]} == {"s12"}
    assert len(sets["test-fsdd"]) == 5
    assert len(sets["dev-fsdd"]) == 2
    assert len(sets["train-digits"]) == 52


def test_a_text_too_long_for_its_recording_is_left_out() -> None:
    assert usable(utterance("kathleen", 0, "A short text."), "kathleen") is not None
    assert usable(utterance("kathleen", 0, "a text of more than ninety letters " * 3), "kathleen") is None


def test_sentences_are_normalized_text() -> None:
    draw = random.Random(1)
    book = ["it was the best of times it was the worst of times " * 6, "a short sentence"]
    for _ in range(300):
        for sentence in (everyday(draw), from_book(book, draw)):
            assert sentence and normalize(sentence) == sentence
            assert len(sentence) < 200


def test_voices_differ_and_repeat_with_the_seed() -> None:
    voices = [draw_voice(random.Random(seed)) for seed in range(200)]
    assert len({voice.id for voice in voices}) == 200
    assert {voice.synthesizer for voice in voices} == set(SHARES)
    assert voices == [draw_voice(random.Random(seed)) for seed in range(200)]


@needs_synthesizers
def test_warp_keeps_the_speech_rate(tmp_path: Path) -> None:
    from voices import speak_all

    text = "a long sentence for a voice to speak"
    plain, warped = speak_all(
        [(text, Voice("flite", "awb", 1.0, 1.0, warp)) for warp in (1.0, 1.2)], tmp_path
    )
    assert plain is not None and warped is not None
    assert warped.size == pytest.approx(plain.size, rel=0.1)


@needs_synthesizers
@pytest.mark.parametrize("synthesizer", list(SHARES))
def test_every_synthesizer_speaks(synthesizer: str, tmp_path: Path) -> None:
    from voices import SAMPLE_RATE, speak_all

    slow, fast = (
        Voice(synthesizer, draw_voice(random.Random(3), synthesizer).speaker, rate, 1.0, 1.0)
        for rate in (0.8, 1.3)
    )
    speech = speak_all([("it's a sentence for a test", voice) for voice in (slow, fast)], tmp_path)
    assert speech[0] is not None and speech[1] is not None
    assert 0.8 < speech[1].size / SAMPLE_RATE < speech[0].size / SAMPLE_RATE < 5
    assert all(np.abs(audio).max() > 0.01 for audio in speech if audio is not None)


def test_a_voice_changed_by_world_has_the_drawn_pitch_and_the_same_length() -> None:
    pyworld = pytest.importorskip("pyworld")
    from world import Change, revoice

    time = np.arange(16_000) / 16_000
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 30)).astype(np.float32) * 0.1
    changed = revoice(vowel, 16_000, Change(warp=1.1, pitch=1.5, intonation=1.0, breath=1.0))
    assert changed.shape == vowel.shape
    f0, _ = pyworld.harvest(changed.astype(np.float64), 16_000)
    assert np.median(f0[f0 > 0]) == pytest.approx(180, rel=0.03)


def test_channel_effects_keep_the_length() -> None:
    from channel import Surroundings, clip, distort, telephone

    noise_source = np.random.default_rng(0)
    audio = (0.1 * noise_source.standard_normal(16_001)).astype(np.float32)
    recorded = Surroundings([audio[:5000]], [np.exp(-np.arange(800) / 100).astype(np.float32)])
    for seed in range(40):
        changed = distort(audio, recorded, random.Random(seed))
        assert changed.shape == audio.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
    spectrum = np.abs(np.fft.rfft(telephone(audio, gsm=False)))
    assert spectrum[4000:].max() < 0.05 * spectrum[500:3000].max()  # bins of 1 Hz: nothing above 4 kHz
    assert np.abs(clip(audio, 0.01)).max() < np.abs(audio).max()


@needs_synthesizers
def test_a_shard_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("pyworld")
    (tmp_path / "books.txt").write_text("it was a bright day in the village\nnobody was awake\n" * 3)
    (tmp_path / "phonemes.txt").write_text("abdefghijklmnoprstuvwzæðŋɑɐəɚɛɜɡɪɹɾʃʊʌʒθɔᵻ")
    write_manifest(tmp_path / "dev-native.jsonl", [utterance("kathleen", 0, "nobody was awake")])
    command = [sys.executable, str(RECIPE / "synthesize.py"), str(tmp_path), str(tmp_path / "books.txt")]
    command += ["--shards", "1", "--first", "7", "--sentences", "4"]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "made-007.jsonl: " in first
    made = read_manifest(tmp_path / "made-007.jsonl")
    assert len(made) >= 3
    for item in made:
        audio, rate = soundfile.read(item.audio)
        assert rate == 16_000 and item.duration is not None
        assert len(audio) / rate == pytest.approx(item.duration, abs=0.01)
        assert np.abs(audio).max() > 0.01
        assert item.text != "nobody was awake"
        assert item.phonemes
    assert "exists" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE / "synthesize.py"), str(tmp_path), "books.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        pytest.skip("needs pyworld")
    assert done.returncode == 1
    assert "phonemes.txt: not found; run prepare_recordings.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_manifests_from_the_command_line(tmp_path: Path) -> None:
    if find_library("espeak-ng") is None:
        pytest.skip("needs libespeak-ng")
    folder = tmp_path / "corpora" / "kathleen"
    folder.mkdir(parents=True)
    rows = [
        {"id": str(i), "audio": "a.wav", "text": f"Text {number_words(i)}.", "duration": 2.0}
        for i in range(12)
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        str(RECIPE / "prepare_recordings.py"),
        str(folder.parent),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "matthes is left out" in done.stderr
    dev = read_manifest(tmp_path / "out" / "dev-native.jsonl")
    assert [u.text for u in dev] == ["text zero", "text ten"]
    assert len(read_manifest(tmp_path / "out" / "train-real.jsonl")) == 10
    assert dev[0].phonemes.startswith("t")


def test_the_training_configuration_is_valid() -> None:
    config = load_config(RECIPE / "english.yaml")
    assert config.train.phonemes is not None and config.model.encoder.phonemes == 68


@pytest.mark.usefixtures("no_attention_plots")
def test_fine_tuning_starts_from_the_model_that_ships(tmp_path, monkeypatch):
    """Two steps with six sentences. The run has the architecture and the tokens of the English model."""
    from typer.testing import CliRunner

    from asr.commands import app
    from asr.model_folder import load_model

    samples = RECIPE.parents[1] / "data" / "samples" / "manifest.jsonl"
    small = [f"data.train=[{samples}]", f"data.dev=[{samples}]", "data.workers=1", "train.steps=2"]
    small += ["train.validate_every=2", "optim.warmup_steps=1", "optim.decay_steps=0"]
    recipe = RECIPE / "finetune.yaml"
    result = CliRunner().invoke(app, ["train", str(recipe), *small, "--run", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    tuned, shipped = load_model(tmp_path / "run", "cpu"), load_model("english", "cpu")
    assert tuned.tokenizer.symbols == shipped.tokenizer.symbols
    assert tuned.config.model == shipped.config.model
    assert tuned.module.state_dict().keys() == shipped.module.state_dict().keys()
