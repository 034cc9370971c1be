"""Where the face is in each frame: which person, what if there is none, and the smoothed box."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

import face_detection
from face_detection import Box
from wav2lip_npu.boxes import bounds, to_pixels
from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import Frame, rectangle
from wav2lip_npu.tracking.detection import BatchedDetector, detect_faces
from wav2lip_npu.tracking.detection_cache import DetectionCache
from wav2lip_npu.tracking.shots import mark_detection_frames
from wav2lip_npu.tracking.smoothing import FaceBox, PixelBox, interpolate_boxes, smooth_boxes
from wav2lip_npu.tracking.tracker import Identity, TrackedFrame, Tracker, track_faces
from wav2lip_npu.tracking.upright import align

MAX_LOGGED = 10  # stretches without a face, or people, that a line of the log names
MIN_LOGGED_FRAMES = 5  # in which a person must be found to be named

NO_FRAME = Frame(time=0.0, image=np.empty((0, 0, 3), np.uint8))

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class LocatedFrame:
    """A frame, and where its face is."""

    frame: Frame
    box: Box | None
    tilt: float = 0.0  # by which the box is turned, see ``boxes``
    has_face: bool = True  # whether the face was found; else the box is an earlier one, or None
    face_box: np.ndarray | None = None  # (4,) as detected, without margins
    points: np.ndarray | None = None  # (468, 3), see FaceLandmarks; None: not looked for, or none
    shot: int = 0  # its number

    @property
    def bounds(self) -> Box | None:
        """The upright box of the frame in which all is that may change."""
        height, width = self.frame.image.shape[:2]
        return self.box and bounds(self.box, self.tilt, (width, height))


@dataclass(kw_only=True)
class MissingFacePolicy:
    """Frames without the face: what is done about them, and which they were.

    ``locate`` asks it for a box, frames ahead and in another thread. ``LipSync.generate`` counts
    the frames that are given out: only those are told of, whatever was looked at besides.
    """

    policy: str  # one of config.NO_FACE_POLICIES
    fps: Fraction | float
    missing: list[int] = field(default_factory=list)  # numbers of frames given out
    frames: int = 0  # given out
    _last: tuple[Box | None, float] = (None, 0.0)

    def resolve(
        self, box: Box | None, tilt: float = 0.0, *, starts_shot: bool = False
    ) -> tuple[Box | None, float]:
        """The box to use for the next frame, and its tilt; none is held over a shot cut."""
        if starts_shot or box is not None:
            self._last = box, tilt
        return self._last if self.policy == "hold" else (box, tilt)

    def count(self, *, has_face: bool) -> None:
        """Note a frame that is given out.

        Raises:
            UserError: there is no face, and the policy is "error".
        """
        number, self.frames = self.frames, self.frames + 1
        if has_face:
            return
        self.missing.append(number)
        if self.policy == "error":
            raise UserError(
                f"frame {number} ({number / float(self.fps):.2f} s): no face; --no_face pass or "
                "hold goes on, --box gives the place"
            )

    def summarize(self) -> None:
        """Log which frames had no face.

        Raises:
            UserError: none had one.
        """
        if len(self.missing) == self.frames:
            raise no_face(self.frames)
        if self.missing:
            stretches = self.stretches()
            times = ", ".join(f"{first:.2f}–{last:.2f}" for first, last in stretches[:MAX_LOGGED])
            more = ", …" if len(stretches) > MAX_LOGGED else ""
            done = "unchanged" if self.policy == "pass" else "generated at the face's last place"
            log.warning(
                "%d of %d frames without a face, %s, at seconds %s%s",
                len(self.missing), self.frames, done, times, more,
            )  # fmt: skip

    def stretches(self) -> list[tuple[float, float]]:
        """When there was no face: from and to, in seconds."""
        frames = np.array(self.missing)
        ends = np.flatnonzero(np.diff(frames) > 1)
        firsts, lasts = np.concatenate([[0], ends + 1]), np.concatenate([ends, [len(frames) - 1]])
        pairs = zip(frames[firsts].tolist(), frames[lasts].tolist(), strict=True)
        return [(first / float(self.fps), (last + 1) / float(self.fps)) for first, last in pairs]


def no_face(frames: int) -> UserError:
    """What to say where no frame has the face."""
    return UserError(
        f"no face in any of {frames} frames, or not the one that is asked for; "
        "--face_select chooses, --box gives the place"
    )


def locate(
    frames: Iterator[Frame],
    config: LipSyncConfig,
    detector: face_detection.Detector | None,
    missing_faces: MissingFacePolicy,
    cache: DetectionCache | None = None,
) -> Iterator[LocatedFrame]:
    """Frames with the box of the chosen face, as they come.

    Args:
        frames: in order of time.
        config: the options.
        detector: finds faces; None where ``--box`` gives the place.
        missing_faces: decides on the frames without the face.
        cache: what is known of these frames already; it learns the rest.
    """
    if detector is None:
        for frame in frames:
            given = rectangle("--box", config.box, frame.image)
            yield LocatedFrame(frame=frame, box=given)
        return
    batched = BatchedDetector(detector=detector, batch_size=config.face_det_batch_size, cache=cache)
    tracker = Tracker()
    marked = mark_detection_frames(frames, config.detect_every)
    tracked = track_faces(detect_faces(marked, batched), tracker)
    faces = interpolate_boxes(_select_face(tracked, config.face_select))
    if config.align == "tilt":
        faces = align(faces)
    boxes = _in_pixels(faces, config, missing_faces)
    shot = 0
    for face, box in smooth_boxes(boxes, "none" if config.nosmooth else config.smooth):
        shot += face.starts_shot
        yield LocatedFrame(
            frame=face.item,
            box=box,
            tilt=face.tilt,
            has_face=face.box is not None,
            face_box=face.box,
            points=face.points,
            shot=shot,
        )
    _log_people(tracker, float(missing_faces.fps))


def _select_face(frames: Iterator[TrackedFrame], rule: str) -> Iterator[FaceBox[Frame]]:
    """The chosen person's boxes, as far as detections are known."""
    selector = TargetSelector(rule)
    for tracked in frames:
        frame, box = tracked.marked.frame, None
        if tracked.people is not None:
            height, width = frame.image.shape[:2]
            box = selector.select(tracked.people, (width, height), tracked.shot)
        yield FaceBox(
            item=frame,
            starts_shot=tracked.marked.starts_shot,
            detected=tracked.people is not None,
            box=box,
        )


