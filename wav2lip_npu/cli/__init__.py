"""The command line: commands, their options, and how a run ends.

Only this room changes the whole process (environment, garbage collector, malloc, SIGTERM): the
command line owns its process, while a program that imports the package keeps its own settings.
"""

from wav2lip_npu.cli.commands import COMMANDS, Command
from wav2lip_npu.cli.run import main

__all__ = ["COMMANDS", "Command", "main"]
