"""The page in a browser: Chromium without a screen."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import fill
from helpers import tone, write_video

from wav2lip_npu import checkpoint
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.media.video_reader import probe, read_frames
from wav2lip_npu.models import Generator

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs Debian's chromium and chromium-driver", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver")
pytest.importorskip("gradio")

SECONDS = 100  # that anything may take, on a machine that does much else
MAX_UPLOAD_MB = 2
FRAMES = 10  # of the voice
# Of a second user, who is not a browser: nothing is asked of Gradio's client library.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Page:
    """The page in a browser's tab."""

    def __init__(self, driver: "webdriver.Chrome", address: str) -> None:
        self.driver, self.address = driver, address

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.find("#run") and self.find("#face input[type=file]"))

    def find(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        found = self.find(selector)
        return (found[0].get_attribute("textContent") or "").strip() if found else ""

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not self._holds(condition):
            assert time.monotonic() < deadline, self.text("#status")
            time.sleep(0.1)

    def _holds(self, condition: Callable[[], object]) -> bool:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return bool(condition())
        except StaleElementReferenceException:  # drawn anew meanwhile
            return False

    def upload(self, kind: str, path: Path, wanted: str) -> None:
        """Give a file, and wait until the page says something of it."""
        self.wait(lambda: self.find(f"#{kind} input[type=file]"))
        self.find(f"#{kind} input[type=file]")[0].send_keys(str(path))
        self.wait(lambda: wanted in self.text(f"#{kind}_note"))

    def click(self, selector: str) -> None:
        self.wait(lambda: self.find(selector)[0].is_enabled())
        self.find(selector)[0].click()


class Server:
    """The command, with the temporary folder below a folder of the test."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.log = (folder / "log").open("w+")
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-m", "wav2lip_npu", "ui", "--port", "0", "--device", "cpu"]
        self.process = subprocess.Popen([*command, *words], env=environment, stderr=self.log)
        self.address = self._address()

    def _address(self) -> str:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"open (http\S+)", Path(self.log.name).read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        return found[1]

    def files(self) -> list[str]:
        """Files of visitors and their jobs."""
        return sorted(
            path.name
            for path in self.temporary.rglob("*")
            if path.is_file() and path.parent.name != "vibe_edit_history"
        )

    def jobs(self) -> list[str]:
        """The command lines of its processes."""
        words = ["ps", "-o", "args=", "--ppid", str(self.process.pid)]
        return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()

    def fetch(self, path: str, *, data: bytes | None = None, **headers: str) -> int:
        """The status of an answer."""
        request = urllib.request.Request(f"{self.address}{path}", data=data, headers=headers)
        try:
            with OPENER.open(request, timeout=SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> Path:
    """A generator, a video, voices, and what is none of these."""
    folder = tmp_path_factory.mktemp("media")
    network = fill(Generator())
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(folder / "generators" / "g.pth", network, optimizer, step=0, epoch=0, extra={})
    write_wav(folder / "voice.wav", tone(FRAMES / 25))
    write_wav(folder / "long.wav", tone(60.0))
    write_video(folder / "talker <b>.mp4", [face] * 6)
    (folder / "text.mp4").write_text("hello")
    (folder / "list.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    limit = ("--max_upload_mb", str(MAX_UPLOAD_MB))
    one = Server(folder, "--checkpoints", str(media / "generators"), *limit)
    yield one
    one.end()


@pytest.fixture(scope="module")
def driver() -> Iterator["webdriver.Chrome"]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    words = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
    for word in (*words, "--window-size=1280,1400", "--no-proxy-server"):
        options.add_argument(word)
    one = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield one
    one.quit()


@pytest.fixture
def page(server: Server, driver: "webdriver.Chrome") -> Iterator[Page]:
    """A new page; when it is left its files are gone."""
    one = Page(driver, server.address)
    one.open()
    yield one
    first, *others = driver.window_handles
    for handle in others:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(first)
    driver.get("about:blank")
    one.wait(lambda: server.files() == [])


def test_upload_run_download(page: Page, server: Server, media: Path, tmp_path: Path) -> None:
    for name, reason in (
        ("text.mp4", "refused: text.mp4: cannot be read as media"),
        ("list.mp4", "refused: list.mp4: is a playlist; name the media file itself"),
    ):
        page.upload("face", media / name, reason)
        assert server.files() == []
    page.upload("face", media / "talker <b>.mp4", "256 × 256 pixels, 25 frames per second")
    page.upload("audio", media / "voice.wav", "sound, 0.4 s")
    page.click("#find")
    page.wait(lambda: "found: 1 (from 0.00 s)" in page.text("#people"))
    page.wait(lambda: page.find("input[value='track:1']"))
    page.driver.execute_script("document.querySelector(\"input[value='track:1']\").click()")
    page.click("#run")
    page.wait(lambda: page.find("#download") or page.find("#status .note-bad"))
    link = page.find("#download")[0]
    name = link.get_attribute("download")
    with OPENER.open(link.get_attribute("href"), timeout=SECONDS) as answer:
        (tmp_path / "result.mp4").write_bytes(answer.read())
    assert name.startswith("talker") and name.endswith("_voice_lip_synced.mp4")
    assert len([*read_frames(tmp_path / "result.mp4")]) == FRAMES
    assert probe(tmp_path / "result.mp4").fps == 25
    assert len(page.find("#result video")) == 2 and not page.find("#result b, #face_note b")
    shown = page.text("#line")
    assert "wav2lip-npu infer --device cpu" in shown and "--face_select track:1" in shown
    assert str(server.temporary) not in shown
    script = "return performance.getEntriesByType('resource').map(one => one.name)"
    loaded = page.driver.execute_script(script)
    assert loaded and all(one.startswith((server.address, "data:", "blob:")) for one in loaded)


def test_a_file_that_is_too_large(server: Server) -> None:
    """It is refused while it comes, and nothing of it stays."""
    for size, status in ((1000, 200), (MAX_UPLOAD_MB * 10**6 + 1, 413)):
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        body = head + bytes(size) + b"\r\n--x--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert server.fetch("/gradio_api/upload", data=body, **kind) == status
    assert [path.name for path in server.temporary.rglob("*.mp4")] == ["a.mp4"]
    for path in server.temporary.rglob("a.mp4"):
        path.unlink()
    assert server.files() == []


def test_two_visitors_and_a_cancelled_job(page: Page, server: Server, media: Path) -> None:
    """The second waits for the first, cannot end its job, and does not see its files."""
    first = page.driver.current_window_handle
    page.upload("face", media / "talker <b>.mp4", "256 × 256")
    page.upload("audio", media / "long.wav", "sound, 60.0 s")
    page.click("#run")
    page.wait(lambda: any(" infer " in line for line in server.jobs()))
    page.driver.switch_to.new_window("tab")
    page.open()
    assert page.text("#face_note") == "" and not page.find("#result video")
    page.click("#run")
    page.wait(lambda: page.text("#status") == "first give a video or picture")
    page.upload("face", media / "talker <b>.mp4", "256 × 256")
    page.upload("audio", media / "voice.wav", "sound, 0.4 s")
    page.click("#run")
    page.wait(lambda: page.text("#status") == "waiting; jobs before this one: 1")
    page.click("#cancel")
    page.wait(lambda: page.text("#status") == "cancelled")
    assert any(" infer " in line for line in server.jobs())
    page.driver.close()
    page.driver.switch_to.window(first)
    page.wait(lambda: "voice.wav" not in server.files())
    page.click("#cancel")
    page.wait(lambda: page.text("#status") == "cancelled")
    page.wait(lambda: not any(" infer " in line for line in server.jobs()))
    page.wait(lambda: not any("lip_synced" in name for name in server.files()))
    assert sorted(set(server.files())) == ["long.wav", page.text("#face_note").partition(": ")[0]]


def test_what_is_not_the_pages(server: Server, media: Path) -> None:
    """Files of the machine, other hosts, other sites, and paths that were not uploaded."""
    api = "/gradio_api"
    assert server.fetch("/") == 200
    for path in ("/etc/passwd", str(media / "voice.wav"), "../../etc/passwd", __file__):
        assert server.fetch(f"{api}/file={path}") in (403, 404)
    assert server.fetch(f"{api}/file=http://127.0.0.1/") == 403
    assert server.fetch("/", Host="evil.example") == 403
    assert server.fetch("/", Origin="https://evil.example") == 403


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    server = Server(tmp_path, "--checkpoints", str(tmp_path))
    assert [path.stat().st_mode & 0o777 for path in server.temporary.iterdir()] == [0o700]
    assert server.end() == 130
    assert [*server.temporary.iterdir()] == []
    assert json.dumps(Path(server.log.name).read_text().splitlines()[-1]) == (
        '"wav2lip-npu: interrupted"'
    )
