"""The page of all settings (docs/configuration.md), made from the configuration sections themselves."""

from __future__ import annotations

from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from asr import kinds
from asr.config import Config, LanguageConfig
from asr.section import Section, load_kind

INTRODUCTION = """# Configuration

One YAML file is one experiment. It contains only the settings that differ from the defaults below. On the
command line a setting is written `section.key=value`, such as `asr train my.yaml train.steps=2000`. Unknown
keys are refused.

Some sections can be of several kinds. The key `kind` chooses one, and the other keys belong to that kind.
In `model`, the settings `d_model`, `n_heads`, `d_ffn`, `dropout`, `attention_dropout`, `norm`, `activation`,
`positions` and `key_bias` can be given once for encoder and decoder, and `d_model` also for the front end.
For `positions`, the name of a kind alone chooses its defaults, as in `positions: rotary`. This page ends with
its kinds.

This page is made by `python tests/test_docs.py`. A test fails when it is out of date.
"""
OF_KIND = {
    "features": kinds.FEATURES,
    "tokenizer": kinds.TOKENIZERS,
    "model": kinds.MODELS,
    "front_end": kinds.FRONT_ENDS,
    "encoder": kinds.ENCODERS,
    "decoder": kinds.DECODERS,
}


def configuration_page() -> str:
    """docs/configuration.md, as Markdown."""
    lines = [INTRODUCTION, "# A recognizer (`asr train`)"]
    lines += _sections(Config, "")
    lines += ["", "# A language model (`asr train-lm`, `kind: language model`)"]
    lines += _sections(LanguageConfig, "", skip=("model",))
    lines += _table(load_kind(kinds.MODELS, "language_model").Config, "model", "language_model")
    lines += ["", "# Positions, of an encoder, a decoder or a language model"]
    for kind in kinds.POSITIONS:
        lines += _table(load_kind(kinds.POSITIONS, kind).Config, "positions", kind)
    return "\n".join(lines) + "\n"


def _sections(section: type[Section], path: str, skip: tuple[str, ...] = ()) -> list[str]:
    """The tables of all sections inside a section."""
    lines: list[str] = []
    for name, field in section.model_fields.items():
        inner = f"{path}.{name}" if path else name
        if name in (*skip, "kind", "positions"):
            continue
        if name in OF_KIND and not isinstance(field.annotation, str):
            for kind in OF_KIND[name]:
                if kind != "language_model":
                    config = load_kind(OF_KIND[name], kind).Config
                    lines += _table(config, inner, kind)
        elif (nested := _nested(field)) is not None:
            lines += _table(nested, inner)
    return lines


def _table(section: type[Section], path: str, kind: str | None = None) -> list[str]:
    """One section: a heading, its description, a table of its keys, then the sections inside it."""
    title = f"## `{path}`" + (f", kind `{kind}`" if kind else "")
    lines = ["", title, "", " ".join((section.__doc__ or "").split()), ""]
    rows = [
        f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {field.description or ''} |"
        for name, field in section.model_fields.items()
        if name == "positions" or (name != "kind" and name not in OF_KIND and _nested(field) is None)
    ]
    if rows:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    return lines + _sections(section, path)


def _nested(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    options = get_args(field.annotation) or (field.annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _type(annotation: Any) -> str:
    """A type in words."""
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "name or section"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        inner = [_type(a) for a in arguments if a is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Union or "UnionType" in str(origin):
        return " or ".join(map(_type, arguments))
    if arguments:  # Annotated
        return _type(arguments[0])
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _default(field: FieldInfo) -> str:
    """The default value as YAML would have it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"`{value['kind']}`"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"`{value!r}`" if isinstance(value, str) else f"{value}"
