"""Commands on inputs that are damaged, odd or hostile: ``python -m fuzz`` in ``tests``.

A case is made by (seed, number): a scenario is a command with good files, a mutation changes one of
them, and the judge says whether the command ended as documented: the file was used, was left out
and named, or was refused in one line with exit code 2.
"""

import os

# Before NumPy and torch are imported: a process that forks must have one thread.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="Agg")
