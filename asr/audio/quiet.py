"""Messages of mpg123, the MP3 decoder inside libsndfile, are kept off the terminal.

mpg123 writes to the `stderr` of the C library. That variable is redirected while a call runs. File descriptor
2 stays as it is, so messages of Python in other threads are not lost.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_calls = 0  # number of calls that run now, in all threads
_saved: int | None = None
_null: int | None = None


def _c_stderr() -> ctypes.c_void_p | None:
    """The variable `stderr` of the C library; None on a system where it has another name."""
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
    except (ValueError, OSError, TypeError):
        return None


@contextmanager
def quiet_c_stderr() -> Iterator[None]:
    """While at least one call is in this context, everything that C code prints to stderr is dropped."""
    global _calls
    with _lock:
        _calls += 1
        if _calls == 1:
            _redirect()
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                _restore()


def _redirect() -> None:
    global _null, _saved
    variable = _c_stderr()
    if variable is None:
        return
    if _null is None:
        fopen = ctypes.CDLL(None).fopen
        fopen.restype, fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
        _null = fopen(b"/dev/null", b"w")  # stays open as long as the process
    if _null is not None:
        _saved, variable.value = variable.value, _null


def _restore() -> None:
    global _saved
    variable = _c_stderr()
    if variable is not None and _saved is not None:
        variable.value, _saved = _saved, None
