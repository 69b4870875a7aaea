"""Speech2Text (Wang et al. 2020, fairseq S2T) in the layout of the hub, as a configuration of ours."""

from __future__ import annotations

from typing import Any, cast

from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.public.source import Source
from asr.tokenizers.sentencepiece import SentencePieceTokenizer
from asr.tokenizers.special import PromptTokens, SpecialTokens

ARCHITECTURE = "Speech2TextForConditionalGeneration"
FRONT_END = "conv.conv_layers.{}"  # the names of the convolutions
LONGEST_SECONDS = 30.0  # of training audio; few recordings of LibriSpeech are longer
TOKENIZER = SentencePieceTokenizer
HEAD = "lm_head.weight"  # the output layer; it is the embedding


def read_config(source: Source) -> dict[str, Any]:
    """The values of our configuration. Raises AsrError for features that are not known."""
    config, features = source.json("config.json"), source.json("preprocessor_config.json", optional=True)
    if features.get("sampling_rate", 16000) != 16000 or features.get("dither", 0.0):
        raise AsrError(
            f"{source.folder}: preprocessor_config.json has another sampling rate than "
            "16000, or dither; this is not supported"
        )
    bins = config["input_feat_per_channel"] * config.get("input_channels", 1)
    if features.get("num_mel_bins", bins) != bins:
        raise AsrError(
            f"{source.folder}: config.json and preprocessor_config.json differ in the number of bins; use "
            "the files of one model"
        )
    values = config_values(config)
    normalize = features.get("do_ceptral_normalize", True)
    values["features"] |= {
        "mean": normalize and features.get("normalize_means", True),
        "variance": normalize and features.get("normalize_vars", True),
    }
    return values


def config_values(config: dict[str, Any]) -> dict[str, Any]:
    """The values of our configuration for those of `config.json`. Raises KeyError when one is missing."""
    d_model, scale = config["d_model"], config.get("scale_embedding", True)
    count = config["num_conv_layers"]
    stacks: dict[str, dict[str, Any]] = {
        stack: {
            "kind": "transformer",
            "d_model": d_model,
            "n_layers": config[f"{stack}_layers"],
            "n_heads": config[f"{stack}_attention_heads"],
            "d_ffn": config[f"{stack}_ffn_dim"],
            "dropout": config.get("dropout", 0.1),
            "attention_dropout": config.get("attention_dropout", 0.0),
            "norm": "pre",
            "activation": config.get("activation_function", "relu"),
            # The first position is the one after the id of PAD.
            "positions": {
                "kind": "sinusoidal",
                "layout": "concatenated",
                "offset": config.get("pad_token_id", 1) + 1,
            },
        }
        for stack in ("encoder", "decoder")
    }
    stacks["decoder"] |= {"tie_embedding": True, "scale_embedding": scale}
    return {
        "features": {
            "kind": "kaldi_fbank",
            "n_mels": config["input_feat_per_channel"] * config.get("input_channels", 1),
        },
        "tokenizer": {"kind": "sentencepiece"},
        "model": {
            "kind": "encoder_decoder",
            "ctc": False,
            "front_end": {
                "kind": "convolution1d",
                "d_model": d_model,
                "channels": config["conv_channels"] // 2,
                "kernels": config["conv_kernel_sizes"],
                "strides": [2] * count,
                "activation": "glu",
                "scale": scale,
            },
            **stacks,
        },
        "data": {"max_seconds": LONGEST_SECONDS},
    }


def read_tokenizer(source: Source) -> SentencePieceTokenizer:
    """The tokenizer of `sentencepiece.bpe.model` and `vocab.json`.

    Raises AsrError when it does not fit the model.
    """
    config, settings = source.json("config.json"), source.json("tokenizer_config.json", optional=True)
    generation = source.json("generation_config.json", optional=True)
    ids, size = source.json("vocab.json"), config["vocab_size"]
    pieces = {i: piece for piece, i in ids.items()}
    if sorted(pieces) != list(range(size)):
        raise AsrError(
            f"{source.folder}: the tokenizer has {len(pieces)} tokens, but the model {size}; they do not "
            "belong together"
        )
    languages = {p[6:-1]: i for p, i in ids.items() if p.startswith("<lang:") and settings.get("lang_codes")}
    special = SpecialTokens(
        prompt=(),
        eos=config["eos_token_id"],
        pad=config["pad_token_id"],
        blank=config["pad_token_id"],
        suppressed=tuple(generation.get("suppress_tokens") or ()),
        vocabulary_size=size,
    )
    unk = settings.get("unk_token", "<unk>")
    if (unk if isinstance(unk, str) else unk.get("content")) not in ids:
        raise AsrError(f"{source.folder}: vocab.json has no unknown token; download it again")
    return SentencePieceTokenizer(
        source.path("sentencepiece.bpe.model").read_bytes(),
        [pieces[i] for i in range(size)],
        special,
        PromptTokens(start=config["decoder_start_token_id"], languages=languages),
        ids[unk if isinstance(unk, str) else unk["content"]],
        (bool(settings.get("do_lower_case")), bool(settings.get("do_upper_case"))),
        settings.get("tgt_lang") or next(iter(languages), None),  # it does not detect languages
    )


