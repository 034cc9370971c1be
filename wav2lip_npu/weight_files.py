"""Files with weights, whoever wrote them; and what a file is that holds none.

A file is known by its content, never by its name. Nothing that it carries is executed.
"""

from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wav2lip_npu import torchscript
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import atomic_write

_HEAD_BYTES = 512
_BLOCK_BYTES = 2**20
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # before torch 1.6: several pickles
_LEGACY_PICKLES = 4  # magic number, version, machine, and the content
_ZIP = b"PK\x03\x04"
_MAX_SAFETENSORS_HEADER = 100_000_000  # bytes, by the format
_DOWNLOAD_AGAIN = "download or copy it again"

_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_OTHER_FORMATS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file, of Keras perhaps",
    b"GGUF": "a GGUF file",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"RIFF": "a sound or video file",
    b"\x1aE\xdf\xa3": "a video",
    b"%PDF": "a PDF",
}
# What torch's own pickles of tensors name.
_PLAIN_GLOBAL = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.(storage\.)?\w*Storage|torch\.\w+|collections\.OrderedDict"
    r"|torch\._tensor\._rebuild_\w+|torch\.serialization\._get_layout|__builtin__\.set"
)


class WeightFileError(UserError):
    """A file that holds no weights, or no whole ones, and what it is instead."""


def read_content(path: Path) -> Any:
    """What a file holds, its tensors on the CPU.

    Tensors of large files are read when they are used (mapped into memory), where torch can do so.

    Returns:
        What was given to ``torch.save``; for safetensors ``{"state_dict", "metadata"}``, for a
        TorchScript archive ``{"state_dict"}``.

    Raises:
        WeightFileError: no such file, or none with weights; the message says what it is.
    """
    check_is_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_ZIP):
                return _read_zip(path)
            if head.startswith(_LEGACY_TORCH):
                return _load(path, _legacy_globals(file), mapped=False)
        if _is_safetensors(head):
            return _read_safetensors(path)
    except OSError as error:
        raise WeightFileError(f"{path}: cannot be read ({reason(error)})") from error
    raise WeightFileError(f"{path}: {_describe(path, head)}")


def write_pth(path: Path, content: Any) -> None:
    """Write a file with ``torch.save``, as a whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    # Given a name instead of a file, torch says nothing of a full disk.
    with atomic_write(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch ends the archive after a failed write too, and that fails in another way.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_safetensors(path: Path, weights: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    """Write weights and notes about them as safetensors, as a whole or not at all.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        try:
            save_file(weights, partial, metadata=about)
        except SafetensorError as error:  # an OSError as text
            raise RuntimeError(str(error)) from error


def check_is_file(path: Path) -> None:
    """Raise a WeightFileError if there is no file of this name."""
    try:
        if path.is_file():
            return
        if path.is_dir():
            fault = "is a folder; name a checkpoint in it"
        elif path.is_symlink():
            fault = f"is a link to {path.readlink()}, which is not there"
        else:
            fault = "is not a regular file" if path.exists() else "no such file (checkpoint)"
    except (OSError, RuntimeError) as error:  # a long name, a folder without permission, a loop
        fault = f"cannot be read ({reason(error)})"
    raise WeightFileError(f"{path}: {fault}")


