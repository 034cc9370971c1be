"""The weight files of the detectors: where they are, and the download of S3FD's."""

from __future__ import annotations

import os
from pathlib import Path

from face_detection.errors import FaceDetectionError

CENTERFACE = Path(__file__).parent / "data" / "centerface.onnx"  # part of this package

# The file's name has the first ten digits of its SHA-256.
S3FD_URL = "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth"
S3FD_HASH = "619a316812"
GUIDE_PATH = Path("face_detection/detection/sfd/s3fd.pth")  # of the ModelArts guide


def find_s3fd() -> Path | None:
    """S3FD's weights on this machine, or None.

    The places are the guide's path below the current folder and below the parent of this package,
    then torch.hub's folder, to which it is downloaded.
    """
    beside_package = Path(__file__).parent.parent / GUIDE_PATH
    for path in (GUIDE_PATH, beside_package, _download_path()):
        if path.is_file():
            return path
    return None


def get_s3fd(given: Path | None = None) -> Path:
    """S3FD's weights: the ``given`` file, else the one on this machine, else a download.

    Raises:
        FaceDetectionError: the given file does not exist; or there is none on this machine and the
            download fails or has the wrong hash.
    """
    if given is not None:
        if not given.is_file():
            raise FaceDetectionError(f"{given}: no such file (S3FD weights)")
        return given
    return find_s3fd() or _download()


def _download_path() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch"
    home = Path(os.environ.get("TORCH_HOME", default))
    return home / "hub" / "checkpoints" / Path(S3FD_URL).name


def _download() -> Path:
    from torch.hub import download_url_to_file

    path = _download_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Writes to another name, and renames only if the hash is right.
        download_url_to_file(S3FD_URL, str(path), hash_prefix=S3FD_HASH)
    except (OSError, RuntimeError) as error:
        raise FaceDetectionError(
            f"S3FD's weights are not on this machine and cannot be downloaded ({error}): put "
            f"{S3FD_URL} at {GUIDE_PATH}, name the file with --s3fd, or use --detector centerface"
        ) from error
    return path
