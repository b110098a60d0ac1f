"""Each result is made by one process, whatever happens to the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.restoration.claims import NAME, Claims

HOLD = """
import sys
from pathlib import Path
from pellucid.restoration.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take(sys.argv[2]), flush=True)
sys.stdin.readline()
claims.close()
"""


def _holding(folder: Path, key: str) -> subprocess.Popen[str]:
    """Another process that has claimed a key."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


def test_a_claim_of_another_process_is_respected_until_it_ends(tmp_path: Path) -> None:
    other, own = _holding(tmp_path, "a.png"), Claims(tmp_path)
    assert not own.take("a.png") and own.take("b.png") and own.take("b.png")
    own.close()
    assert (tmp_path / NAME).exists()  # the other process uses it
    other.communicate("\n", timeout=30)
    assert not (tmp_path / NAME).exists()
    assert own.take("a.png")
    own.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_has_no_claims(tmp_path: Path) -> None:
    other, own = _holding(tmp_path, "a.png"), Claims(tmp_path)
    assert not own.take("a.png")
    other.kill()
    other.communicate(timeout=30)
    assert own.take("a.png")
    own.close()
    assert list(tmp_path.iterdir()) == []


def test_a_released_result_can_be_claimed(tmp_path: Path) -> None:
    own = Claims(tmp_path / "out")
    assert own.take("a.png")
    own.release("a.png")
    other = _holding(tmp_path / "out", "a.png")
    assert not own.take("a.png")
    other.communicate("\n", timeout=30)
    own.close()


def test_a_folder_without_results_is_removed_again(tmp_path: Path) -> None:
    own = Claims(tmp_path / "out")
    assert own.take("a.png") and (tmp_path / "out").is_dir()
    own.close()
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there, an open file cannot be removed")
def test_a_file_that_another_process_removes_is_made_again(tmp_path: Path) -> None:
    own = Claims(tmp_path)
    assert own.take("a.png")
    (tmp_path / NAME).unlink()
    assert own.take("b.png") and (tmp_path / NAME).exists()
    own.close()


def test_where_nothing_can_be_locked_every_claim_is_granted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    assert Claims(tmp_path / "file").take("a.png")
