"""The size of modules and packages; import-linter checks which module may import which."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_MODULE_LINES = 400
MAX_PACKAGE_MODULES = 12
FOLDERS = ("wav2lip_npu", "face_detection", "scripts", "benchmarks", "tests")
PACKAGES = ("wav2lip_npu", "face_detection")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_is_too_long(folder: str) -> None:
    lines = {path: len(path.read_bytes().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lines
    long = {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > MAX_MODULE_LINES}
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_has_too_many_modules(package: str) -> None:
    for folder in {path.parent for path in (ROOT / package).rglob("__init__.py")}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MAX_PACKAGE_MODULES, folder