def _read_zip(path: Path) -> Any:
    """A file of torch 1.6 or newer, or a TorchScript archive; its checksums are verified."""
    try:
        if not zipfile.is_zipfile(path):
            raise WeightFileError(f"{path}: is cut off, its end is missing; {_DOWNLOAD_AGAIN}")
        with zipfile.ZipFile(path) as archive:
            root = _root(path, archive)
            _verify_checksums(archive, root)
            names = archive.namelist()
            if any(name.startswith((root + torchscript.CODE, root + torchscript.CONSTANTS))
                   for name in names):  # fmt: skip
                return {"state_dict": _read_torchscript(path, archive, root)}
            found = [*_globals(archive.read(f"{root}data.pkl"))]
    except (zipfile.BadZipFile, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise WeightFileError(f"{path}: is damaged ({error}); {_DOWNLOAD_AGAIN}") from error
    return _load(path, found, mapped=True)


def _root(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder of ``data.pkl`` in an archive that torch has written, with a slash at its end.

    Raises:
        WeightFileError: it is another archive.
    """
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    roots = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if names and all(name.endswith(".npy") for name in names):
        raise WeightFileError(f"{path}: holds NumPy arrays (.npz), not a checkpoint of torch")
    if len(roots) != 1:
        what = f"of {names[0]}" if names else "and empty"
        raise WeightFileError(f"{path}: is a ZIP archive {what}, not a checkpoint; unpack it first")
    # Torch compresses nothing but code: the data cannot be larger than the file.
    data = _data_entries(archive, roots[0])
    if (
        any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in data)
        or sum(entry.file_size for entry in data) > path.stat().st_size
    ):
        raise WeightFileError(
            f"{path}: has been packed again, not as torch does; {_DOWNLOAD_AGAIN}"
        )
    return roots[0]


def _data_entries(archive: zipfile.ZipFile, root: str) -> list[zipfile.ZipInfo]:
    return [entry for entry in archive.infolist() if entry.filename.startswith(f"{root}data")]


def _verify_checksums(archive: zipfile.ZipFile, root: str) -> None:
    """Read all data once: a flipped bit or a hole would otherwise be a wrong weight.

    Raises:
        zipfile.BadZipFile: an entry is damaged.
    """
    for entry in _data_entries(archive, root):
        with archive.open(entry) as file:
            while file.read(_BLOCK_BYTES):
                pass


def _read_torchscript(path: Path, archive: zipfile.ZipFile, root: str) -> dict[str, torch.Tensor]:
    try:
        tensors = torchscript.read_tensors(archive, root)
    except ValueError as error:
        raise WeightFileError(
            f"{path}: is a TorchScript archive whose weights cannot be read ({error}); save "
            "torch.jit.load(…).state_dict() with torch.save"
        ) from error
    if not tensors:
        raise WeightFileError(
            f"{path}: is a TorchScript archive without named weights (frozen); they cannot be "
            "taken from it"
        )
    return tensors


def _load(path: Path, names: list[str], *, mapped: bool) -> Any:
    """``torch.load``, which executes nothing; ``names`` are those in the file's pickle."""
    try:
        # Newer torch believes in that suffix, whatever the file holds; and torch cannot open a name
        # that is not UTF-8.
        if path.suffix == ".safetensors" or not _is_utf8(str(path)):
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises a dozen kinds
        foreign = [name for name in names if not _PLAIN_GLOBAL.fullmatch(name)]
        if any(name.startswith("torch.nn.") for name in names):
            raise WeightFileError(
                f"{path}: holds a pickled network ({foreign[0]}), which is code and not loaded; "
                "where that class is at hand, save its state_dict alone"
            ) from error
        if foreign:
            raise WeightFileError(
                f"{path}: holds objects of {foreign[0]} beside the weights, which could run code "
                "and are not loaded; save the state_dict alone"
            ) from error
        if isinstance(error, EOFError) or not mapped:
            raise WeightFileError(f"{path}: is cut off or damaged; {_DOWNLOAD_AGAIN}") from error
        told = re.search(r"WeightsUnpickler error: (.+)", str(error))
        why = told[1] if told else type(error).__name__
        raise WeightFileError(f"{path}: cannot be read as a checkpoint ({why[:100]})") from error


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _legacy_globals(file: IO[bytes]) -> list[str]:
    file.seek(0)
    names: list[str] = []
    try:
        for _ in range(_LEGACY_PICKLES):
            names += _globals(file)
    except ValueError:  # cut off: torch says so too
        pass
    return names


def _globals(content: bytes | IO[bytes]) -> Iterator[str]:
    """The classes and functions that a pickle names, without loading it."""
    words: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL" and len(words) > 1:
                yield ".".join(words[-2:])
            elif "UNICODE" in opcode.name:
                words = [*words[-1:], str(argument)]
    except ValueError as error:
        if not isinstance(content, bytes):
            raise
        raise zipfile.BadZipFile("its pickle") from error


def _is_safetensors(head: bytes) -> bool:
    size = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= size <= _MAX_SAFETENSORS_HEADER


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {"state_dict": weights, "metadata": file.metadata() or {}}
    except SafetensorError as error:
        why = str(error).rpartition(": ")[2][:100]
        raise WeightFileError(
            f"{path}: is cut off or damaged ({why}); {_DOWNLOAD_AGAIN}"
        ) from error


def _describe(path: Path, head: bytes) -> str:
    """What a file without weights is, by its first bytes, and what to do."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return f"is empty; {_DOWNLOAD_AGAIN}"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the file itself; fetch that by git lfs pull"
    if text.startswith(b"<"):
        return "is a web page, not a checkpoint; download the file itself"
    if not any(head):
        return f"begins with zeros, as an unfinished download; {_DOWNLOAD_AGAIN}"
    for start, name in _ARCHIVES.items():
        if head.startswith(start):
            return f"is an archive ({name}); unpack it first"
    if head[257:262] == b"ustar":
        return "is an archive (tar); unpack it first"
    if head.startswith(b"PK"):
        return "is an archive (ZIP) without content"
    for start, name in _OTHER_FORMATS.items():
        if head.startswith(start):
            return f"is {name}, not a checkpoint of torch"
    if head[4:8] == b"ftyp":
        return "is a video, not a checkpoint of torch"
    if path.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
        return "is an ONNX file; a checkpoint is wanted here (infer runs ONNX by --backend onnx)"
    if _LEGACY_TORCH.startswith(head):
        return f"is cut off or damaged; {_DOWNLOAD_AGAIN}"
    if head[:1] == b"\x80":
        return "is a pickle that torch has not written, which could run code and is not loaded"
    if _is_text(head):
        return f"is a text file that begins with {text[:40].decode(errors='replace')!r}"
    return "cannot be read as a checkpoint (its format is not known)"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character that the end of ``head`` has cut
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)
