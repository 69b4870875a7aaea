"""Whisper (Radford et al. 2022) in the layout of the hub, as a configuration and a tokenizer of ours."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, cast

from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.public.source import Source
from asr.tokenizers.byte_level_bpe import ByteLevelBPE
from asr.tokenizers.special import PromptTokens, SpecialTokens

ARCHITECTURE = "WhisperForConditionalGeneration"
FRONT_END = "conv{+1}"  # the names of the convolutions: conv1, conv2
TOKENIZER = ByteLevelBPE
HEAD = "proj_out.weight"  # the output layer; it is the embedding
_NAMES = {
    "<|startoftranscript|>": "start",
    "<|notimestamps|>": "no_timestamps",
    "<|startofprev|>": "previous",
    "<|nospeech|>": "no_speech",
    "<|nocaptions|>": "no_speech",  # the older name
}


def read_config(source: Source) -> dict[str, Any]:
    """The values of our configuration. Raises AsrError for sizes that the features do not have."""
    config, features = source.json("config.json"), source.json("preprocessor_config.json", optional=True)
    generation = source.json("generation_config.json", optional=True)
    fixed = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000, "dither": 0.0}
    for name, value in fixed.items():
        if features.get(name, value) != value:
            raise AsrError(
                f"{source.folder}: {name} is {features[name]} in preprocessor_config.json; only {value} is "
                "known"
            )
    values = config_values(config, generation.get("alignment_heads") or [])
    if features.get("feature_size", config["num_mel_bins"]) != config["num_mel_bins"]:
        raise AsrError(
            f"{source.folder}: config.json and preprocessor_config.json differ in the number of bins; use "
            "the files of one model"
        )
    return values


def config_values(config: dict[str, Any], alignment_heads: list[list[int]]) -> dict[str, Any]:
    """The values of our configuration for those of `config.json`. Raises KeyError when one is missing."""
    d_model = config["d_model"]
    shared = {
        "d_model": d_model,
        "dropout": config.get("dropout", 0.0),
        "attention_dropout": config.get("attention_dropout", 0.0),
        "norm": "pre",
        "activation": config.get("activation_function", "gelu"),
        "key_bias": False,
    }
    stacks: dict[str, dict[str, Any]] = {
        stack: {
            "kind": "transformer",
            "n_layers": config[f"{stack}_layers"],
            "n_heads": config[f"{stack}_attention_heads"],
            "d_ffn": config[f"{stack}_ffn_dim"],
            "positions": {"kind": "learned", "max_length": config[f"max_{side}_positions"]},
            **shared,
        }
        for stack, side in (("encoder", "source"), ("decoder", "target"))
    }
    stacks["decoder"] |= {
        "tie_embedding": True,
        "scale_embedding": config.get("scale_embedding", False),
        "alignment_heads": alignment_heads,
    }
    window = config["max_source_positions"] * 0.02  # a state covers two frames
    return {
        "features": {"kind": "whisper_log_mel", "n_mels": config["num_mel_bins"], "window_seconds": window},
        "tokenizer": {"kind": "byte_level_bpe"},
        "model": {
            "kind": "encoder_decoder",
            "ctc": False,
            "front_end": {"kind": "convolution1d", "d_model": d_model},
            **stacks,
        },
        "data": {"max_seconds": window},
    }


def read_tokenizer(source: Source) -> ByteLevelBPE:
    """The tokenizer of `tokenizer.json`, or of `vocab.json` and `merges.txt`.

    Raises AsrError when it does not fit the model.
    """
    config, generation = source.json("config.json"), source.json("generation_config.json", optional=True)
    definition, named = _read_definition(source)
    size, eos = config["vocab_size"], _first(generation.get("eos_token_id", config.get("eos_token_id")))
    if max(named) >= size:
        raise AsrError(
            f"{source.folder}: the tokenizer has {max(named) + 1} tokens, but the model {size}; they do not "
            "belong together"
        )
    ids = {text: i for i, text in named.items()}
    start = ids.get("<|startoftranscript|>")
    missing = next((i for i in range(eos) if i not in named), None)
    if missing is not None or named.get(eos) != "<|endoftext|>" or start != config["decoder_start_token_id"]:
        raise AsrError(
            f"{source.folder}: the tokenizer has {len(named)} tokens that do not fit the special tokens in "
            "config.json; use the tokenizer that belongs to the model"
        )
    at_begin = {"begin_suppress_tokens": config.get("begin_suppress_tokens")}  # of older checkpoints
    prompts = _prompt_tokens(ids, at_begin | generation, size)
    suppressed = generation.get("suppress_tokens", config.get("suppress_tokens")) or ()
    first = prompts.first_timestamp
    times = range(0 if first is None else size - first)
    named = {first + i: f"<|{0.02 * i:.2f}|>" for i in times} | named if first is not None else named
    filler = ids.get("<|startoflm|>", prompts.no_speech or prompts.start)  # never part of a text
    return ByteLevelBPE(
        definition,
        [named.get(i, f"<|unused {i}|>") for i in range(size)],
        SpecialTokens(
            prompt=(),
            eos=eos,
            pad=filler,
            blank=filler,
            suppressed=tuple(i for i in suppressed if 0 <= i < size),
            vocabulary_size=size,
        ),
        prompts,
        # Full names, such as "german", are not codes: the language is then detected.
        _known(str(generation.get("language")).strip("<|>"), prompts.languages),
        _known(generation.get("task"), prompts.tasks),
    )


def _known(choice: Any, choices: Collection[str]) -> str | None:
    return choice if choice in choices else None


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def _prompt_tokens(ids: dict[str, int], generation: dict[str, Any], size: int) -> PromptTokens:
    found: dict[str, Any] = {role: ids[name] for name, role in _NAMES.items() if name in ids}
    # English-only checkpoints have the tokens of other languages too, but these tokens are not trained.
    default = size >= 51865
    if generation.get("is_multilingual", "lang_to_id" in generation or default):
        languages = generation.get("lang_to_id") or {
            text: i for text, i in ids.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", text)
        }
        in_order = sorted(languages.items(), key=lambda item: item[1])
        found["languages"] = {text.strip("<|>"): i for text, i in in_order}
        found["tasks"] = generation.get("task_to_id") or {
            task: ids[f"<|{task}|>"] for task in ("transcribe", "translate") if f"<|{task}|>" in ids
        }
    found["no_timestamps"] = generation.get("no_timestamps_token_id", found.get("no_timestamps"))
    if found["no_timestamps"] is not None and found["no_timestamps"] + 1 < size:
        found["first_timestamp"] = found["no_timestamps"] + 1
    begin = generation.get("begin_suppress_tokens") or ()
    return PromptTokens(
        **found,
        last_initial_timestamp=generation.get("max_initial_timestamp_index"),
        suppressed_at_begin=tuple(i for i in begin if 0 <= i < size),
    )


def _read_definition(source: Source) -> tuple[dict[str, Any], dict[int, str]]:
    """The JSON of the library's tokenizer without added tokens, and the text of every id."""
    if source.has("tokenizer.json"):
        values = source.json("tokenizer.json")
        if not isinstance(values.get("model"), dict) or values["model"].get("type", "BPE") != "BPE":
            raise AsrError(f"{source.folder / 'tokenizer.json'}: not a BPE tokenizer; download it again")
        added = {each["content"]: each["id"] for each in values.get("added_tokens") or ()}
    else:
        merges = source.text("merges.txt").splitlines()
        values = {"version": "1.0", "model": {"type": "BPE", "vocab": source.json("vocab.json")}}
        values["model"]["merges"] = [line for line in merges if line and not line.startswith("#version")]
        space = source.json("tokenizer_config.json", optional=True).get("add_prefix_space", False)
        values["pre_tokenizer"] = _byte_level(space)
        values["decoder"] = _byte_level(space)
        added = dict(source.json("added_tokens.json", optional=True))
        decoder = source.json("tokenizer_config.json", optional=True).get("added_tokens_decoder") or {}
        added |= {each["content"]: int(i) for i, each in decoder.items()}
    definition: dict[str, Any] = {
        **dict.fromkeys(("truncation", "padding", "post_processor")),
        "normalizer": values.get("normalizer"),
        **{name: values[name] for name in ("version", "pre_tokenizer", "decoder", "model") if name in values},
        "added_tokens": [],
    }
    vocab = values["model"].get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise AsrError(f"{source.folder}: the tokenizer has no vocabulary; download it again")
    return definition, {i: text for text, i in (vocab | added).items()}


