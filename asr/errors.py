"""The exception whose message is written for users."""

from __future__ import annotations


class AsrError(Exception):
    """A problem that the user can correct: bad audio, a broken manifest, an impossible setting.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to
    do. The command line prints it without a traceback and exits with status 1. Everything else that is
    raised is a defect of this package and keeps its traceback.
    """
