"""The commands of the docs, run: ``PYTHONPATH=tests python -m docs_commands``.

Each line of a console block is run with small files, or only parsed, or listed with the reason why
neither is possible here (``handling.py``). What is in none of these is an error.
"""

import os

# Before NumPy and torch are imported: a process that forks must have one thread.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="Agg")
