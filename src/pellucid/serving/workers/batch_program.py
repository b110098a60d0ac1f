"""`pellucid restore` as a process of the service: `python -m pellucid.serving.workers.batch_program restore ...`.

When its standard input ends, it stops as after SIGTERM: it finishes the pictures in progress, so that others can
claim the rest immediately. So it never survives the service for long.
"""

import os
import runpy
import signal
import sys
import threading
import time

END_S = 30.0
"""How long the pictures in progress may take after that; then the process is killed."""


def run_batch_program() -> None:
    """Run the command line of the arguments until its end, or that of the input."""
    threading.Thread(target=_stop_with_input, daemon=True).start()
    runpy.run_module("pellucid", run_name="__main__", alter_sys=True)


def _stop_with_input() -> None:
    main = threading.main_thread().ident
    while os.read(0, 1024):  # not sys.stdin, whose lock would still be held when the interpreter ends
        pass
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(END_S)
    os._exit(1)


if __name__ == "__main__":
    sys.argv[0] = "pellucid"
    run_batch_program()
