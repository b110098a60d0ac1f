import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from pellucid.system import other_load
from pellucid.system.other_load import OtherLoad

PROGRAM = "import time\nwhile time.process_time() < 1: pass"


def test_the_time_of_others_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    busy, own = {"user": 50.0, "steal": 1.0, "idle": 0.0}, [20.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**busy))
    monkeypatch.setattr(other_load, "_own_s", lambda: own[0])
    load = OtherLoad()
    assert load.share() == 0
    now[0] += 10
    busy["user"], busy["idle"], own[0] = 70.0, 20.0, 36.0  # 40 s of four processors: 16 s own, 4 s of others
    assert load.share() == pytest.approx(0.1)
    busy["steal"] += 4
    assert load.share() == pytest.approx(0.2)
    own[0] = 99.0
    assert load.share() == 0


def test_another_process_is_another_program() -> None:
    load = OtherLoad()
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=100)
    assert load.share() > 0.5 / (os.cpu_count() or 1)
