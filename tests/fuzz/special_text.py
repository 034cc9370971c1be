"""File lists, reports, options, metrics and lists of jobs that are not as they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

from fuzz.mutations import Change, Expected, Mutation

USED, REFUSED, ANY = Expected.USED, Expected.REFUSED, Expected.ANY


def _text(change: Callable[[str], str], encoding: str = "utf-8") -> Change:
    def apply(path: Path, random: Random) -> None:
        path.write_bytes(change(path.read_text(encoding="utf-8")).encode(encoding, "surrogatepass"))

    return apply


def _same(text: str) -> str:
    return text


def _appended(line: str) -> Callable[[str], str]:
    return lambda text: text + line


DEEP = 100_000  # brackets
FILE_LIST = (
    Mutation(name="BOM", apply=_text(_same, "utf-8-sig"), expected=USED),
    Mutation(name="UTF-16", apply=_text(_same, "utf-16"), expected=ANY),
    Mutation(name="GBK", apply=_text(_appended("中文\n"), "gbk"), expected=ANY),
    Mutation(name="lone surrogate", apply=_text(_appended("\ud800\n")), expected=ANY),
    Mutation(name="CRLF", apply=_text(lambda t: t.replace("\n", "\r\n")), expected=USED),
    Mutation(name="old Mac lines", apply=_text(lambda t: t.replace("\n", "\r")), expected=USED),
    Mutation(name="no last newline", apply=_text(str.rstrip), expected=USED),
    Mutation(name="spaces around", apply=_text(lambda t: t.replace("\n", "  \n  ")), expected=USED),
    Mutation(name="blank lines", apply=_text(lambda t: t.replace("\n", "\n\n \n")), expected=USED),
    Mutation(name="words after the clip", apply=_text(lambda t: t.replace("\n", " WORDS\n"))),
    *(
        Mutation(name=f"a line {line[:24]!r}", apply=_text(_appended(line + "\n")), expected=ANY)
        for line in (
            *(
                "a.mp4",
                "x\\y",
                "..",
                ".",
                "/",
                "/etc",
                "../data/a",
                "~",
                "a/",
                "./a",
                "a//",
                "a/../b",
            ),
            *("NUL\0byte", "#comment", "n" * 5000, "n" * 300, "%s", "$(touch EXECUTED)", "a\tb"),
            *(
                "a\u2028b",
                "a\x85b",
                "a\x1cb",
                "\u202e",
                "-x",
                "a",
                "c",
                "a/5.jpg",
                "{}",
                "\x1b[31m",
            ),
        )
    ),
    Mutation(name="each clip 1000 times", apply=_text(lambda t: t * 1000)),
    Mutation(name="100000 lines", apply=_text(lambda t: t + "nowhere\n" * 100_000)),
    Mutation(name="one endless line", apply=_text(lambda t: t + "x" * 10_000_000)),
    Mutation(name="blank", apply=_text(lambda t: " \n\n\t\n"), expected=REFUSED),
)

ODD_VALUES: tuple[Any, ...] = (
    *(
        "x",
        "",
        ".",
        "..",
        "../../x",
        "/",
        "/etc",
        "good/..",
        "a\0b",
        "n" * 300,
        "$(touch EXECUTED)",
    ),
    *("\ud800", -1, 0, 2**70, 1e300, float("nan"), True, None, [], ["x"], {}, {"a": 1}),
)
REPORT_FIELDS = ("clip", "source", "source_bytes", "source_time", "frames", "warnings", "rejected")


def _report(key: str, value: object) -> Change:
    """A field of the last line of the report, which is the odd video's."""

    def apply(path: Path, random: Random) -> None:
        lines = path.read_text().splitlines()
        entry = json.loads(lines[-1])
        entry[key] = value
        path.write_text("\n".join([*lines[:-1], json.dumps(entry), ""]))

    return apply


def _without(key: str) -> Change:
    def apply(path: Path, random: Random) -> None:
        lines = path.read_text().splitlines()
        entry = json.loads(lines[-1])
        del entry[key]
        path.write_text("\n".join([*lines[:-1], json.dumps(entry), ""]))

    return apply


