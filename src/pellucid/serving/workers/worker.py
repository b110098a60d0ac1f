"""A process that reads, restores and shows pictures for the service: `python -m pellucid.serving.workers.worker`.

It takes commands as lines of JSON on its standard input, one after the other, and answers on its standard output
with lines that carry the id of the command: {"id": 7, "event": "progress", "done": 0.25}, and at the end one of
"done", "failed" or "cancelled". It ends when its input ends, so it never survives the service.

"failed" has a kind: "picture" (what the client sent is the cause), "option" (one is impossible), "memory",
"storage" (the disk is full), "model" (its weights cannot be loaded) or "fault" (of pellucid).
"""

import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from pellucid.errors import ArgumentError, NotEnoughMemoryError, PellucidError, RecipeError, WeightsError

Report = Callable[..., None]
"""Sends an event about the current command."""


class Worker:
    """The state of the process: the current command, and the loaded models.

    options: how models are loaded (device, backend, precision), and the memory limit.
    """

    def __init__(self, options: Mapping[str, Any], output: IO[str]) -> None:
        self.options, self._output = options, output
        self._commands: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._lock = threading.Lock()
        self._current: int | None = None
        self._cancelled: int | None = None
        self._restorers: dict[str, Any] = {}
        self._proven: set[tuple[str, str]] = set()
        self._views: Any = None

    def run(self) -> None:
        """Run commands until the input ends."""
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of a whole process group: the service decides
        threading.Thread(target=self._receive, daemon=True).start()
        self._send({"event": "ready"})
        while True:
            try:
                self._run_command(self._commands.get())
            except KeyboardInterrupt:  # a moment after its command had ended
                continue

    def _receive(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "cancel":
                self._cancelled = command["id"]
                os.kill(os.getpid(), signal.SIGINT)
            else:
                self._commands.put(command)
        os._exit(0)

    def _interrupt(self, *_: object) -> None:
        """Runs in the main thread, between two of its instructions."""
        if self._current is not None and self._current == self._cancelled:
            self._current = None
            raise KeyboardInterrupt

    def _run_command(self, command: dict[str, Any]) -> None:
        number = command["id"]
        self._current = number

        def report(event: str, **content: object) -> None:
            self._send({"id": number, "event": event, **content})

        kind, has_begun, is_sound = (command["do"], command.get("model", "")), False, True
        try:
            if number == self._cancelled:  # before it began
                raise KeyboardInterrupt
            has_begun = True
            result = _ACTIONS[command["do"]](self, command, report)
        except KeyboardInterrupt:
            # The first command of a kind imports modules; an interrupted import leaves broken ones behind.
            is_sound = not has_begun or kind in self._proven
            event: dict[str, Any] = {"event": "cancelled"}
        except Exception as error:  # of one picture: the next one is not affected
            event = {"event": "failed", **_describe_failure(error, command)}
            is_sound = event["kind"] != "fault"
        else:
            self._proven.add(kind)
            event = {"event": "done", "result": result}
        self._current = None
        state = {"rss_bytes": _used_bytes(), "models": [*self._restorers], "is_sound": is_sound}
        self._send({"id": number, **state, **event})

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._output.write(json.dumps(message) + "\n")
            self._output.flush()

    # Actions

    def restore(self, command: dict[str, Any], report: Report) -> dict[str, Any]:
        """Restore a file into a folder. Returns the name and what the user should know."""
        from pellucid.pictures import images
        from pellucid.restoration import restore
        from pellucid.restoration.planning import Job
        from pellucid.restoration.restorer import default_format
        from pellucid.restoration.settings import Settings

        source, options = Path(command["source"]), dict(command["options"])
        format = options.pop("format", None)
        exposure = options.pop("exposure_ratio", "auto")
        crop, size = options.pop("crop", None), options.pop("size", None)  # JSON has no tuples
        restorer = self._load(command["model"])
        format = format or default_format(restorer)
        target = Path(command["folder"]) / images.result_name(f"result{source.suffix}", format, source=source)
        settings = Settings(
            memory_bytes=self.options["memory_bytes"],
            max_pixels=self.options["max_pixels"],
            exposure=exposure,
            crop=None if crop is None else tuple(crop),
            size=None if size is None else tuple(size),
            **options,
        )
        (outcome,) = restore.restore(
            [Job(source, target)],
            restorer,
            settings=settings,
            workers=1,
            overwrite=True,
            progress=lambda position: report("progress", done=position.num_done),
        )
        outcome.raise_error()
        return {
            "file": target.name,
            "megapixels": outcome.megapixels,
            "seconds": outcome.seconds,
            "info": [_rename(note, command) for note in outcome.info],
            "warnings": [_rename(note, command) for note in outcome.warnings],
        }

    def _load(self, name: str) -> Any:
        from pellucid.restoration import restorer

        if name not in self._restorers:
            keys = {key: self.options[key] for key in ("device", "backend", "precision")}
            try:
                self._restorers[name] = restorer.load(name, **keys)
            except Exception as error:  # backends raise nearly every class; other models still work
                raise WeightsError(f"the model {name} cannot be loaded: {error}") from error
        return self._restorers[name]

    def inspect(self, command: dict[str, Any], report: Report) -> dict[str, Any]:
        """What a file is, from its header."""
        from pellucid.serving.workers import inspection

        return inspection.inspect(
            Path(command["source"]), self._open_views(), advise_among=command["advise_among"]
        )

    def view(self, command: dict[str, Any], report: Report) -> dict[str, int]:
        """Draw a part of a picture as a PNG that a browser can show."""
        source, target = Path(command["source"]), Path(command["target"])
        views = self._open_views()
        width, height = views.draw(source, target, box=command["box"], longest_px=command["longest_px"])
        return {"width": width, "height": height}

    def _open_views(self) -> Any:
        from pellucid.serving.workers.views import Views

        if self._views is None:
            self._views = Views(**{key: self.options[key] for key in ("max_pixels", "memory_bytes")})
        return self._views

    def list_models(self, command: dict[str, Any], report: Report) -> list[dict[str, Any]]:
        """All models that can be used, with what each is for."""
        from pellucid.serving.workers import inspection

        return inspection.describe_models()

    def check_options(self, command: dict[str, Any], report: Report) -> dict[str, Any] | None:
        """Why models cannot run with this device, backend and precision; None if they can."""
        from pellucid.backends import selection

        try:
            selection.check_options(*(self.options[key] for key in ("device", "backend", "precision")))
        except PellucidError as error:
            is_argument = isinstance(error, ArgumentError)
            return {"is_argument": is_argument, "facts": error.facts, "hint": error.hint, **error.parameters}
        return None

    def warm_up(self, command: dict[str, Any], report: Report) -> None:
        """Import what restoring needs, so that the first picture does not wait for it."""
        from pellucid.restoration import restore  # noqa: F401


_ACTIONS = {
    "restore": Worker.restore,
    "inspect": Worker.inspect,
    "view": Worker.view,
    "list_models": Worker.list_models,
    "check_options": Worker.check_options,
    "warm_up": Worker.warm_up,
}


_NO_SPACE = ("no space left", *(os.strerror(number).lower() for number in (errno.EDQUOT, errno.EROFS)))

_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")
"""The folders of an absolute path."""


def _describe_failure(error: Exception, command: Mapping[str, Any]) -> dict[str, Any]:
    """The kind of a failure, and one line about it that names the user's file."""
    from pellucid.restoration.pipeline import FAULT, to_pellucid_error

    known = to_pellucid_error(error, command.get("source", "the picture"))
    text = _rename(known.describe(_word_as_option), command)
    kinds = {
        "memory": isinstance(known, NotEnoughMemoryError),
        "option": isinstance(known, ArgumentError | RecipeError),
        "model": isinstance(known, WeightsError),
        "storage": any(words in text.lower() for words in _NO_SPACE),
        "fault": FAULT in text,
    }
    return {"kind": next((kind for kind, is_it in kinds.items() if is_it), "picture"), "message": text}


def _word_as_option(parameter: str, value: object) -> str:
    """A parameter as clients know it: options of the API have the same names, but no limit of memory."""
    if parameter == "memory_bytes":
        return f"a limit of {value / 1e6:.0f} MB" if isinstance(value, int) else "a larger limit"
    return parameter if value is None else f"{parameter}={value}"


def _rename(text: str, command: Mapping[str, Any]) -> str:
    """A message with the user's name of the file in place of its path here, and without any other folder."""
    name = command.get("name", "the picture")
    for path in (command.get("source"), command.get("target")):
        text = text.replace(str(path), name) if path else text
    if folder := command.get("folder"):
        text = re.sub(re.escape(str(folder)) + r"/[\w.]+", lambda _: name, text)
    text = " ".join(_FOLDERS.sub("", text).split())
    return text.removeprefix(f"{name}: ") if text.startswith(f"{name}: {name}") else text


def _used_bytes() -> int:
    from pellucid.system import memory

    return memory.used_bytes()


def run_worker() -> None:
    """Start: only this module writes to the standard output; anything that a library prints goes to the log."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Worker(json.loads(sys.argv[1]), output).run()


if __name__ == "__main__":
    run_worker()
