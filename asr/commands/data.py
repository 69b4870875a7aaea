"""`asr data`: looking into what a model is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(
    name="data",
    help="Look into what a model is trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@data.callback()
def _group() -> None:
    """Look into what a model is trained on."""


@data.command(context_settings={"max_content_width": 100})
def hear(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as augment.gain_db=6 data.first=100."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page and its audio.")] = Path("heard"),
    examples: Annotated[int, typer.Option(min=1, help="How many, taken evenly from the epoch.")] = 20,
    epoch: Annotated[int, typer.Option(min=0, help="Counted from 0.")] = 0,
) -> None:
    """Write examples as the model would be fed them: OUT/index.html plays and shows each.

    The audio is what the loader makes of it, with speeds, pauses, rooms, gain and noise; the pictures show
    the features under SpecAugment's masks. Recordings that cannot be read are listed, and the exit status is
    then 1.
    """
    from asr.config import load_config
    from asr.datasets.preview import write_examples

    count, bad = write_examples(load_config(config, tuple(overrides or ())), out, examples, epoch)
    for line in bad:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"{count} examples are in {out / 'index.html'}")
    raise typer.Exit(1 if bad else 0)
