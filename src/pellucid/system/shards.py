"""A split of work among processes that do not know each other: cluster arrays, indexed jobs, or a shell loop."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from pellucid.errors import ArgumentError
from pellucid.system.arguments import check_fields, checks_methods


@checks_methods()
@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the work; `number` starts at 1.

    What belongs to a part depends only on names, so that every process finds the same split on its own.

    Raises ArgumentError for a number outside 1 to count.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        check_fields(self)
        if self.count < 1:
            raise ArgumentError(f"a split into {self.count} shards is not possible", hint="use 1 or more")
        if not 1 <= self.number <= self.count:
            raise ArgumentError(
                f"shard {self.number}/{self.count} does not exist",
                hint=f"shards are numbered from 1/{self.count} to {self.count}/{self.count}",
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def label(self) -> str:
        """As part of a file name, e.g. 3-of-16."""
        return f"{self.number}-of-{self.count}"

    def takes(self, name: str) -> bool:
        """Whether this shard does the work with this name, e.g. the path of a file inside its folder."""
        digest = sha256(name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Self:
        """A shard from "3/16", or from the variables that a cluster sets: "env", or "env/16" for 16 shards.

        Raises ArgumentError if the text has another form, a variable is missing, or there is no such shard.
        """
        match = re.fullmatch(r"(env|\d{1,9})(?:/(\d{1,9}))?", text.strip(), re.ASCII)
        if match is None or (match[1] != "env" and match[2] is None):
            raise ArgumentError(
                f"{text[:40]!r} is not a shard", hint="{shard} is I/N, e.g. 3/16 from 1/16 to 16/16, or env"
            )
        count = None if match[2] is None else int(match[2])
        if match[1] != "env":
            assert count is not None
            return cls(int(match[1]), count)
        return cls(*_read_environment(environment, count))


@dataclass(frozen=True)
class _Scheduler:
    """The variables in which a scheduler states the index of a task and the number of tasks.

    first: the variable of the first index, or that index. step: between two indices. count: None if it is not set.
    """

    name: str
    index: str
    count: str | None
    first: str | int = 0
    step: str | None = None


_SCHEDULERS = (
    _Scheduler(
        "Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"
    ),
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", None),
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("Google Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    _Scheduler("Google Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
)


def _read_environment(environment: Mapping[str, str], given: int | None) -> tuple[int, int]:
    """The number of this shard, and how many there are. given: the number of shards, if it was given."""
    found = [scheduler for scheduler in _SCHEDULERS if scheduler.index in environment]
    if not found:
        names = ", ".join(f"{scheduler.index} ({scheduler.name})" for scheduler in _SCHEDULERS)
        raise ArgumentError(f"this is not a task of an array: none of {names} is set", hint="give {shard} as I/N")
    if len(found) > 1:
        names = " and ".join(scheduler.index for scheduler in found)
        raise ArgumentError(f"{names} are both set; one of them counts the shards", hint="give {shard} as I/N")
    scheduler = found[0]
    first = _read_number(environment, scheduler, scheduler.first)
    has_step = scheduler.step is not None and scheduler.step in environment
    step = _read_number(environment, scheduler, scheduler.step) if has_step else 1
    index = _read_number(environment, scheduler, scheduler.index)
    counted = None
    if scheduler.count is not None and (given is None or scheduler.count in environment):
        counted = _read_number(environment, scheduler, scheduler.count)
    count = counted if given is None else given
    if count is None:
        raise ArgumentError(
            f"{scheduler.index} is {index}, but {scheduler.name} does not state how many shards there are",
            hint="add their number: {shard} env/N",
        )
    if counted is not None and counted != count:
        raise ArgumentError(
            f"{scheduler.count} is {counted}, but {count} shards are asked for", hint="omit the number"
        )
    number, rest = divmod(index - first, max(1, step))
    if rest or not 0 <= number < count:
        raise ArgumentError(
            f"{scheduler.index} is {index}, which is not one of {count} indices in a row from {first} on",
            hint="give {shard} as I/N, from 1/N to N/N",
        )
    return number + 1, count


def _read_number(environment: Mapping[str, str], scheduler: _Scheduler, name: str | int | None) -> int:
    """The value of a variable of a scheduler, or a number that needs none."""
    if isinstance(name, int):
        return name
    assert name is not None
    text = environment.get(name)
    if text is None:
        raise ArgumentError(
            f"{scheduler.index} is set, but {name} is missing, which {scheduler.name} sets for an array",
            hint="give {shard} as I/N",
        )
    if re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII) is None:
        raise ArgumentError(f"{name} is {text[:40]!r}; a whole number is needed", hint="give {shard} as I/N")
    return int(text)
