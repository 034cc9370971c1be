"""The tab that lip-syncs: files in, options, a job, the result."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from wav2lip_npu.config import InferConfig
from wav2lip_npu.config.inference import FACE_RULES, SPEAKING
from wav2lip_npu.console.progress import format_line
from wav2lip_npu.errors import UserError
from wav2lip_npu.ui import inspection
from wav2lip_npu.ui.command_line import from_here, option_words, shell_line
from wav2lip_npu.ui.jobs import Job, State
from wav2lip_npu.ui.page import markup
from wav2lip_npu.ui.page.options import FIRST, add_field, offered, values_of
from wav2lip_npu.ui.page.visit import key_of
from wav2lip_npu.ui.service import Service
from wav2lip_npu.ui.visitors import Visitor

CHECK_SECONDS = 0.5  # between two looks at a job
GENERATOR_SUFFIXES = (".pth", ".pt", ".safetensors")
RULES = [*FACE_RULES, SPEAKING]
# On these depends who is person N.
NUMBERING = (
    *("start", "end", "static", "fps", "resize_factor", "crop", "rotate"),
    *("detector", "detector_precision", "detect_every"),
)
MAX_STEM_CHARACTERS = 40  # of each file's name, in the name of the result
CHECKING = "checking …"
Update = dict[gr.components.Component, Any]


def add_lip_sync_tab(service: Service) -> None:
    """Add the tab."""
    LipSyncTab(service).connect()


class LipSyncTab:
    """The tab's parts, and what happens when they are used."""

    def __init__(self, service: Service) -> None:
        """Lay out the parts."""
        self.service = service
        self.items = offered()
        limit = f"up to {service.config.max_upload_mb} MB"
        with gr.Row():
            with gr.Column():
                self.face = gr.File(
                    label=f"Video or picture with a face ({limit})", height=140, elem_id="face"
                )
                self.face_note = gr.HTML(elem_id="face_note")
            with gr.Column():
                self.audio = gr.Audio(
                    label=f"Voice: a sound file ({limit}), or record one",
                    sources=["upload", "microphone"],
                    type="filepath",
                    format=None,
                    elem_id="audio",
                    buttons=["download"],
                )
                self.audio_note = gr.HTML(elem_id="audio_note")
        with gr.Row():
            self.checkpoint = gr.Dropdown(
                label="Generator", choices=[], info="of the folders that --checkpoints names"
            )
            self.face_select = gr.Radio(
                RULES, value=RULES[0], label="Whose face", info=_help("face_select")
            )
        self.find = gr.Button("Find faces", size="sm", elem_id="find")
        self.people = gr.HTML(elem_id="people")
        self.fields: list[Any] = []
        with gr.Accordion("Options", open=False):
            self._add_fields(0, len(FIRST))
            with gr.Accordion("More options", open=False):
                self._add_fields(len(FIRST), len(self.items))
        with gr.Row():
            self.run = gr.Button("Run", variant="primary", elem_id="run")
            self.cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
        self.status = gr.HTML(elem_id="status")
        self.result = gr.HTML(elem_id="result")
        self.line = gr.Code(
            label="The same on the command line",
            language="shell",
            interactive=False,
            wrap_lines=True,
            lines=1,
            visible=False,
            elem_id="line",
        )

    def _add_fields(self, first: int, last: int) -> None:
        for start in range(first, last, 3):
            with gr.Row():
                self.fields += [
                    add_field(item) for item in self.items[start : min(start + 3, last)]
                ]

    def connect(self) -> None:
        """Connect the parts with the methods below."""
        page = gr.context.Context.root_block
        assert page is not None
        page.load(self.list_generators, None, self.checkpoint)
        faces = [self.face, self.face_note, self.people, self.face_select]
        # Gradio's own sign of progress would hide the text below it.
        quiet = {"show_progress": "hidden"}
        # Of an upload only the path is wanted: Gradio would leave an empty file for each.
        raw = {**quiet, "preprocess": False}
        self.face.upload(self.take_face, self.face, faces, **raw)
        self.face.clear(self.drop_face, None, faces, **quiet)
        for event in (self.audio.upload, self.audio.stop_recording):
            event(self.take_audio, self.audio, [self.audio, self.audio_note], **raw)
        self.audio.clear(self.drop_audio, None, self.audio_note, **quiet)
        given = [self.checkpoint, self.face_select, *self.fields]
        buttons = [self.find, self.run, self.cancel]
        found = [self.status, self.people, self.face_select, *buttons]
        self.find.click(self.find_faces, given, found, **quiet)
        made = [self.status, self.result, self.line, *buttons]
        self.run.click(self.lip_sync, given, made, **quiet)
        self.cancel.click(self.end_job, None, None, **quiet)

    def list_generators(self) -> Any:
        """The generators that there are now."""
        found = self.service.checkpoints.files(*GENERATOR_SUFFIXES)
        return gr.Dropdown(choices=found, value=found[0][1] if found else None)

    def take_face(self, uploaded: object, request: gr.Request) -> Iterator[Update]:
        """Check a video or picture that was uploaded."""
        yield {self.face_note: markup.note(CHECKING)}
        text, bad = self._take("face", uploaded, request)
        update = {self.face_note: markup.note(text, bad=bad), **self._no_people()}
        yield {**update, self.face: None} if bad else update

    def drop_face(self, request: gr.Request) -> Update:
        """Forget it."""
        self.service.visitors.drop(self._visitor(request), "face")
        return {self.face_note: "", **self._no_people()}

    def take_audio(self, uploaded: object, request: gr.Request) -> Iterator[Update]:
        """Check a voice that was uploaded or recorded."""
        yield {self.audio_note: markup.note(CHECKING)}
        text, bad = self._take("audio", uploaded, request)
        update: Update = {self.audio_note: markup.note(text, bad=bad)}
        yield {**update, self.audio: None} if bad else update

    def drop_audio(self, request: gr.Request) -> str:
        """Forget it."""
        self.service.visitors.drop(self._visitor(request), "audio")
        return ""

    def _take(self, kind: str, uploaded: object, request: gr.Request) -> tuple[str, bool]:
        """What there is to say of an upload, and whether it is refused."""
        visitor = self._visitor(request)
        place = uploaded.get("path") if isinstance(uploaded, dict) else None
        if not isinstance(place, str):
            self.service.visitors.drop(visitor, kind)
            return "", False
        try:
            path = self.service.visitors.take(visitor, kind, place)
            report = self.service.inspect(kind, path=str(path))
            visitor.is_still = bool(report.get("still", visitor.is_still))
            return f"{path.name}: {report['text']}", False
        except UserError as error:
            self.service.visitors.drop(visitor, kind)
            folder = Path(place).resolve().parent
            return f"refused: {str(error).replace(f'{folder}{os.sep}', '')}", True

    def _no_people(self) -> Update:
        return {self.people: "", self.face_select: gr.Radio(choices=RULES, value=RULES[0])}

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.service.visitors.of(key_of(request))

    async def find_faces(
        self, request: gr.Request, checkpoint: str | None, rule: str, *given: Any
    ) -> AsyncIterator[Update]:
        """Draw and number the people of the video."""
        visitor = self._visitor(request)
        try:
            values = {**values_of(self.items, given), "face_select": RULES[0]}
            files = {"checkpoint_path": Path("not_needed"), "audio": Path("not_needed")}
            config = self._config(visitor, {**files, **values}, ("face",))
            folder = self._job_folder(visitor, config, ("face",))
            options = {**config.plain(), "face": str(_job_file(folder, "face", config))}
            job = Job(
                visitor=key_of(request),
                words=inspection.words("people", folder, {"options": options}),
                folder=folder,
                on_end=lambda job, done: _keep(job, done, folder / inspection.PICTURE, visitor),
            )
            self._submit(job)
        except UserError as error:
            yield {self.status: markup.note(str(error), bad=True)}
            return
        async for text in self._follow(job, "looking for faces"):
            yield {self.status: text, **self._busy(True)}
        update: Update = {self.status: self._end_of(job), **self._busy(False)}
        if job.state is State.DONE:
            people = job.report["people"]
            visitor.people_of = _numbering(config)
            names = [f"track:{person['number']}" for person in people]
            seen = (f"{p['number']} (from {p['seconds']:.2f} s)" for p in people)
            caption = f"found: {', '.join(seen)}" if people else "nobody was found"
            update |= {
                self.status: "",
                self.people: markup.image(job.result, caption) if job.result else "",
                self.face_select: gr.Radio(choices=[*RULES, *names], value=RULES[0]),
            }
        yield update

    async def lip_sync(
        self, request: gr.Request, checkpoint: str | None, rule: str, *given: Any
    ) -> AsyncIterator[Update]:
        """Run ``infer``, and show what it makes."""
        visitor = self._visitor(request)
        try:
            path = self.service.checkpoints.inside(checkpoint or "")
            values = {**values_of(self.items, given), "face_select": rule, "checkpoint_path": path}
            config = self._config(visitor, values, ("face", "audio"))
            if rule.startswith("track:") and visitor.people_of != _numbering(config):
                raise UserError(f"{rule}: options have changed who that is; find faces again")
            folder = self._job_folder(visitor, config, ("face", "audio"))
            face, audio = (_job_file(folder, kind, config) for kind in ("face", "audio"))
            outfile = folder / config.outfile
            own = replace(config, face=face, audio=audio, outfile=outfile)
            job = Job(
                visitor=key_of(request),
                words=["wav2lip_npu", "infer", *option_words(own)],
                folder=folder,
                on_end=lambda job, done: _keep(job, done, outfile, visitor),
            )
            self._submit(job)
        except UserError as error:
            yield {self.status: markup.note(str(error), bad=True)}
            return
        shown = replace(config, checkpoint_path=from_here(config.checkpoint_path))
        line = gr.Code(value=shell_line("infer", shown), visible=True)
        yield {self.line: line, self.result: "", **self._busy(True)}
        async for text in self._follow(job, "lip-sync"):
            yield {self.status: text}
        update: Update = {self.status: self._end_of(job), **self._busy(False)}
        if job.result is not None and "face" in visitor.uploads:
            source = visitor.uploads["face"]
            update[self.result] = markup.side_by_side(
                source, still=visitor.is_still, result=job.result
            )
        yield update

    def end_job(self, request: gr.Request) -> None:
        """Cancel this page's job."""
        self.service.queue.cancel(key_of(request))

    def _config(
        self, visitor: Visitor, values: Mapping[str, Any], kinds: tuple[str, ...]
    ) -> InferConfig:
        """The options as one would type them where the files are.

        Raises:
            UserError: an upload is missing, or a value is not allowed.
        """
        if "face" not in visitor.uploads:
            raise UserError("first give a video or picture")
        if "audio" in kinds and "audio" not in visitor.uploads:
            raise UserError("first give a voice")
        names = {kind: Path(visitor.uploads[kind].name) for kind in kinds}
        stems = (name.stem[:MAX_STEM_CHARACTERS] for name in names.values())
        outfile = Path("_".join((*stems, "lip_synced.mp4")))
        device = self.service.config.device
        return InferConfig(**{**values, **names, "outfile": outfile, "device": device})

    def _job_folder(self, visitor: Visitor, config: InferConfig, kinds: tuple[str, ...]) -> Path:
        """A folder for a job, with the uploads, which the visitor may replace meanwhile."""
        folder = self.service.private / "jobs" / secrets.token_hex(8)
        for kind in kinds:
            upload = visitor.uploads[kind]
            (folder / kind).mkdir(parents=True)
            try:
                os.link(upload, folder / kind / upload.name)
            except OSError:  # a file system without links
                shutil.copyfile(upload, folder / kind / upload.name)
        return folder

    def _submit(self, job: Job) -> None:
        try:
            self.service.queue.submit(job)
        except UserError:
            shutil.rmtree(job.folder)
            raise

    async def _follow(self, job: Job, what: str) -> AsyncIterator[str]:
        """Tell how far a job is until it ends."""
        shown = None
        while not job.is_over:
            ahead = self.service.queue.ahead(job)
            if job.state is State.WAITING:
                text = markup.note(f"waiting; jobs before this one: {ahead}")
            else:
                text = _how_far(job, what)
            if text != shown:
                yield text
            shown = text
            await asyncio.sleep(CHECK_SECONDS)

    def _end_of(self, job: Job) -> str:
        if job.state is State.FAILED:
            return markup.note(job.error.replace(f"{job.folder}{os.sep}", ""), bad=True)
        return markup.note("cancelled" if job.state is State.CANCELLED else "done")

    def _busy(self, busy: bool) -> Update:
        return {
            self.find: gr.Button(interactive=not busy),
            self.run: gr.Button(interactive=not busy),
            self.cancel: gr.Button(interactive=busy),
        }


def _how_far(job: Job, what: str) -> str:
    line = job.progress
    if line is None:
        return markup.note(f"{what} …")
    share = line.done / line.total if line.total else None
    return markup.bar(format_line(line), share)


def _help(name: str) -> str:
    text: str = InferConfig.__dataclass_fields__[name].metadata["help"]
    return text


def _job_file(folder: Path, kind: str, config: InferConfig) -> Path:
    """Where a job has the file of an option."""
    path: Path = folder / kind / getattr(config, kind).name
    return path


def _numbering(config: InferConfig) -> tuple[Any, ...]:
    return (config.face, *(getattr(config, name) for name in NUMBERING))


def _keep(job: Job, done: bool, file: Path, visitor: Visitor) -> None:
    """Give a visitor the file that a job has made, and remove the rest of its folder."""
    if done and visitor.folder.is_dir():
        job.result = visitor.folder / f"{secrets.token_hex(4)}" / file.name
        job.result.parent.mkdir()
        file.rename(job.result)
        if (job.folder / inspection.REPORT).exists():
            job.report = inspection.read_report(job.folder)
    shutil.rmtree(job.folder, ignore_errors=True)