def write_config(bundle: Bundle[Any]) -> dict[str, Any]:
    """The values of `config.json`."""
    model, tokenizer = bundle.config.model, cast(SentencePieceTokenizer, bundle.tokenizer)
    front_end = model.front_end
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURE],
        "model_type": "speech_to_text",
        "d_model": model.width,
        "input_feat_per_channel": bundle.features.n_features,
        "input_channels": 1,
        "num_conv_layers": len(getattr(front_end, "kernels", ())),
        "conv_kernel_sizes": list(getattr(front_end, "kernels", ())),
        "conv_channels": 2 * (front_end.channels or model.width),
        "activation_function": model.encoder.activation,
        "dropout": model.encoder.dropout,
        "attention_dropout": model.encoder.attention_dropout,
        "activation_dropout": model.encoder.dropout,
        "scale_embedding": model.decoder.scale_embedding,
        "max_source_positions": 6000,
        "max_target_positions": 1024,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.special.pad,
        "bos_token_id": 0,
        "eos_token_id": tokenizer.special.eos,
        "decoder_start_token_id": tokenizer.prompts.start,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    for stack in ("encoder", "decoder"):
        part = getattr(model, stack)
        values |= {
            f"{stack}_layers": part.n_layers,
            f"{stack}_attention_heads": part.n_heads,
            f"{stack}_ffn_dim": part.d_ffn,
        }
    return values


def expected_model(config: dict[str, Any], bundle: Bundle[Any]) -> dict[str, Any]:
    """Our configuration for the result of `write_config`. It shows which settings the layout cannot store."""
    values, features = config_values(config), bundle.config.features
    # These are in preprocessor_config.json.
    values["features"] |= {name: getattr(features, name, True) for name in ("mean", "variance")}
    return values


def write_files(bundle: Bundle[Any], config: dict[str, Any]) -> dict[str, dict[str, Any] | str | bytes]:
    """The other files of the layout besides weights and `config.json`, by name."""
    tokenizer = cast(SentencePieceTokenizer, bundle.tokenizer)
    features = bundle.config.features
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings: dict[str, Any] = {
        "tokenizer_class": "Speech2TextTokenizer",
        "processor_class": "Speech2TextProcessor",
        "do_lower_case": tokenizer.lower,
        "do_upper_case": tokenizer.upper,
        **names,
    }
    if tokenizer.prompts.languages:
        settings |= {"lang_codes": "mustc", "tgt_lang": tokenizer.language}
    return {
        "generation_config.json": {
            "eos_token_id": tokenizer.special.eos,
            "pad_token_id": tokenizer.special.pad,
            "bos_token_id": 0,
            "decoder_start_token_id": tokenizer.prompts.start,
            "max_length": 200,
            "length_penalty": float(bundle.metadata.get("length_normalization", 0.0)),
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "Speech2TextFeatureExtractor",
            "processor_class": "Speech2TextProcessor",
            "feature_size": features.n_mels,
            "num_mel_bins": features.n_mels,
            "sampling_rate": features.sample_rate,
            "do_ceptral_normalize": features.mean or features.variance,
            "normalize_means": features.mean,
            "normalize_vars": features.variance,
            "padding_value": 0.0,
            "return_attention_mask": True,
        },
        "vocab.json": {piece: i for i, piece in enumerate(tokenizer.vocabulary)},
        "sentencepiece.bpe.model": tokenizer.model,
        "tokenizer_config.json": settings,
        "special_tokens_map.json": names,
    }
