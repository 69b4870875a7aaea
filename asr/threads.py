"""The number of CPU threads, and how they wait. docs/measurements.md has the measurements.

This module does not import torch: OpenMP reads its settings when torch is imported.
"""

from __future__ import annotations

import os


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores() -> int:
    """The cores that other processes leave free, at least 1: the cores minus the load of the last minute."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        load = 0.0
    return max(1, min(cores(), round(cores() - load)))


def wait_passively_if_busy() -> None:
    """On a busy machine, let waiting threads sleep. Call this before torch is imported.

    Threads that wait in a loop are faster on an idle machine. On a busy machine they take processor time from
    the threads that they wait for. A value that the user has set is kept.
    """
    if free_cores() < cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def default_threads() -> int | None:
    """The number of threads for a short job, or None when the user has set OMP_NUM_THREADS."""
    return None if "OMP_NUM_THREADS" in os.environ else free_cores()
