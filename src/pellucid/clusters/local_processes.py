"""Processes of this computer for a team: the part of Ray's interface that `team` uses, without Ray.

Calls and replies are pickled, through pipes that only this process and the one it has started can write: the
standard input and output of each process. It ignores Ctrl-C and SIGTERM, which its team handles; when its standard
input ends, because the team has ended, it finishes the items in progress and ends, too.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import suppress
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import IO, Any

from pellucid.errors import current_wording, use_wording

END_S = 30.0
"""How long the items in progress may take after the end of the team; then the process ends without them."""

_MAX_LINE_BYTES = 4096


class ProcessEndedError(Exception):
    """A process has ended, or a call in it has failed."""


class LocalProcesses:
    """Stands for the module `ray`. environment: variables of the processes that differ from those of this one."""

    exceptions = SimpleNamespace(RayError=ProcessEndedError)

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def start(self, make: Callable[[], Any]) -> "LocalProcess":
        """Start a process with one object, whose methods can be called."""
        return LocalProcess(make, self._environment)

    def wait(
        self, calls: Sequence["Future[Any]"], num_returns: int, timeout: float
    ) -> tuple[list["Future[Any]"], list["Future[Any]"]]:
        """(finished calls, others), when there is one, or all of them, or after `timeout` seconds."""
        wait(calls, timeout, FIRST_COMPLETED if num_returns == 1 else ALL_COMPLETED)
        return [call for call in calls if call.done()], [call for call in calls if not call.done()]

    def get(self, call: "Future[Any]") -> Any:
        """The result of a finished call. Raises ProcessEndedError."""
        return call.result()

    def kill(self, process: "LocalProcess") -> None:
        """End a process now."""
        process.kill()


class LocalProcess:
    """A process on this computer, with one object. Each method of the object has a method `remote` here.

    make: makes the object; pickled.
    """

    def __init__(self, make: Callable[[], Any], environment: Mapping[str, str]) -> None:
        self._messages: IO[bytes] = TemporaryFile()  # noqa: SIM115  # until the end of the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the team only
        )
        self._calls: list[Future[Any]] = []
        self._lock, self._end = threading.Lock(), ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send((current_wording(), make))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it now, and wait until it has ended."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with suppress(OSError):  # of a call that has not been sent
            self._process.stdin.close()

    def _call(self, name: str, arguments: tuple[Any, ...]) -> "Future[Any]":
        call: Future[Any] = Future()
        with self._lock:
            if not self._end:
                self._calls.append(call)
                self._send((name, arguments))
                return call
        call.set_exception(ProcessEndedError(self._end))
        return call

    def _send(self, content: object) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError):  # it has ended; `_read` notices it
            pickle.dump(content, pipe)
            pipe.flush()

    def _read(self) -> None:
        """Complete the calls, in order; when the process has ended, the others fail."""
        pipe = self._process.stdout
        assert pipe is not None
        with pipe, suppress(Exception):  # whatever is wrong with a reply, the calls must get an answer
            while True:
                error, result = pickle.load(pipe)
                with self._lock:
                    call = self._calls.pop(0)
                if error is None:
                    call.set_result(result)
                else:
                    call.set_exception(ProcessEndedError(error))
        self._process.kill()  # if it has only closed its output
        self._process.wait()
        with self._lock:
            self._end, unanswered = self._explain_end(), self._calls[:]
        self._messages.close()
        for call in unanswered:
            call.set_exception(ProcessEndedError(self._end))

    def _explain_end(self) -> str:
        """How the process ended, and the last line that it or a library has printed."""
        code = self._process.returncode
        if code is not None and code < 0:
            return f"it was killed by {_name_signal(-code)}"
        self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, self._messages.tell() - _MAX_LINE_BYTES))
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return f"it ended with exit code {code}" + (f": {lines[-1].strip()}" if lines else "")


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def serve_calls() -> None:
    """The process: read calls from standard input, and write replies to standard output, until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    calls, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be mixed with replies
    wording, make = pickle.load(calls)
    with use_wording(wording):  # what this process records is read by users of the program that has started it
        _answer_calls(calls, replies, make())


def _answer_calls(calls: IO[bytes], replies: IO[bytes], served: Any) -> None:
    with suppress(OSError):  # the team has ended
        while (call := _read_call(calls)) is not None:
            name, arguments = call
            reply: tuple[str | None, Any]
            try:
                reply = None, getattr(served, name)(*arguments)
            except Exception as error:  # the team decides what it means
                reply = f"{type(error).__name__}: {error}", None
            pickle.dump(reply, replies)
            replies.flush()
    _end(served)


def _read_call(calls: IO[bytes]) -> Any:
    """The next call; None at the end."""
    try:
        return pickle.load(calls)
    except (EOFError, pickle.UnpicklingError):  # the team was killed, perhaps in the middle of a call
        return None


def _end(served: Any) -> None:
    """Finish the items in progress, for END_S at most, and end the process."""
    timer = threading.Timer(END_S, os._exit, (1,))
    timer.daemon = True
    timer.start()
    with suppress(AttributeError, RuntimeError):  # nothing was opened
        served.finish()
    os._exit(0)  # replies to a team that has ended cannot be flushed


if __name__ == "__main__":
    serve_calls()