def _byte_level(add_prefix_space: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }


def write_config(bundle: Bundle[Any]) -> dict[str, Any]:
    """The values of `config.json`."""
    model, tokenizer = bundle.config.model, cast(ByteLevelBPE, bundle.tokenizer)
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURE],
        "model_type": "whisper",
        "d_model": model.width,
        "num_mel_bins": bundle.features.n_features,
        "activation_function": model.encoder.activation,
        "dropout": model.encoder.dropout,
        "attention_dropout": model.encoder.attention_dropout,
        "activation_dropout": model.encoder.dropout,
        "scale_embedding": model.decoder.scale_embedding,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.special.eos,
        "bos_token_id": tokenizer.special.eos,
        "eos_token_id": tokenizer.special.eos,
        "decoder_start_token_id": tokenizer.prompts.start,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    for stack, side in (("encoder", "source"), ("decoder", "target")):
        part = getattr(model, stack)
        values |= {
            f"{stack}_layers": part.n_layers,
            f"{stack}_attention_heads": part.n_heads,
            f"{stack}_ffn_dim": part.d_ffn,
            f"max_{side}_positions": getattr(part.positions, "max_length", 1),
        }
    return values


def expected_model(config: dict[str, Any], bundle: Bundle[Any]) -> dict[str, Any]:
    """Our configuration for the result of `write_config`. It shows which settings the layout cannot store."""
    heads = getattr(bundle.config.model.decoder, "alignment_heads", ())
    return config_values(config, [list(pair) for pair in heads])