LINES = ("[]", "7", "null", '"x"', "{}", "NaN", "[" * DEEP, '{"a":' * DEEP, "\0", "{", "1" * 10_000)
JSON_FILE = (
    Mutation(name="BOM", apply=_text(_same, "utf-8-sig")),
    Mutation(name="UTF-16", apply=_text(_same, "utf-16")),
    Mutation(name="GBK", apply=_text(_appended('{"clip": "中文"}\n'), "gbk")),
    *(
        Mutation(name=f"the whole file {line[:12]!r}", apply=_text(lambda t, n=line: n + "\n"))
        for line in LINES
    ),
)
JSON_LINES = (
    *JSON_FILE,
    *(
        Mutation(name=f"also a line {line[:12]!r}", apply=_text(_appended(line + "\n")))
        for line in LINES
    ),
    Mutation(name="half a line", apply=_text(lambda t: t[:-40])),
    Mutation(name="every line twice", apply=_text(lambda t: t + t)),
    Mutation(name="100000 lines", apply=_text(lambda t: t * (100_000 // max(1, t.count("\n"))))),
)


def _victim(path: Path, random: Random) -> None:
    """A report of a clip whose folder is the user's, and has other files."""
    victim = path.parent.parent / "precious"
    (victim / "deep").mkdir(parents=True)
    (victim / "deep" / "thesis.txt").write_text("years of work")
    name = random.choice((str(victim), "../precious", "good/../../precious"))
    _report("clip", name)(path, random)
    _report("source_time", 1)(path, random)


REPORT = (
    *JSON_LINES,
    *(
        Mutation(name=f"{key} is {value!r:.20}", apply=_report(key, value))
        for key in REPORT_FIELDS
        for value in ODD_VALUES
    ),
    *(Mutation(name=f"without {key}", apply=_without(key)) for key in REPORT_FIELDS),
    Mutation(name="an unknown field", apply=_report("colour", "red")),
    Mutation(name="a clip outside", apply=_victim),
)


def _option(key: str, value: object) -> Change:
    def apply(path: Path, random: Random) -> None:
        options = json.loads(path.read_text())
        path.write_text(json.dumps({**options, key: value}))

    return apply


OPTIONS = (
    *JSON_FILE,
    *(
        Mutation(name=f"{key} is {value!r:.20}", apply=_option(key, value))
        for key in ("detector", "detect_every", "smooth_boxes", "unknown")
        for value in ODD_VALUES[-14:]
    ),
)


def _entry(**values: object) -> Change:
    """One more line of metrics."""
    line = {"kind": "eval", "step": 1, "loss": 0.5, **values}
    return _text(_appended(json.dumps({k: v for k, v in line.items() if v != "absent"}) + "\n"))


def _sheet(make: Callable[[], np.ndarray]) -> Change:
    def apply(path: Path, random: Random) -> None:
        path.write_bytes(cv2.imencode(".png", make())[1].tobytes())

    return apply


def _sheet_named(name: str) -> Change:
    def apply(path: Path, random: Random) -> None:
        os.link(path, path.with_name(name))

    return apply


METRICS = (
    *JSON_LINES,
    *(
        Mutation(name=f"{key} is {value!r:.20}", apply=_entry(**{key: value}))
        for key in ("kind", "step", "loss")
        for value in (*ODD_VALUES[-12:], "absent", 2**40)
    ),
)
SAMPLE_SHEET = (
    *(
        Mutation(
            name=f"a sheet of {w} by {h}", apply=_sheet(lambda w=w, h=h: np.zeros((h, w, 3), "u1"))
        )
        for w, h in ((1, 1), (3, 3000), (5000, 5))
    ),
    Mutation(name="a grey sheet", apply=_sheet(lambda: np.zeros((100, 100), "u1"))),
    Mutation(name="also of step x", apply=_sheet_named("samples_stepx.png")),
    Mutation(name="also of a step of 30 digits", apply=_sheet_named(f"samples_step{'9' * 30}.png")),
    Mutation(name="also of a short step", apply=_sheet_named("samples_step1.png")),
)


def _replaced(old: str, new: str) -> Change:
    return _text(lambda text: text.replace(old, new))


def _reordered(text: str) -> str:
    """The columns the other way round."""
    return "".join(",".join(line.split(",")[::-1]) + "\n" for line in text.splitlines())


JOBS = (
    Mutation(name="BOM", apply=_text(_same, "utf-8-sig"), expected=USED),
    Mutation(name="UTF-16", apply=_text(_same, "utf-16"), expected=REFUSED),
    Mutation(name="GBK", apply=_text(_appended("中文.mp4,speech.wav,out/3.mp4\n"), "gbk")),
    Mutation(name="CRLF", apply=_text(lambda t: t.replace("\n", "\r\n")), expected=USED),
    Mutation(name="old Mac lines", apply=_text(lambda t: t.replace("\n", "\r"))),
    Mutation(name="blank lines", apply=_text(lambda t: t.replace("\n", "\n\n")), expected=USED),
    Mutation(name="quotes", apply=_replaced("speech.wav", '"speech.wav"'), expected=USED),
    Mutation(name="an open quote", apply=_text(lambda t: t.replace("speech.wav", '"speech.wav'))),
    Mutation(name="semicolons", apply=_text(lambda t: t.replace(",", ";")), expected=REFUSED),
    Mutation(name="spaces after commas", apply=_replaced(",", ", "), expected=USED),
    Mutation(name="no first line", apply=_replaced("face,audio,outfile\n", ""), expected=REFUSED),
    Mutation(
        name="the first line alone", apply=_text(lambda t: t.split("\n")[0]), expected=REFUSED
    ),
    Mutation(name="a column twice", apply=_replaced("face,audio", "face,face"), expected=REFUSED),
    Mutation(name="another order", apply=_text(_reordered), expected=USED),
    *(
        Mutation(name=f"also {line[:24]!r}", apply=_text(_appended(line + "\n")))
        for line in (
            *(",,", "a,b", "a,b,c,d", "x" * 200_000, "\0", "talker.mp4,speech.wav,out/1.mp4"),
            *("talker.mp4,speech.wav,out", "talker.mp4,speech.wav,talker.mp4", "..,..,.."),
            *("talker.mp4,speech.wav,out/n.txt", "talker.mp4,speech.wav,out/./2.mp4"),
            *("talker.mp4,speech.wav,/proc/x.mp4", "/dev/zero,speech.wav,out/3.mp4"),
            *("$(touch EXECUTED),speech.wav,out/3.mp4", "talker.mp4,speech.wav,jobs.csv"),
            *("talker.mp4,speech.wav,out/1.mp4/x.mp4", "a\0b,speech.wav,out/3.mp4"),
            *(f"talker.mp4,speech.wav,out/{'n' * 300}.mp4", "talker.mp4,,out/3.mp4"),
            "talker.mp4,speech.wav,my notes.txt", "talker.mp4,speech.wav,out/a\ud800.mp4",
        )
    ),
)  # fmt: skip


def _folder_named(name: str) -> Change:
    def apply(path: Path, random: Random) -> Path:
        folder = path.parent.rename(path.parent.with_name(name))
        return folder / path.name

    return apply


def _loop_inside(path: Path, random: Random) -> None:
    (path.parent / "loop").symlink_to("..")
    (path.parent.parent / "self").symlink_to("self")


def _locked_inside(path: Path, random: Random) -> None:
    (path.parent.parent / "locked").mkdir()
    (path.parent.parent / "locked").chmod(0)


CLIP = (
    *(
        Mutation(name=f"clip named {name[:12]!r}", apply=_folder_named(name), expected=ANY)
        for name in (
            *("two words", " leading", "trailing ", "two\nlines", "tab\tname", "$(touch EXECUTED)"),
            *("中文", "-x", "#x", "a\u2028b", "a\x85b", os.fsdecode("中文".encode("gbk")), "test"),
            *("val", "a" * 255, "\ufeffx", "x.mp4", "a\\b", "s1", "id00001", "\x1b[31m", "nul\x1f"),
        )
    ),
    Mutation(name="links in circles", apply=_loop_inside, expected=ANY),
    Mutation(name="a folder that cannot be read", apply=_locked_inside, expected=ANY),
)

VOICES = (
    Mutation(name="BOM", apply=_text(_same, "utf-8-sig"), expected=USED),
    Mutation(name="UTF-16", apply=_text(_same, "utf-16"), expected=REFUSED),
    Mutation(name="CRLF", apply=_text(lambda t: t.replace("\n", "\r\n")), expected=USED),
    Mutation(name="blank lines", apply=_text(lambda t: t.replace("\n", "\n\n")), expected=USED),
    Mutation(name="another order", apply=_text(_reordered), expected=USED),
    Mutation(name="no gain", apply=_replaced("largest,speech.wav,0", "largest,speech.wav,")),
    Mutation(name="semicolons", apply=_text(lambda t: t.replace(",", ";")), expected=REFUSED),
    Mutation(name="no first line", apply=_replaced("person,audio,gain\n", ""), expected=REFUSED),
    *(
        Mutation(name=f"also {line[:24]!r}", apply=_text(_appended(line + "\n")), expected=REFUSED)
        for line in (
            *("a,b", "largest,speech.wav,0", "track:0,speech.wav,0", "x" * 200_000, "\0"),
            *("first,speech.wav,loud", "first,speech.wav,1e9", "first,,0", "first,nowhere.wav,0"),
        )
    ),
    *(
        Mutation(name=f"also {line!r}", apply=_text(_appended(line + "\n")), expected=USED)
        for line in ("track:9,speech.wav,-40", "track:2,talker.mp4,+3 dB", "center,odd.wav,40")
    ),
)
