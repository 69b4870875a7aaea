"""Helpers of the tests of the command line: other processes, terminals, and a tone."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds until a process counts as hanging: the machine may be busy


def tone(seconds, rate=16000, frequency=440.0):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def start(*arguments, python=(), **options):
    """`python cli.py ...` in another process."""
    command = [sys.executable, *python, str(ROOT / "cli.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, **pipes)


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err
    return process.returncode, out, err


def in_a_terminal(stream, *arguments):
    """What `python cli.py ...` writes to a terminal of 40 columns as `stream`, and to the other stream."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    process = start(*arguments, **{stream: terminal})
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            shown += chunk
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(controller)
    other = process.stdout if stream == "stderr" else process.stderr
    content = other.read()
    process.wait(PATIENCE)
    return shown, content