def write_files(bundle: Bundle[Any], config: dict[str, Any]) -> dict[str, dict[str, Any] | str | bytes]:
    """The other files of the layout besides weights and `config.json`, by name."""
    tokenizer = cast(ByteLevelBPE, bundle.tokenizer)
    special, prompts = tokenizer.special, tokenizer.prompts
    generation = {
        "eos_token_id": special.eos,
        "pad_token_id": special.eos,
        "bos_token_id": special.eos,
        "decoder_start_token_id": prompts.start,
        "is_multilingual": bool(prompts.languages),
        "suppress_tokens": list(special.suppressed),
        "begin_suppress_tokens": list(prompts.suppressed_at_begin),
        "no_timestamps_token_id": prompts.no_timestamps,
        "prev_sot_token_id": prompts.previous,
        "max_initial_timestamp_index": prompts.last_initial_timestamp,
        "max_length": config["max_target_positions"],
        "return_timestamps": False,
        "alignment_heads": [list(pair) for pair in bundle.config.model.decoder.alignment_heads],
        "length_penalty": float(bundle.metadata.get("length_normalization", 0.0)),
        "language": tokenizer.language,
        "task": tokenizer.task,
    }
    if prompts.languages:
        generation["lang_to_id"] = {f"<|{code}|>": i for code, i in prompts.languages.items()}
        generation["task_to_id"] = prompts.tasks
    positions = config["max_source_positions"]  # transformers pads every recording to all of them
    if positions % 50:
        raise AsrError(
            f"{ARCHITECTURE} cannot describe this model: its encoder has {positions} positions of 0.02 s, "
            "and the layout has windows of whole seconds"
        )
    window = positions // 50
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": bundle.features.n_features,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": window,
        "nb_max_frames": 100 * window,
        "n_samples": 16000 * window,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    return {
        "generation_config.json": {k: v for k, v in generation.items() if v not in (None, [])},
        "preprocessor_config.json": features,
        **_tokenizer_files(tokenizer),
    }


def _tokenizer_files(tokenizer: ByteLevelBPE) -> dict[str, dict[str, Any] | str | bytes]:
    definition = tokenizer.definition
    vocab, merges = definition["model"]["vocab"], definition["model"]["merges"]
    last = tokenizer.prompts.first_timestamp or len(tokenizer)
    added = [i for i, text in enumerate(tokenizer.vocabulary[:last]) if i >= tokenizer.special.eos]
    tokens = [
        {
            "id": i,
            "content": tokenizer.vocabulary[i],
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            "special": True,
        }
        for i in added
    ]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    return {
        "tokenizer.json": {**definition, "added_tokens": tokens},
        "vocab.json": vocab,
        "merges.txt": "#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs),
        "added_tokens.json": {tokenizer.vocabulary[i]: i for i in added},
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1024,
        },
        "special_tokens_map.json": dict.fromkeys(
            ("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"
        ),
    }
