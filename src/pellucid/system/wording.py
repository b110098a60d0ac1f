"""Words of messages."""

from collections.abc import Sequence


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 picture", "2,000 pictures", "3 indices" with plural="indices"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def format_bytes(num_bytes: int) -> str:
    """An amount of memory: "4300 MB", or "10 bytes" if it is less than one."""
    return f"{num_bytes // 10**6} MB" if num_bytes >= 10**6 else format_count(num_bytes, "byte")


def describe_left_out(left_out: Sequence[tuple[str, str]], num_all: int, noun: str = "file") -> str:
    """How many were left out, and why the first one was: "2 of 3 files left out, e.g. a.png: it is damaged".

    left_out: at least one name, each with the reason. num_all: how many there are, with those left out.
    """
    name, reason = left_out[0]
    example = reason if name in reason else f"{name}: {reason}"
    return f"{len(left_out):,} of {format_count(num_all, noun)} left out, e.g. {example}"
