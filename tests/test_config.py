"""One YAML file is one experiment. An error in it is named with file, line and key."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from asr.config import Config, LanguageConfig, load_config, load_experiment
from asr.errors import AsrError
from asr.features.log_mel import LogMel
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import HasCTC, HasDecoder
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[1] / "recipes").glob("**/*.yaml")
    if path.parent.name != "whisper"  # these need the original's folder: tests/public/test_finetune.py
)

FULL = """
features: {n_mels: 40, hop_ms: 12.5}
model:
  preset: small
  norm: post
  ctc: false
augment:
  specaugment: null
  speeds: [0.9, 1.1]
  noise_db: [-60, -30]
  join: {per_epoch: 7, min_items: 2, max_items: 4, separator: ""}
data:
  train: [a.jsonl, 数据/b.jsonl]
  exclude_speakers: [theo]
  first: 8
optim: {lr: 1e-3, betas: [0.9, 0.999], schedule: cosine}
train:
  ctc_weight: 0
  stop_wer: 0.5
"""


@pytest.fixture
def load(tmp_path):
    """Load a configuration from its text."""

    def load(text, *overrides):
        path = tmp_path / "some.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load


@pytest.fixture
def complaint(load):
    """The one line that a text, and overrides, are refused with."""

    def complaint(text, *overrides):
        with pytest.raises(AsrError) as caught:
            load(text, *overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return complaint


# ------------------------------------------------------------------------------------------ what is accepted


def test_the_base_preset_is_the_paper_s_base_model():
    base = EncoderDecoder.Config(preset="base")
    for part in (base.encoder, base.decoder):
        assert (part.d_model, part.n_heads, part.d_ffn, part.n_layers) == (512, 8, 2048, 6)


def test_explicit_settings_override_a_preset(load):
    model = load("model: {d_ffn: 100, preset: small, dropout: 0.2, decoder: {n_layers: 2}}").model
    found = [(p.d_model, p.d_ffn, p.n_layers, p.dropout) for p in (model.encoder, model.decoder)]
    assert found == [(256, 100, 12, 0.2), (256, 100, 2, 0.2)] and model.front_end.channels == 256
    assert EncoderDecoder.Config(preset="small").encoder.d_ffn == 2048


LSTMS = "encoder: {kind: pyramidal_lstm}, decoder: {kind: lstm}"


def test_a_part_of_another_kind_takes_from_a_preset_what_it_has(load):
    for kind in ("stacked", "patches"):
        model = load(f"model: {{preset: small, front_end: {{kind: {kind}}}}}").model
        assert (model.front_end.kind, model.front_end.d_model, model.encoder.n_layers) == (kind, 256, 12)
    model = load(f"model: {{preset: small, {LSTMS}}}").model
    assert (model.encoder.d_model, model.decoder.n_layers) == (256, 6)


@pytest.mark.parametrize("setting", ["n_heads: 3", "activation: odd", "positions: odd", "key_bias: 2"])
def test_a_setting_for_all_parts_that_no_part_has_is_refused(complaint, setting):
    key = setting.partition(":")[0]
    message = complaint(f"model:\n  {setting}\n  {LSTMS.replace(', d', chr(10) + '  d')}\n")
    assert f"line 2: model.{key}: no part of this model has this setting" in message


def test_an_empty_file_is_the_defaults(load):
    assert load("") == load("# nothing but a comment") == Config()


def test_a_file_needs_only_settings_that_differ_from_the_defaults(load):
    config = load(FULL)
    assert config.features.n_mels == 40 and config.features.n_fft == Config().features.n_fft
    assert config.features.hop_length == 200 and config.features.win_length == 400
    assert config.augment.specaugment is None and config.augment.speeds == (0.9, 1.1)
    assert config.data.train == (Path("a.jsonl"), Path("数据/b.jsonl"))
    assert config.optim.lr == 0.001  # which YAML takes for a string
    assert config.train.steps == Config().train.steps


def test_frames_of_25_ms_every_10_ms():
    assert (LogMel.Config().win_length, LogMel.Config().hop_length) == (400, 160)


def test_overrides(load):
    text = "train: {steps: 5}\nmodel: {preset: tiny}\n"
    config = load(
        text,
        "train.steps=7",
        "train.seed=3",
        "data.train=[x.jsonl, y.jsonl]",
        "augment.join.per_epoch=9",
        "augment.specaugment=null",
        "model.d_ffn=64",
        "train.steps=8",
    )
    assert (config.train.steps, config.train.seed) == (8, 3)  # the last one wins
    assert config.data.train == (Path("x.jsonl"), Path("y.jsonl"))
    assert config.augment.join.per_epoch == 9 and config.augment.specaugment is None
    assert (config.model.encoder.d_model, config.model.encoder.d_ffn) == (144, 64)


@pytest.mark.parametrize("text", ["", FULL])
def test_saved_and_loaded_it_is_the_same(load, tmp_path, text):
    config = load(text)
    config.save(tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_loads(path, tmp_path):
    config = load_experiment(path)
    if isinstance(config, LanguageConfig):
        assert config.data.text and (config.data.dev or config.data.hold_out)
    else:
        assert config.data.train and config.data.dev
    config.save(tmp_path / "config.json")
    assert load_experiment(tmp_path / "config.json") == config


def test_there_are_recipes():
    assert RECIPES


def test_overfitting_keeps_the_model_and_switches_regularization_off(load):
    limits = ("train.patience=3", "train.max_minutes=1")
    config = load(FULL + "  label_smoothing: 0.2\n", "data.first=100", "train.seed=5", *limits)
    over = config.overfit(8)
    assert over.features == config.features and over.model.front_end == config.model.front_end
    for part, old in ((over.model.encoder, config.model.encoder), (over.model.decoder, config.model.decoder)):
        assert part == old.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    assert over.train.label_smoothing == 0
    assert over.augment.specaugment is None and over.augment.speeds == (1.0,)
    assert over.augment.noise_db is None and over.augment.join.per_epoch == 0
    assert over.data.dev == over.data.train == config.data.train and over.data.first == 8
    assert over.data.distinct_texts
    assert over.train.stop_wer == 0 and over.train.seed == 5
    assert over.train.patience is None and over.train.max_minutes is None


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().train.steps = 1


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("train:\n  steps: 5\n  step: 5\n", 3, "train.step", "unknown key; .*steps"),
        ("model:\n  preset: tiny\nmodle:\n  d_model: 4\n", 3, "modle", "unknown key; .*model"),
        ("augment:\n  join:\n    min: 1\n", 3, "augment.join.min", "unknown key; .*min_items"),
        ("augment:\n  specaugment:\n    mask: 1\n", 3, "augment.specaugment.mask", "unknown .*time_masks"),
        ("\n\ntrain:\n  steps: many\n", 4, "train.steps", "integer"),
        ("train:\n  steps: 0\n", 2, "train.steps", "greater than 0"),
        ("train:\n  ctc_weight: 1.5\n", 2, "train.ctc_weight", "less than or equal to 1"),
        ("model:\n  encoder:\n    norm: middle\n", 3, "model.encoder.norm", "'pre' or 'post'"),
        (
            "model:\n  decoder:\n    kind: mask_predict\n    alignment_heads: [[0, 0]]\n",
            4,
            "model.decoder.alignment_heads",
            "unknown key",
        ),
        ("model:\n  preset: huge\n", 2, "model.preset", "'tiny', 'small' or 'base'"),
        ("model:\n  preset: [tiny]\n", 2, "model.preset", "'tiny', 'small' or 'base'"),
        ("data:\n  train: [1]\n", 2, "data.train.0", "path"),
        ("data:\n  train: a.jsonl\n", 2, "data.train", "tuple"),
        ("data: 5\n", 1, "data", "dictionary"),
        ("train:\n", 1, "train", "dictionary"),
        ("5: x\n", 1, "5", "unknown key"),
        ("optim: {lr: -1}\n", 1, "optim.lr", "greater than 0"),
        ("optim: {lr: .nan}\n", 1, "optim.lr", "finite number"),
        # contradictions
        (
            "train: {}\nmodel: {d_model: 64, n_heads: 3}\n",
            2,
            "model.encoder",
            "d_model 64 is not a multiple of n_heads 3",
        ),
        (
            "model: {preset: tiny, n_heads: 5}\n",
            1,
            "model.encoder",
            "d_model 144 is not a multiple of n_heads 5",
        ),
        ("model: {encoder: {conv_kernel: 4}}\n", 1, "model.encoder.conv_kernel", "4 is even"),
        ("model: {d_model: 15, n_heads: 5}\n", 1, "model.encoder", "d_model 15 is odd"),
        ("features: {n_fft: 256}\n", 1, "features", "400 samples, more than n_fft 256"),
        ("features: {hop_ms: 0.01}\n", 1, "features", "hop_ms 0.01"),
        ("augment:\n  join: {min_items: 5, max_items: 4}\n", 2, "augment.join", "min_items"),
        ("augment:\n  join: {min_pause: 5, max_pause: 4}\n", 2, "augment.join", "min_pause"),
        ("augment:\n  speeds: [1.0, 3.0]\n", 2, "augment.speeds", "between 0.5 and 2"),
        ("augment:\n  speeds: []\n", 2, "augment.speeds", "between 0.5 and 2"),
        ("augment:\n  noise_db: [-30, -60]\n", 2, "augment.noise_db", "low, high"),
    ],
)
def test_file_line_and_key_are_named(complaint, text, line, key, message):
    shown_lines = complaint(text)
    assert re.search(rf"some\.yaml, line {line}: {re.escape(key)}: .*{message}", shown_lines), shown_lines


def test_a_ctc_weight_needs_a_ctc_head(complaint, load):
    shown_lines = complaint("model: {ctc: false}\n")
    assert "train.ctc_weight" in shown_lines and "model.ctc" in shown_lines and "some.yaml" in shown_lines
    assert not load("model: {ctc: false}\ntrain: {ctc_weight: 0}\n").model.ctc


@pytest.mark.parametrize(
    "text", ["- 1\n", "text\n", "7\n", "a: [\n", "a: b: c\n", "? [a]\n: 1\n", "a: *b", "\0"]
)
def test_yaml_that_is_not_a_mapping_is_refused(complaint, text):
    assert re.search(r"some\.yaml: (not valid YAML|the configuration must be a mapping)", complaint(text))


def test_yaml_cannot_run_code(complaint, tmp_path):
    shown_lines = complaint(f"train: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    assert "not valid YAML" in shown_lines and not (tmp_path / "made").exists()


def test_a_missing_file_and_bytes(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    for name in ("none.yaml", "bytes.yaml"):
        with pytest.raises(AsrError, match=name) as caught:
            load_config(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_more_errors_are_counted(complaint):
    assert complaint("train: {steps: 0, seed: -1}\noptim: {lr: 0}\n").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "'steps': .*section.key=value"),
        ("=1", "'=1': .*section.key=value"),
        ("train.steps=[", "'train.steps=\\[': .*not valid YAML"),
        ("train.steps.x=1", "'train.steps.x=1': 'steps' is not a section"),
        ("train.stepz=1", "'train.stepz=1': train.stepz: unknown key; .*steps"),
        ("trian.steps=1", "'trian.steps=1': trian: unknown key; .*train"),
        ("train.steps=abc", "'train.steps=abc': train.steps: .*integer"),
        ("data.train=[1]", "'data.train=\\[1\\]': data.train.0: .*path"),
    ],
)
def test_a_wrong_override_is_named_instead_of_a_line_of_the_file(complaint, override, message):
    shown_lines = complaint("train:\n  steps: 5\n", "train.seed=1", override)
    assert re.search(message, shown_lines), shown_lines
    assert "line" not in shown_lines


def test_an_override_does_not_hide_an_error_in_the_file(complaint):
    assert "some.yaml, line 2: train.stepz" in complaint("train:\n  stepz: 5\n", "train.steps=1")


def test_a_duplicate_key_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model:\n  d_model: 128\n  d_ffn: 512\n  d_model: 256\n")
    with pytest.raises(AsrError, match=r"c\.yaml, line 4: d_model is a duplicate key"):
        load_config(path)


# --------------------------------------------------------------- parts that training leaves untouched


@pytest.mark.parametrize(
    ("weight", "ctc", "decoder"), [(0.0, False, True), (1.0, True, False), (0.3, True, True)]
)
def test_a_part_that_is_not_trained_is_not_in_the_model(load, weight, ctc, decoder):
    config = load(f"model: {{preset: tiny, ctc: true}}\ntrain: {{ctc_weight: {weight:g}}}\n")
    assert (config.model.ctc, config.model.decoder is not None) == (ctc, decoder)
    bundle = Bundle.build(config, CharacterTokenizer.from_characters("ab"))
    assert isinstance(bundle.network, HasCTC) == ctc and isinstance(bundle.network, HasDecoder) == decoder
    stored = {name.split(".")[1] for name in bundle.module.state_dict() if name.startswith("network.")}
    assert ("ctc_head" in stored, "decoder" in stored) == (ctc, decoder)


READS = {"phonemes": 3, "phonemes_after": 1, "reads_phonemes": True}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Config, {"train": {"trainable": "lora"}, "optim": {"ema": 0.9}}, "optim.ema and"),
        (LanguageConfig, {"train": {"trainable": "lora"}, "optim": {"ema": 0.9}}, "optim.ema and"),
        (
            Config,
            {
                "model": {"encoder": {"kind": "conformer", "half_rate_layers": 1, **READS}},
                "train": {"phonemes": {"symbols": "ab"}},
            },
            "reads_phonemes has no effect without train.text_injection",
        ),
        (
            LanguageConfig,
            {"data": {"characters_of": "runs/x"}, "tokenizer": {"kind": "byte_level_bpe", "size": 500}},
            "data.characters_of already chooses the tokenizer",
        ),
    ],
)
def test_settings_of_which_one_would_be_ignored(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind.model_validate(values)
