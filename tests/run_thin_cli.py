"""The command line with thin networks, for processes of their own."""

import sys

import pytest
from helpers import thin_networks

from wav2lip_npu import cli

thin_networks(pytest.MonkeyPatch())  # in its worker processes too, which import this as well

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
