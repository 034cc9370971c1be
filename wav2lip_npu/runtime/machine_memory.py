"""Memory of this machine, or of the container that this process is in."""

from __future__ import annotations

import re
from pathlib import Path

CGROUP_MEMORY_FILES = (  # limit and use in a container, by version 2 and 1 of cgroups
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_machine_memory(root: Path = Path("/")) -> int | None:
    """Memory that this process may still take: of the machine, or less in a container.

    Args:
        root: of the file system with the kernel's tables.
    """
    free = []
    table = root / "proc/meminfo"
    found = re.search(r"MemAvailable: *(\d+) kB", table.read_text()) if table.exists() else None
    if found:
        free.append(int(found[1]) * 1024)
    for limit, used in CGROUP_MEMORY_FILES:  # a limit is "max" where there is none
        texts = [path.read_text().strip() for path in (root / limit, root / used) if path.exists()]
        if len(texts) == 2 and all(text.isdecimal() for text in texts):
            free.append(max(0, int(texts[0]) - int(texts[1])))
    return min(free, default=None)
