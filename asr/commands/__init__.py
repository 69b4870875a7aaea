"""The command line: one file per verb, and no logic in any of them.

Nothing here may import torch, numpy or anything that does: `asr --help` answers at once. A verb imports what
it needs inside its function.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from asr.commands.data import data
from asr.commands.info import info
from asr.commands.prepare import prepare
from asr.commands.runs import runs
from asr.commands.score import score
from asr.commands.train import train
from asr.commands.train_lm import train_lm
from asr.commands.transcribe import transcribe
from asr.errors import AsrError

app = typer.Typer(
    name="asr",
    help="Speech recognition from end to end: prepare a corpus, train a model, transcribe audio, score it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for verb in (transcribe, score, train, train_lm, runs, prepare, info):
    app.command(context_settings={"max_content_width": 100})(verb)
app.add_typer(data)


def main() -> None:
    """Run the command line; a user's mistake ends in one line on stderr and status 1.

    Ctrl-C, and a reader of the output that has gone (`| head`), typer ends quietly, with status 130 and 1.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # Whatever the locale, text goes out as UTF-8, and a file name that is not UTF-8 as it came in.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except AsrError as error:
        print(f"asr: error: {error}", file=sys.stderr)
        sys.exit(1)
