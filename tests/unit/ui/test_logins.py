"""Who may log in, and when a login is required."""

import stat
from pathlib import Path

import pytest

from wav2lip_npu.config import UiConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.ui import logins


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "WAIT_SECONDS", 0)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(stat.S_IRUSR)
    return path


def test_names_and_passwords(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = logins.read_logins(write(tmp_path / "a", "# us\n\nann:a:b c\n王芳:密码\n"))
    assert not caplog.records
    assert known.accepts("ann", "a:b c")
    assert known.accepts("王芳", "密码")
    for name, password in (
        *(("ann", ""), ("ann", "a"), ("ann", "密码"), ("", ""), ("bob", ""), ("# us", "")),
        ("ann", "\udcff"),
    ):
        assert not known.accepts(name, password)


def test_a_wrong_password_is_answered_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    known = logins.read_logins(write(tmp_path / "a", "ann:x"))
    assert known.accepts("ann", "x") and not waits
    assert not known.accepts("ann", "y") and len(waits) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no line"),
        ("ann\n", "line 1: must be NAME:PASSWORD"),
        ("a:b\nann:\n", "line 2: must be NAME:PASSWORD"),
        (":x\n", "line 1: must be NAME:PASSWORD"),
        ("a:b\na:c\n", "line 2: a has a line already"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        logins.read_logins(write(tmp_path / "a", text))


def test_others_can_read_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a", "ann:x")
    path.chmod(0o644)
    logins.read_logins(path)
    assert "other users of this machine can read it" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "server.example", "127.0.0.2"])
def test_a_login_is_required_where_other_machines_reach_it(host: str) -> None:
    with pytest.raises(UserError, match=f"--host {host}: other machines reach it, so --logins"):
        UiConfig(host=host)
    assert not UiConfig(host=host, logins=Path("x")).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_none_is_required_on_this_machine(host: str) -> None:
    assert UiConfig(host=host).is_loopback
