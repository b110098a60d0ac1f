"""Tables: objects by key, in the order in which they were added, however many."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pellucid.errors import OutputError
from pellucid.system import tables
from pellucid.system.tables import Table


def test_objects_are_found_by_key_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ADDED_AT_ONCE", 7)
    monkeypatch.setattr(tables, "_READ_AT_ONCE", 3)
    table = Table()
    assert not table and list(table) == [] and table.find("a") == []
    keys = ["a", "b ü", "\udcff.png", "c"] * 5
    for number, key in enumerate(keys):
        table.add(key, {"number": number, "key": key})
    assert table and [found["number"] for found in table] == [*range(20)]
    for key in keys:
        assert [found["key"] for found in table.find(key)] == [key] * 5
    assert [found["number"] for found in table.find("b ü")] == [1, 5, 9, 13, 17]


def test_threads_share_a_table() -> None:
    table = Table()

    def work(thread: int) -> int:
        for number in range(300):
            table.add(str(number), {"thread": thread})
        return len(table.find("7"))

    with ThreadPoolExecutor(4) as pool:
        assert all(1 <= found <= 4 for found in pool.map(work, range(4)))
    assert len(list(table)) == 1200 and {found["thread"] for found in table.find("7")} == {0, 1, 2, 3}


def test_a_full_disk_is_said() -> None:
    table = Table()
    table._database.execute("PRAGMA max_page_count = 5")
    with pytest.raises(OutputError, match="no space .* full; set the environment variable TMPDIR"):
        for number in range(2000):
            table.add(str(number), {"text": "x" * 100})
