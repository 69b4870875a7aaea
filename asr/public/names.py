"""The table of names: where each weight of our network is in a public checkpoint.

Whisper and Speech2Text have the names of BART in the library transformers. They have two matrices for the
projections to keys and values. We have one matrix: first the rows for the keys, then the rows for the values.
"""

from __future__ import annotations

import os
import re

_ATTENTION = {
    "query": ("q_proj",),
    "key_value": ("k_proj", "v_proj"),
    "out": ("out_proj",),
}
_ATTENTIONS = {"attention": "self_attn", "self_attention": "self_attn", "cross_attention": "encoder_attn"}
_LAYER = {
    "attention_residual.norm": "self_attn_layer_norm",
    "self_attention_residual.norm": "self_attn_layer_norm",
    "cross_attention_residual.norm": "encoder_attn_layer_norm",
    "feed_forward.0": "fc1",
    "feed_forward.3": "fc2",
    "feed_forward_residual.norm": "final_layer_norm",
}
_FOLDERS = ("runs", "models", "checkpoints", "exp")  # a mistyped path below them is not looked up in the hub
_STACK = {"norm": "layer_norm", "embed": "embed_tokens"}


def public_names(name: str, front_end: str) -> tuple[str, ...]:
    """The names in a checkpoint of a weight of our network, to be joined along the first dimension.

    `front_end` is the name of a convolution in the checkpoint, with {} for its number from 0, or {+1} for
    that from 1. Raises KeyError for a weight that public models do not have.
    """
    if name.endswith("positions.table"):
        return (f"model.{name.split('.')[0]}.embed_positions.weight",)
    module, _, kind = name.rpartition(".")
    if match := re.fullmatch(r"front_end\.convolutions\.(\d+)", module):
        number = int(match[1])
        return (f"model.encoder.{front_end.replace('{+1}', str(number + 1)).format(number)}.{kind}",)
    if match := re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)", module):
        stack, layer, part = match.groups()
        return tuple(f"model.{stack}.layers.{layer}.{each}" for each in _in_layer(part, kind))
    stack, _, part = module.partition(".")
    return (f"model.{stack}.{_STACK[part]}.{kind}",)


def _in_layer(part: str, kind: str) -> list[str]:
    """The names in a layer of a weight of our block."""
    attention, _, projection = part.partition(".")
    if part in _ATTENTIONS and kind == "value_bias":  # the keys have no bias
        return [f"{_ATTENTIONS[part]}.v_proj.bias"]
    if attention in _ATTENTIONS:
        return [f"{_ATTENTIONS[attention]}.{each}.{kind}" for each in _ATTENTION[projection]]
    return [f"{_LAYER[part]}.{kind}"]


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Whether a name that is not a local folder can be a model of the hub: `owner/name`.

    A path below an existing folder, or below a folder that usually has models, is a mistyped path instead.
    """
    text = os.fspath(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return False
    first = text.split("/")[0]
    return first not in _FOLDERS and not os.path.exists(first)  # noqa: PTH110
