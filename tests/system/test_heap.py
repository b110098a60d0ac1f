"""Whether freed memory is returned to the system, measured in a process of its own."""

import os
import subprocess
import sys

import pytest

from pellucid.system import heap

PROGRAM = """
import resource
import psutil
import torch
from pellucid.system import heap, memory

def limit_addresses(num_bytes):
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + num_bytes,) * 2)

def count_kept():
    before = memory.used_bytes()
    torch.ones(2**24)  # 64 MiB: by default, glibc gives up to 32 MiB from its heap
    return memory.used_bytes() - before

find_free_bytes = memory.free_bytes
memory.free_bytes = lambda: FREE
before = count_kept()
with heap.keeping():
    with heap.keeping():
        heap.keep_freed(2)
    kept = count_kept()
    heap.trim_unkept()
    taken = memory.used_bytes()
print(before > 50e6, kept > 50e6, taken - memory.used_bytes() > 50e6, count_kept() > 50e6)
"""

LIMITED = """
import torch
from pellucid.system import heap, memory

memory.free_bytes = lambda: 2**40
with heap.keeping():
    heap.keep_freed()
    blocks = [torch.ones(2**24) for _ in range(NUM)]
    blocks = blocks[-1:]  # at the end of the heap
    before = memory.used_bytes()
    heap.limit_kept()
    returned = before - memory.used_bytes()
print(returned > 64e6 * (NUM - 2))
"""

pytestmark = pytest.mark.skipif(
    not hasattr(heap._C_LIBRARY, "mallopt"), reason="only glibc can be told to keep freed memory"
)


def run(program: str, **environment: str) -> list[str]:
    variables = {key: value for key, value in os.environ.items() if key not in heap._ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout.split()


def test_freed_memory_is_kept_until_the_outermost_context_ends() -> None:
    assert run(PROGRAM.replace("FREE", "2**40")) == ["False", "True", "True", "False"]


@pytest.mark.parametrize(
    ("free", "environment"),
    [
        ("6 * heap._peak_bytes() - 1", {}),
        ("limit_addresses(5 * heap._peak_bytes()) or find_free_bytes()", {}),
        ("2**40", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
    ],
    ids=["memory is scarce", "addresses are scarce", "the user decides"],
)
def test_freed_memory_is_not_kept(free: str, environment: dict[str, str]) -> None:
    assert run(PROGRAM.replace("FREE", free), **environment) == ["False"] * 4


def test_nothing_is_kept_outside_of_the_context() -> None:
    program = PROGRAM.replace("with heap.keeping():", "if True:").replace("FREE", "2**40")
    assert run(program) == ["False"] * 4


def test_a_limit_of_free_memory_counts() -> None:
    program = PROGRAM.replace("FREE", "2**40").replace("keep_freed(2)", "keep_freed(free_bytes=BOUND)")
    limit = "3 * heap._peak_bytes()"
    assert run(program.replace("BOUND", f"{limit} - 1")) == ["False"] * 4
    assert run(program.replace("BOUND", limit))[1] == "True"


def test_one_of_several_processes_does_not_decide_for_all() -> None:
    program = PROGRAM.replace("FREE", "4 * heap._peak_bytes()")
    assert run(program)[1] == "False"
    assert run(program.replace("heap.keep_freed(2)", "heap.keep_freed(2); heap.keep_freed()"))[1] == "False"
    assert run(program.replace("heap.keep_freed(2)", "heap.keep_freed()"))[1] == "True"


@pytest.mark.parametrize(("num_blocks", "is_returned"), [(4, "False"), (30, "True")])
def test_not_more_is_kept_than_three_times_what_was_taken(num_blocks: int, is_returned: str) -> None:
    assert run(LIMITED.replace("NUM", str(num_blocks))) == [is_returned]  # of 64 MiB, in addition to PyTorch
