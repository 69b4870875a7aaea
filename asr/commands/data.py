"""`asr data`: a look at the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(
    name="data",
    help="Look at the training data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@data.callback()
def _group() -> None:
    """Look at the training data."""


@data.command(context_settings={"max_content_width": 100})
def preview(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as augment.gain_db=6 data.first=100."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page and its audio.")] = Path("preview"),
    examples: Annotated[
        int, typer.Option(min=1, help="Number of examples, taken evenly from the epoch.")
    ] = 20,
    epoch: Annotated[int, typer.Option(min=0, help="Counted from 0.")] = 0,
) -> None:
    """Write examples of the model's input. OUT/index.html plays and shows them.

    The audio has the speeds, pauses, rooms, gain and noise of the configuration. The images show the features
    with SpecAugment's masks. Recordings that cannot be read are listed. The exit status is 1 then.
    """
    from asr.config import load_config
    from asr.datasets.preview import write_examples

    count, bad = write_examples(load_config(config, tuple(overrides or ())), out, examples, epoch)
    for line in bad:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"{count} examples are in {out / 'index.html'}")
    raise typer.Exit(1 if bad else 0)
