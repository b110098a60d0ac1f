"""The command `pellucid`, also as `python -m pellucid`."""

import _signal  # not signal, which takes 5 ms to load; until the handlers are set, Python prints tracebacks
import os


def _exit(number: int, _: object) -> None:
    os._exit(128 + number)


def main() -> None:
    """Run the command line. Ctrl-C leaves no traceback while its modules are loaded, and after its end."""
    for number in (_signal.SIGINT, _signal.SIGTERM):
        if _signal.getsignal(number) != _signal.SIG_IGN:  # as under nohup
            _signal.signal(number, _exit)
    from pellucid import cli

    cli.main()


if __name__ == "__main__":
    main()
