"""A Whisper of a public shape with random weights, in the layout of Hugging Face's hub, for benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SHAPES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12)}  # d_model, heads, layers
TEXT_TOKENS = 50257  # of the multilingual models
LANGUAGES = ["en", *(a + b for a in "abcdefghi" for b in "pqrstuvwxyz")][:99]  # as many as there are


def write_folder(folder: Path, shape: str) -> Any:
    """Write the model with a tokenizer of the real format and size; returns the model of transformers."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    d_model, heads, layers = SHAPES[shape]
    sizes = {"d_model": d_model}
    for stack in ("encoder", "decoder"):
        sizes |= {
            f"{stack}_layers": layers,
            f"{stack}_attention_heads": heads,
            f"{stack}_ffn_dim": 4 * d_model,
        }
    tokenizer = _tokenizer()
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    named = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"])
    special = named | {"decoder_start_token_id": ids["<|startoftranscript|>"]}
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **special)).eval()
    with torch.no_grad():
        model.model.decoder.embed_positions.weight.normal_(std=1.0)  # else one token is repeated
    model.generation_config = GenerationConfig(
        **special,
        is_multilingual=True,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    )
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "WhisperTokenizer", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return model


def _tokenizer() -> dict[str, Any]:
    """The JSON of a byte-level BPE tokenizer whose merges are pairs of bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(a, b) for a in alphabet for b in alphabet][: TEXT_TOKENS - len(alphabet)]
    texts = [*alphabet, *(a + b for a, b in pairs)]
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    return values
