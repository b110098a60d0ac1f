"""The split of work by names, and the variables of clusters."""

import subprocess
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import ArgumentError
from pellucid.system.shards import Shard


@given(st.integers(1, 40), st.lists(st.text(), max_size=30))
def test_each_name_belongs_to_exactly_one_shard(count: int, names: list[str]) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert all(sum(shard.takes(name) for shard in shards) == 1 for name in names)


def test_shards_are_about_equally_large() -> None:
    count = Counter(next(i for i in range(1, 17) if Shard(i, 16).takes(f"scan-{n}.png")) for n in range(16_000))
    assert min(count.values()) > 900 and max(count.values()) < 1100  # three standard deviations are 92


def test_the_split_is_the_same_in_every_process() -> None:
    """The values of `printf NAME | sha256sum`: the first 8 bytes, modulo 16."""
    digest = subprocess.run(["sha256sum"], input=b"a/b.png", check=True, capture_output=True).stdout.decode()
    expected = int(digest[:16], 16) % 16 + 1
    assert [i for i in range(1, 17) if Shard(i, 16).takes("a/b.png")] == [expected]


SLURM = {"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MIN": "0"}


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("3/16", {}, "3/16"),
        ("3/16", SLURM, "3/16"),
        ("env", SLURM, "7/16"),
        ("env/16", SLURM, "7/16"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_MIN": "1"}, "6/16"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_STEP": "2"}, "4/16"),
        ("env/4", {"JOB_COMPLETION_INDEX": "3"}, "4/4"),
        ("env", {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}, "1/5"),
        ("env/5", {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, "1/5"),
        ("env", {"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "2"}, "2/2"),
        ("env", {"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"}, "2/2"),
    ],
)
def test_parsing(text: str, environment: dict[str, str], shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(Shard.parse(text, environment)) == shard
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(Shard.parse(text)) == shard  # the real environment, which takes texts only


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3", {}, "'3' is not a shard; shard is I/N"),
        ("3/0", {}, "a split into 0 shards"),
        ("0/16", {}, "shard 0/16 does not exist; shards are numbered from 1/16 to 16/16"),
        ("17/16", {}, "shard 17/16 does not exist"),
        ("-1/16", {}, "is not a shard"),
        ("٣/16", {}, "is not a shard"),
        ("env", {}, "this is not a task of an array: none of SLURM_ARRAY_TASK_ID (Slurm), JOB_COMPLETION"),
        ("env", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is missing, which Slurm sets for an array"),
        ("env", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0"}, "SLURM_ARRAY_TASK_COUNT is missing"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_ID": "x"}, "SLURM_ARRAY_TASK_ID is 'x'; a whole number is needed"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_ID": "16"}, "not one of 16 indices in a row from 0 on"),
        ("env", SLURM | {"SLURM_ARRAY_TASK_STEP": "4"}, "not one of 16 indices in a row"),
        ("env/8", SLURM, "SLURM_ARRAY_TASK_COUNT is 16, but 8 shards are asked for"),
        ("env", {"JOB_COMPLETION_INDEX": "3"}, "Kubernetes does not state how many shards there are; add their"),
        ("env/3", {"JOB_COMPLETION_INDEX": "3"}, "not one of 3 indices"),
        ("env", {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, "AWS_BATCH_JOB_ARRAY_SIZE is missing"),
        ("env/4", SLURM | {"JOB_COMPLETION_INDEX": "3"}, "are both set"),
    ],
)
def test_what_is_wrong_is_one_clear_line(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        Shard.parse(text, environment)
    assert message in str(error.value)
