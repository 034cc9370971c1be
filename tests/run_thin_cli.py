"""The command line with thin networks, for processes of their own."""

import sys

import pytest
from helpers import thin_networks

from wav2lip_npu import cli

if __name__ == "__main__":
    thin_networks(pytest.MonkeyPatch())
    sys.exit(cli.main(sys.argv[1:]))
