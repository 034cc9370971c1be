"""Where faces are in each frame: which people, what if there is none, and the smoothed boxes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import tee
from operator import itemgetter

import numpy as np

import face_detection
from face_detection import Box
from wav2lip_npu.boxes import bounds, to_pixels
from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import Frame, rectangle
from wav2lip_npu.tracking.detection import BatchedDetector, Detections, detect_faces
from wav2lip_npu.tracking.selection import Selector, TargetSelector, select_each
from wav2lip_npu.tracking.shots import mark_detection_frames
from wav2lip_npu.tracking.smoothing import FaceBox, PixelBox, interpolate_boxes, smooth_boxes
from wav2lip_npu.tracking.tracker import Identity, TrackedFrame, Tracker, track_faces
from wav2lip_npu.tracking.upright import align

MAX_LOGGED = 10  # stretches without a face, or people, that a line of the log names
MIN_LOGGED_FRAMES = 5  # in which a person must be found to be named

NO_FRAME = Frame(time=0.0, image=np.empty((0, 0, 3), np.uint8))

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class LocatedFace:
    """Where the face of one person is in a frame."""

    box: Box | None
    tilt: float = 0.0  # by which the box is turned, see ``boxes``
    found: bool = True  # whether the face was found; else the box is an earlier one, or None
    detected: np.ndarray | None = None  # (4,) the box without margins
    points: np.ndarray | None = None  # (468, 3), see FaceLandmarks; None: not looked for, or none


@dataclass(frozen=True, kw_only=True, eq=False)
class LocatedFrame:
    """A frame, and where the faces are that are to speak."""

    frame: Frame
    faces: tuple[LocatedFace, ...]  # one for each target
    shot: int = 0  # its number

    @property
    def changing(self) -> list[Box]:
        """The upright boxes of the frame in which all is that may change."""
        height, width = self.frame.image.shape[:2]
        found = [face.box and bounds(face.box, face.tilt, (width, height)) for face in self.faces]
        return [box for box in found if box is not None]


@dataclass(kw_only=True)
class MissingFacePolicy:
    """Frames without the face: what is done about them, and which they were.

    ``locate`` asks it for a box, frames ahead and in another thread. ``LipSync.generate`` counts
    the frames that are given out: only those are told of, whatever was looked at besides.
    """

    policy: str  # one of config.NO_FACE_POLICIES
    fps: Fraction | float
    person: str = ""  # who it is, where there are several
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
                f"{self._about}frame {number} ({number / float(self.fps):.2f} s): no face; "
                "--no_face pass or hold goes on, --box gives the place"
            )

    @property
    def is_never_found(self) -> bool:
        """Whether no frame that was given out had the face."""
        return len(self.missing) == self.frames

    @property
    def _about(self) -> str:
        return f"{self.person}: " if self.person else ""

    def summarize(self) -> None:
        """Log which frames had no face."""
        if self.missing:
            stretches = self.stretches()
            times = ", ".join(f"{first:.2f}–{last:.2f}" for first, last in stretches[:MAX_LOGGED])
            more = ", …" if len(stretches) > MAX_LOGGED else ""
            done = "unchanged" if self.policy == "pass" else "generated at the face's last place"
            log.warning(
                "%s%d of %d frames without a face, %s, at seconds %s%s",
                self._about, len(self.missing), self.frames, done, times, more,
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


@dataclass(frozen=True, kw_only=True)
class Target:
    """A person whose mouth is generated."""

    selector: Selector
    missing_faces: MissingFacePolicy


def targets_of(rules: Sequence[str], policy: str, fps: Fraction | float) -> list[Target]:
    """A target for each rule; with several of them, messages name the rule.

    Args:
        rules: see ``TargetSelector``.
        policy: one of ``config.NO_FACE_POLICIES``.
        fps: frames per second.
    """
    return [
        Target(
            selector=TargetSelector(rule),
            missing_faces=MissingFacePolicy(
                policy=policy, fps=fps, person=rule if len(rules) > 1 else ""
            ),
        )
        for rule in rules
    ]


def summarize(targets: Sequence[Target]) -> None:
    """Log which frames had no face.

    Raises:
        UserError: none had one of anybody.
    """
    policies = [target.missing_faces for target in targets]
    if all(policy.is_never_found for policy in policies):
        raise no_face(policies[0].frames)
    for policy in policies:
        policy.summarize()


def locate(
    frames: Iterator[Frame],
    config: LipSyncConfig,
    detector: face_detection.Detector | None,
    targets: Sequence[Target],
    cache: Detections | None = None,
) -> Iterator[LocatedFrame]:
    """Frames with the boxes of the chosen faces, as they come.

    Args:
        frames: in order of time.
        config: the options.
        detector: finds faces; None where ``--box`` gives the place.
        targets: whose faces; with ``--box`` one.
        cache: what is known of these frames already; it learns the rest.
    """
    if detector is None:
        for frame in frames:
            given = rectangle("--box", config.box, frame.image)
            yield LocatedFrame(frame=frame, faces=(LocatedFace(box=given),))
        return
    batched = BatchedDetector(detector=detector, batch_size=config.face_det_batch_size, cache=cache)
    tracker = Tracker()
    marked = mark_detection_frames(frames, config.detect_every)
    tracked = track_faces(detect_faces(marked, batched), tracker)
    # What one of them has taken waits until the others have taken it too: a few frames.
    copies = tee(_select_faces(tracked, [target.selector for target in targets]), len(targets))
    located = [
        _follow(map(itemgetter(number), copy), config, target.missing_faces)
        for number, (copy, target) in enumerate(zip(copies, targets, strict=True))
    ]
    shot = 0
    for found in zip(*located, strict=True):
        face, _ = found[0]
        shot += face.starts_shot
        yield LocatedFrame(frame=face.item, faces=tuple(map(_located, found)), shot=shot)
    _log_people(tracker, float(targets[0].missing_faces.fps))


def _select_faces(
    frames: Iterator[TrackedFrame], selectors: Sequence[Selector]
) -> Iterator[list[FaceBox[Frame]]]:
    """The boxes of each chosen person, as far as detections are known."""
    for tracked in frames:
        frame, people = tracked.marked.frame, tracked.people or {}
        chosen: list[Identity | None] = [None] * len(selectors)
        if tracked.people is not None:
            height, width = frame.image.shape[:2]
            chosen = select_each(selectors, people, (width, height), tracked.shot)
        yield [
            FaceBox(
                item=frame,
                starts_shot=tracked.marked.starts_shot,
                detected=tracked.people is not None,
                box=None if person is None else people[person],
            )
            for person in chosen
        ]


def _follow(
    faces: Iterator[FaceBox[Frame]], config: LipSyncConfig, missing_faces: MissingFacePolicy
) -> Iterator[PixelBox[Frame]]:
    """The boxes of one person: interpolated, turned, with margins, smoothed."""
    faces = interpolate_boxes(faces)
    if config.align == "tilt":
        faces = align(faces)
    boxes = _in_pixels(faces, config, missing_faces)
    return smooth_boxes(boxes, "none" if config.nosmooth else config.smooth)


def _located(found: PixelBox[Frame]) -> LocatedFace:
    face, box = found
    return LocatedFace(
        box=box,
        tilt=face.tilt,
        found=face.box is not None,
        detected=face.box,
        points=face.points,
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
