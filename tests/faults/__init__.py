"""Faults from outside, injected into commands: ``python -m faults`` in ``tests``.

A full disk, a folder that cannot be written, signals, processes that are killed, a second run, a
clock that jumps. Each time the same command is run again, and must make what one that was not
disturbed makes.
"""

import fuzz  # noqa: F401 (sets one thread, before NumPy and torch are imported)
