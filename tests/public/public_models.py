"""Small models and tokenizers in the real formats of the hub, made here, with random weights."""

from __future__ import annotations

import io
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

LANGUAGES = ("en", "de", "zh")
LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "いろはにほへと ちりぬるを わかよたれそ",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "emoji 🎉🎈 and\ttabs,  double spaces, \u00a0 and e\u0301",
]


@cache
def bpe(size: int = 600) -> dict[str, Any]:
    """The JSON of a byte-level BPE tokenizer with the special tokens of Whisper, but no timestamps."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES * 3, trainer)
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    return json.loads(tokenizer.to_str())


def write_whisper(
    folder: Path,
    seed: int = 0,
    sizes: dict[str, Any] | None = None,
    english: bool = False,
    seconds: int = 2,
    tokenizer: str = "tokenizer.json",
    large_weights: bool = True,
    **save: Any,
) -> Any:
    """Save a Whisper with random weights and its tokenizer; returns the model of transformers.

    Without `large_weights` they have the size that transformers begins with.
    """
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads(json.dumps(bpe()))
    ids = {token["content"]: token["id"] for token in values["added_tokens"]}
    eos, times = ids["<|endoftext|>"], ids["<|notimestamps|>"] + 1
    settings = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64)
    settings |= dict(encoder_attention_heads=4, decoder_attention_heads=4, max_target_positions=64)
    settings |= sizes or {}
    config = transformers.WhisperConfig(
        vocab_size=times + 1501,
        max_source_positions=seconds * 50,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), eos),
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **settings,
    )
    torch.manual_seed(seed)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    if large_weights:
        spread(model)
    generation = dict(
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), eos),
        decoder_start_token_id=ids["<|startoftranscript|>"],
        is_multilingual=not english,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=[1, 2, 7, 50, *(ids[f"<|{n}|>"] for n in ("translate", "startoflm", "nospeech"))],
        begin_suppress_tokens=[220, eos],
        max_initial_timestamp_index=50,
        max_length=config.max_target_positions,
        alignment_heads=[[1, 0], [1, 3]],
    )
    if not english:
        generation["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
        generation["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    model.generation_config = transformers.GenerationConfig(**generation)
    model.save_pretrained(folder, **save)
    transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=seconds
    ).save_pretrained(folder)
    write_tokenizer(folder, values, tokenizer)
    return model


def write_tokenizer(folder: Path, values: dict[str, Any], layout: str) -> None:
    """The files of a byte-level BPE tokenizer, in one of the two layouts."""
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "WhisperTokenizer", "clean_up_tokenization_spaces": False, **named}
    files: dict[str, Any] = {"tokenizer_config.json": settings}
    if layout == "tokenizer.json":
        files[layout] = values
    else:
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in values["model"]["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        files["vocab.json"] = values["model"]["vocab"]
        files["added_tokens.json"] = {t["content"]: t["id"] for t in values["added_tokens"]}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@cache
def sentencepiece_model(size: int = 160) -> bytes:
    """A SentencePiece model of the lines."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3), model_writer=out, vocab_size=size, minloglevel=2
    )
    return out.getvalue()


def write_speech_to_text(
    folder: Path, seed: int = 0, sizes: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """Save a Speech2Text with random weights and its tokenizer; returns the model of transformers."""
    import sentencepiece
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    # The order of fairseq: the special tokens, then the pieces; a few pieces are not in the vocabulary.
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size() - 5)]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *reversed(pieces)]
    config = transformers.Speech2TextConfig(
        vocab_size=len(vocabulary),
        **dict(
            dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64),
            **dict(encoder_attention_heads=4, decoder_attention_heads=4, conv_channels=48),
            **(sizes or {}),
        ),
    )
    torch.manual_seed(seed)
    model = transformers.Speech2TextForConditionalGeneration(config).eval()
    spread(model)
    model.save_pretrained(folder)
    transformers.Speech2TextFeatureExtractor().save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(vocabulary)}))
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model())
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "Speech2TextTokenizer", **names, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def spread(model: Any) -> None:
    """Random norms, biases and larger weights, so that no error of a part cancels and texts vary."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" in name and "encoder" in name:
                continue
            scale = 0.1 if weight.dim() == 1 else 2.5 * weight.std()
            weight.add_(torch.randn_like(weight) * scale)
            if name == "model.decoder.layer_norm.weight":  # else the tied embedding repeats the last token
                weight.copy_(2 * torch.randn_like(weight))
            if name in ("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"):
                weight.mul_(12)
            if "encoder_attn" in name and weight.dim() == 2:  # the audio decides too
                weight.mul_(6 if "q_proj" in name or "k_proj" in name else 4)


def waveforms(*seconds: float, seed: int = 0) -> list[Any]:
    """Noise of several lengths, louder and quieter over time, at 16 kHz."""
    torch.manual_seed(seed)
    found = []
    for duration in seconds:
        size = round(16000 * duration)
        envelope = torch.rand(size // 1600 + 1).repeat_interleave(1600)[:size]
        found.append((torch.randn(size) * envelope * 0.3).numpy())
    return found


def padded(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of waveforms (B, samples) and its lengths (B,)."""
    lengths = torch.tensor([len(each) for each in samples])
    rows = [torch.from_numpy(each) for each in samples]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


WRITERS = {"whisper": write_whisper, "speech_to_text": write_speech_to_text}


def copied(folder: Path, where: Path) -> Path:
    """A copy of a folder, which a test can change."""
    return Path(shutil.copytree(folder, where / "copy"))


def change(path: Path, **values: Any) -> None:
    """Set values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
