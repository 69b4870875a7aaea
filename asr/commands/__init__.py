"""The command line: one file for each verb, without logic.

Nothing here imports torch, numpy or a module that does, so `asr --help` answers at once. A verb imports what
it needs inside its function.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from asr.commands.data import data
from asr.commands.export import export
from asr.commands.import_model import import_model
from asr.commands.info import info
from asr.commands.inspect import inspect
from asr.commands.listen import listen
from asr.commands.prepare import prepare
from asr.commands.runs import runs
from asr.commands.score import score
from asr.commands.train import train
from asr.commands.train_lm import train_lm
from asr.commands.transcribe import transcribe
from asr.errors import AsrError
from asr.threads import wait_passively_if_busy

app = typer.Typer(
    name="asr",
    help="Speech recognition from end to end: prepare a corpus, train a model, transcribe audio, score it.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for verb in (transcribe, listen, score, train, train_lm, runs, prepare, info, inspect, export):
    app.command(context_settings={"max_content_width": 100})(verb)
app.command("import", context_settings={"max_content_width": 100})(import_model)
app.add_typer(data)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Speech recognition from end to end: prepare a corpus, train a model, transcribe audio, score it."""
    if version:
        from asr import __version__

        print(f"asr {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. A user's mistake ends in one line on stderr and status 1.

    Ctrl-C ends with status 130, and a reader that closed the output (`| head`) with status 1, both quietly.
    """
    wait_passively_if_busy()
    if isinstance(sys.stdout, TextIOWrapper):
        # Output is UTF-8 in every locale. A file name that is not UTF-8 is written with its own bytes.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except AsrError as error:
        print(f"asr: error: {error}", file=sys.stderr)
        sys.exit(1)
