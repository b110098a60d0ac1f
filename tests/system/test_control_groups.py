"""Limits in folders like those of Linux, with the files of its documentation (cgroup-v1, cgroup-v2)."""

import os
from math import inf
from pathlib import Path

import pytest

from pellucid.system import control_groups, memory

SLURM_2 = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "fs")
    monkeypatch.setattr(control_groups, "_MEMBERSHIP", tmp_path / "membership")
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return tmp_path / "fs"


def join(root: Path, *memberships: str) -> None:
    (root.parent / "membership").write_text("".join(f"{line}\n" for line in memberships))


def write(folder: Path, **values: object) -> None:
    """Keyword a__b is the file a.b."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def write_memory_2(folder: Path, limit: object, used: int, stat: str = "anon 7", high: object = "max") -> None:
    write(folder, memory__max=limit, memory__high=high, memory__current=used, memory__stat=stat)


def test_no_groups_are_no_limits(root: Path) -> None:
    assert control_groups.allowed_bytes() == inf
    assert control_groups.count_processors() == 64


def test_the_limits_of_a_container(root: Path) -> None:
    join(root, "0::/")
    write_memory_2(root, 1_000_000, 400_000)
    write(root, cpu__max="250000 100000")
    assert control_groups.allowed_bytes() == memory.free_bytes() == 600_000
    assert control_groups.count_processors() == 3


def test_the_cache_of_files_is_free(root: Path) -> None:
    join(root, "0::/")
    write_memory_2(root, 1_000_000, 400_000, "anon 7\ninactive_file 200000\nactive_file 100000")
    assert control_groups.allowed_bytes() == 900_000


def test_a_limit_that_slows_a_service_down_counts(root: Path) -> None:
    join(root, "0::/")
    write_memory_2(root, "max", 400_000, high=500_000)  # MemoryHigh of systemd
    assert control_groups.allowed_bytes() == 100_000


def test_the_strictest_limit_of_all_groups_counts(root: Path) -> None:
    join(root, f"0::/{SLURM_2}")
    task = root / SLURM_2
    write_memory_2(task, "max", 100)
    write(task, cpu__max="max 100000")
    for folder, limit in ((task.parents[2], 1_000_000), (task.parents[3], 5_000_000)):
        write_memory_2(folder, limit, 400_000)
    write(task.parents[2], cpu__max="150000 50000")
    assert control_groups.allowed_bytes() == 600_000
    assert control_groups.count_processors() == 3


def test_version_1(root: Path) -> None:
    join(root, "4:memory:/slurm/uid_1/job_7", "3:cpu,cpuacct:/slurm", "1:name=systemd:/", "0::/")
    job = root / "memory/slurm/uid_1/job_7"
    stat = "inactive_file 1\ntotal_inactive_file 200000\ntotal_active_file 100000"
    write(job, memory__limit_in_bytes=1_000_000, memory__usage_in_bytes=400_000, memory__stat=stat)
    write(root / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=9, memory__stat=stat)
    write(root / "cpu/slurm", cpu__cfs_quota_us=50_000, cpu__cfs_period_us=100_000)
    write(root / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100_000)
    assert control_groups.allowed_bytes() == 900_000
    assert control_groups.count_processors() == 1


def test_a_container_of_version_1_sees_only_its_own_group(root: Path) -> None:
    join(root, "4:memory:/docker/1f2e", "3:cpu,cpuacct:/docker/1f2e")
    values = {"memory__limit_in_bytes": 1_000_000, "memory__usage_in_bytes": 900_000, "memory__stat": "cache 1"}
    write(root / "memory", **values)
    write(root / "cpu", cpu__cfs_quota_us=400_000, cpu__cfs_period_us=100_000)
    assert control_groups.allowed_bytes() == 100_000
    assert control_groups.count_processors() == 4


def test_a_process_above_its_limit_has_nothing_left(root: Path) -> None:
    join(root, "0::/")
    write_memory_2(root, 1_000_000, 1_400_000)
    assert memory.free_bytes() == 0


def test_a_quota_above_the_processors_is_no_limit(root: Path) -> None:
    join(root, "0::/")
    write(root, cpu__max="12800000 100000")
    assert control_groups.count_processors() == 64


@pytest.mark.parametrize("text", ["", "what", "1:2", "0::/../..\n"])
def test_odd_files_are_no_limits(root: Path, text: str) -> None:
    root.mkdir()
    (root.parent / "membership").write_text(text)
    write_memory_2(root / "x", "many", 0)
    write(root, cpu__max="fast")
    assert control_groups.allowed_bytes() == inf
    assert control_groups.count_processors() == 64


def test_files_and_lines_that_are_missing_or_odd_do_not_hide_a_limit(root: Path) -> None:
    join(root, "", "0::/")
    write(root, memory__max=1_000_000, memory__current=400_000)
    write(root, cpu__max="100000 0")
    assert control_groups.allowed_bytes() == 600_000
    assert control_groups.count_processors() == 64
