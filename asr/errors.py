"""The exception whose message is written for users, and the errors of memory."""

from __future__ import annotations


class AsrError(Exception):
    """A problem that the user can correct: bad audio, a broken manifest, an impossible setting.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to
    do. The command line prints it without a traceback and exits with status 1. Everything else that is
    raised is a defect of this package and keeps its traceback.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch says that memory does not suffice. On a CPU torch has no class for it."""
    texts = ("out of memory", "allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
