"""Runs the command line from a clone: `python cli.py ...` does what the installed `asr ...` does."""

from asr.commands import main

if __name__ == "__main__":
    main()