def _in_pixels(
    faces: Iterator[FaceBox[Frame]], config: LipSyncConfig, missing_faces: MissingFacePolicy
) -> Iterator[PixelBox[Frame]]:
    """Each with the box in whole pixels with its margins, or what the policy gives without one."""
    for face in faces:
        height, width = face.item.image.shape[:2]
        box = None
        if face.box is not None:
            box = to_pixels(face.box, (width, height), config.pads, face.tilt)
        if box is None:
            face = replace(face, box=None, points=None)
        box, tilt = missing_faces.resolve(box, face.tilt, starts_shot=face.starts_shot)
        yield replace(face, tilt=tilt), box


def _log_people(tracker: Tracker, fps: float) -> None:
    people = [one for one in tracker.identities if one.frames >= MIN_LOGGED_FRAMES]
    if len(people) > 1:
        times = [f"{person.number} from {person.first_frame / fps:.2f} s" for person in people]
        log.info(
            "%d people: %s%s; --face_select track:N takes the N-th",
            len(people), ", ".join(times[:MAX_LOGGED]), ", …" if len(times) > MAX_LOGGED else "",
        )  # fmt: skip


class TargetSelector:
    """Whose mouth is made to speak: ``--face_select``."""

    def __init__(self, rule: str) -> None:
        """Select by a rule, one of ``config.FACE_RULES`` or ``track:N``."""
        self.rule = rule
        self._shot = -1
        self._first_choice: Identity | None = None
        self._choice: Identity | None = None  # in this shot

    def select(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int], shot: int
    ) -> np.ndarray | None:
        """The box of the chosen person, if that person is in the frame.

        A person stays chosen for the whole shot, and in other shots where they are known again.
        Where they are not, ``largest`` and ``center`` choose anew.

        Args:
            people: who is in the frame, and where.
            size: width and height of the frame.
            shot: number of the shot.
        """
        self._choice = self._choice and self._choice.resolved()
        self._first_choice = self._first_choice and self._first_choice.resolved()
        if people and (shot != self._shot or self._choice is None):
            self._shot = shot
            self._choice = self._choose(people, size)
            self._first_choice = self._first_choice or self._choice
        return people.get(self._choice) if self._choice is not None else None

    def _choose(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int]
    ) -> Identity | None:
        if self._first_choice in people:
            return self._first_choice
        if self.rule not in ("largest", "center"):
            wanted = 1 if self.rule == "first" else int(self.rule.removeprefix("track:"))
            return next((person for person in people if person.number == wanted), None)
        corners = {person: box.reshape(2, 2) for person, box in people.items()}
        if self.rule == "largest":
            return max(corners, key=lambda person: float(np.diff(corners[person], axis=0).prod()))
        middle = np.array(size) / 2
        return min(
            corners,
            key=lambda person: float(np.linalg.norm(corners[person].mean(axis=0) - middle)),
        )
