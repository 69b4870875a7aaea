"""`asr score`: hypotheses against references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def score(
    ref: Annotated[
        Path, typer.Argument(metavar="REF", help="References: TSV with columns id and text, or JSON lines.")
    ],
    hyp: Annotated[
        Path, typer.Argument(metavar="HYP", help="Hypotheses, in either format, with the ids of REF.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, utterances too.")] = False,
    worst: Annotated[
        int | None,
        typer.Option(min=0, show_default="5", help="How many utterances to show with their errors."),
    ] = None,
) -> None:
    """Print word, character and sentence error rates of HYP against REF, matched by utterance id.

    Texts are compared as they are, without any normalisation. A missing hypothesis counts as empty.
    """
    import json

    from asr import scoring
    from asr.errors import AsrError

    if as_json and worst is not None:
        raise AsrError("--worst is for the text report and --json lists every utterance; leave one out")
    result = scoring.score(scoring.read_texts(ref), scoring.read_texts(hyp))
    if result.missing:
        _warn(f"{hyp}: no hypothesis for {_few(result.missing)}; counted as deletions")
    if result.extra:
        _warn(f"{ref}: no reference for {_few(result.extra)}; not counted")
    if as_json:
        typer.echo(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        typer.echo(scoring.summary(result, 5 if worst is None else worst))


def _warn(message: str) -> None:
    typer.echo(f"asr: warning: {message}", err=True)


def _few(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"{len(ids)} {'id' if len(ids) == 1 else 'ids'} ({', '.join(ids[:3])}{more})"
