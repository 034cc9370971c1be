"""Arrays on the disk (mel.npy, the cache of detections) that are not what they should be."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.mutations import Change, Expected, Mutation
from fuzz.special_weights import Touch

REFUSED, ANY = Expected.REFUSED, Expected.ANY


def _array(make: Callable[[np.ndarray], object]) -> Change:
    """Another array in a .npy file."""

    def apply(path: Path, random: Random) -> None:
        mel = np.load(path)
        with path.open("wb") as file:
            np.save(file, make(mel))  # type: ignore[arg-type]

    return apply


def _npy_header(text: str) -> Change:
    def apply(path: Path, random: Random) -> None:
        header = text.ljust(117).encode() + b"\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        path.write_bytes(content + bytes(1000))

    return apply


def _object_array(path: Path, random: Random) -> None:
    array = np.empty(1, object)
    array[0] = Touch(path.parent)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def _older(path: Path, random: Random) -> None:
    os.utime(path, (0, 0))


MEL = (
    Mutation(name="an object array with code", apply=_object_array, expected=REFUSED),
    Mutation(name="all NaN", apply=_array(lambda mel: mel * np.nan), expected=REFUSED),
    Mutation(name="infinite", apply=_array(lambda mel: mel + np.inf), expected=REFUSED),
    Mutation(name="turned", apply=_array(lambda mel: mel.T), expected=REFUSED),
    Mutation(name="40 bands", apply=_array(lambda mel: mel[:40]), expected=REFUSED),
    Mutation(name="no rows", apply=_array(lambda mel: mel[:, :0]), expected=REFUSED),
    Mutation(name="half of the rows", apply=_array(lambda mel: mel[:, :40])),
    Mutation(name="three axes", apply=_array(lambda mel: mel[None]), expected=REFUSED),
    Mutation(name="a number", apply=_array(lambda mel: np.float32(7)), expected=REFUSED),
    Mutation(name="double precision", apply=_array(lambda mel: mel.astype("f8")), expected=REFUSED),
    Mutation(name="half precision", apply=_array(lambda mel: mel.astype("f2"))),
    Mutation(name="complex", apply=_array(lambda mel: mel.astype("c8")), expected=REFUSED),
    Mutation(name="texts", apply=_array(lambda mel: mel.astype("U5")), expected=REFUSED),
    Mutation(name="big-endian", apply=_array(lambda mel: mel.astype(">f4")), expected=REFUSED),
    Mutation(name="column by column", apply=_array(np.asfortranarray), expected=REFUSED),
    Mutation(name="values of 1e30", apply=_array(lambda mel: mel * 1e30)),
    Mutation(name="older than the sound", apply=_older, expected=REFUSED),
    *(
        Mutation(name=f"header {text[:30]}", apply=_npy_header(text), expected=REFUSED)
        for text in (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (80, 99999999999), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-80, 10), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (80, 10), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 'x', }",
            "__import__('os').mkdir('EXECUTED')",
            "{" * 100,
            "[" * 100,
        )
    ),
)  # fmt: skip


def _npz(change: Callable[[dict[str, np.ndarray]], None]) -> Change:
    def apply(path: Path, random: Random) -> None:
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files}
        change(arrays)
        np.savez(path, **arrays)

    return apply


def _put(name: str, make: Callable[[np.ndarray], object]) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = make(arrays[name])

    return change


def _object_member(path: Path, random: Random) -> None:
    array = np.empty(1, object)
    array[0] = Touch(path.parent)
    np.savez(path, frames=array, counts=array, boxes=array)


FACE_CACHE = (
    Mutation(name="objects with code", apply=_object_member, expected=REFUSED),
    *(
        Mutation(name=f"{name} {what}", apply=_npz(_put(name, make)), expected=expected)
        for name, what, make, expected in (
            ("counts", "of 1000", lambda v: v + 1000, REFUSED),
            ("counts", "below 0", lambda v: v - 5, REFUSED),
            ("counts", "as floats", lambda v: v.astype(float), ANY),
            ("counts", "as NaN", lambda v: v * np.nan, REFUSED),
            ("counts", "of two axes", lambda v: v[None], ANY),
            ("counts", "of none", lambda v: v[:0], REFUSED),
            ("frames", "below 0", lambda v: v - 9, ANY),
            ("frames", "as texts", lambda v: v.astype("U3"), ANY),
            ("frames", "of two axes", lambda v: np.stack([v, v], 1), ANY),
            ("boxes", "as NaN", lambda v: v * np.nan, REFUSED),
            ("boxes", "infinite", lambda v: v + np.inf, REFUSED),
            ("boxes", "of 1e30", lambda v: v * 1e30, ANY),
            ("boxes", "outside", lambda v: v + 5000, ANY),
            ("boxes", "turned over", lambda v: v[:, [2, 3, 0, 1, 4]], ANY),
            ("boxes", "of four columns", lambda v: v[:, :4], REFUSED),
            ("boxes", "as integers", lambda v: v.astype(int), ANY),
            ("boxes", "as texts", lambda v: v.astype("U5"), REFUSED),
            ("boxes", "of none", lambda v: v[:0], REFUSED),
            ("boxes", "without axes", lambda v: np.float32(3), REFUSED),
        )
    ),
    Mutation(name="a part missing", apply=_npz(lambda a: a.pop("boxes")), expected=REFUSED),
    Mutation(name="a part too many", apply=_npz(lambda a: a.update(x=np.zeros(3)))),
)
