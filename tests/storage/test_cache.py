from pathlib import Path

import pytest

from object_server import Bucket
from pellucid.errors import StorageError
from pellucid.storage import cache, objects, ownership
from pellucid.storage.urls import Tag, Url


@pytest.fixture(autouse=True)
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all objects that are fetched, into a cache of its own."""
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    names: list[str] = []
    fetch = objects.fetch

    def remember(url: Url, path: Path) -> Tag:
        names.append(url.name)
        return fetch(url, path)

    monkeypatch.setattr(objects, "fetch", remember)
    return names


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_paths_are_themselves(tmp_path: Path) -> None:
    assert cache.as_local(tmp_path) == tmp_path and cache.as_local("a/b") == Path("a/b")


def test_a_folder_is_fetched_once_and_follows_the_bucket(bucket: Bucket, fetched: list[str]) -> None:
    for name in ("a.png", "deep/b 50%.png", "deep/.hidden", ".pellucid/x"):
        bucket.put(f"set/{name}", name.encode())
    positions: list[tuple[int, int]] = []
    folder = cache.as_local(f"{bucket.url}/set", lambda done, total: positions.append((done, total)))
    assert folder.name == "set" and positions[-1] == (19, 19)
    assert _content(folder) == {"a.png": b"a.png", "deep/b 50%.png": b"deep/b 50%.png"}
    fetched.clear()
    assert cache.as_local(f"{bucket.url}/set/") == folder and fetched == []
    bucket.put("set/a.png", b"other")
    bucket.put("set/c.png", b"c")
    bucket.server.request("DELETE", f"{bucket.url.removeprefix('s3://pictures/')}/set/deep/b 50%.png")
    assert _content(cache.as_local(f"{bucket.url}/set")) == {"a.png": b"other", "c.png": b"c"}
    assert sorted(fetched) == ["a.png", "c.png"]


def test_an_interrupted_copy_continues(
    bucket: Bucket, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        bucket.put(f"set/{name}", name.encode() * 100)
    monkeypatch.setattr(cache, "NUM_PARALLEL", 1)
    with monkeypatch.context() as patch:
        fetch = objects.fetch

        def fail(url: Url, path: Path) -> Tag:
            if url.name == "b":
                path.write_bytes(b"half of")
                raise StorageError("gone")
            return fetch(url, path)

        patch.setattr(objects, "fetch", fail)
        with pytest.raises(StorageError, match="gone"):
            cache.as_local(f"{bucket.url}/set")
    fetched.clear()
    assert _content(cache.as_local(f"{bucket.url}/set")) == {name: name.encode() * 100 for name in "abc"}
    assert "a" not in fetched


def test_a_file_keeps_its_name(bucket: Bucket, fetched: list[str]) -> None:
    bucket.put("net.xml", b"<net>")
    bucket.put("net.bin", b"weights")
    path = cache.as_local(f"{bucket.url}/net.xml")
    assert path.name == "net.xml" and path.read_bytes() == b"<net>"
    assert path.with_name("net.bin").read_bytes() == b"weights"
    assert cache.as_local(f"{bucket.url}/net.xml") == path and len(fetched) == 2


def test_what_does_not_exist_or_fit_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="/none does not exist; check the name"):
        cache.as_local(f"{bucket.url}/none")
    bucket.put("x", b"x")
    usage = type("Usage", (), {"free": 2**27})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"needs 0\.0 GB in .*, where 0\.1 GB are free; free some space"):
        cache.as_local(f"{bucket.url}/x")
    monkeypatch.setenv("PELLUCID_CACHE", "/dev/null/x")
    with pytest.raises(StorageError, match="cannot be copied to /dev/null/x.*; set the environment variable"):
        cache.as_local(f"{bucket.url}/x")


def test_models_and_evaluations_work_with_urls(album: Path, bucket: Bucket) -> None:
    import pellucid
    from pellucid.weights.models import find_model

    (album / "broken.png").unlink()
    bucket.upload(album, "Set 3")
    model = find_model("dncnn-gray-25")
    bucket.put("models/my+model.safetensors", model.read_bytes())
    url = f"{bucket.url}/models/my+model.safetensors"
    here = pellucid.evaluate(pellucid.load(model), album)
    there = pellucid.evaluate(pellucid.load(url), f"{bucket.url}/Set 3")
    assert there.model == "my+model"
    assert [score.psnr_db for score in here.scores] == [score.psnr_db for score in there.scores]
    bucket.put("models/mine.safetensors", model.read_bytes())
    assert pellucid.load(f"{bucket.url}/models/mine.safetensors+srcnn-x2").name == "mine+srcnn-x2"


def test_stores_are_made_of_buckets_and_for_them(album: Path, bucket: Bucket, tmp_path: Path) -> None:
    import pellucid
    from pellucid.data import store

    (album / "broken.png").unlink()
    bucket.upload(album, "in")
    expected = pellucid.prepare("folder", [album], tmp_path / "store").store
    made = pellucid.prepare("folder", [f"{bucket.url}/in"], f"{bucket.url}/store").store
    assert made.fingerprint == expected.fingerprint
    copy = store.open(cache.as_local(f"{bucket.url}/store"))
    assert copy.fingerprint == expected.fingerprint and copy.check() == []
    assert pellucid.prepare("folder", [album], f"{bucket.url}/store").store.fingerprint == expected.fingerprint
    (album / "a.png").unlink()
    with pytest.raises(pellucid.OutputError):
        pellucid.prepare("folder", [album], f"{bucket.url}/store")
    smaller = pellucid.prepare("folder", [album], f"{bucket.url}/store", overwrite=True).store
    assert store.open(cache.as_local(f"{bucket.url}/store")).fingerprint == smaller.fingerprint


def test_another_computer_finds_a_finished_store(
    album: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. if a process is killed once its upload is complete, and the command is repeated elsewhere."""
    import pellucid
    from pellucid.data import preparing

    (album / "broken.png").unlink()
    bucket.upload(album, "in")
    made = pellucid.prepare("folder", [f"{bucket.url}/in"], f"{bucket.url}/store").store
    index = bucket.get("store/index.json")
    (tmp_path / "cache").rename(tmp_path / "first computer")
    monkeypatch.setattr(preparing, "_decode_all", lambda tasks, *_: [] if not tasks else pytest.fail("decoded"))
    again = pellucid.prepare("folder", [f"{bucket.url}/in"], f"{bucket.url}/store")
    assert again.num_decoded == 0 and again.store.fingerprint == made.fingerprint and again.store.check() == []
    with pytest.raises(pellucid.OutputError, match=rf"{bucket.url}/store is a store made with other settings"):
        pellucid.prepare("folder", [f"{bucket.url}/in"], f"{bucket.url}/store", min_px=2)
    bucket.put("in/new.png", (album / "a.png").read_bytes())
    with pytest.raises(pellucid.OutputError, match=rf"{bucket.url}/store is finished, but 1 .*, e.g. new.png"):
        pellucid.prepare("folder", [f"{bucket.url}/in"], f"{bucket.url}/store")
    assert bucket.get("store/index.json") == index


def test_a_store_that_another_computer_has_made_in_the_meantime_is_kept(
    album: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pellucid
    from pellucid.data import preparing
    from pellucid.data.store_upload import start_upload

    (album / "broken.png").unlink()
    for url in ("same", "other"):
        pellucid.prepare("folder", [album], f"{bucket.url}/{url}", workers=1)
    (tmp_path / "cache").rename(tmp_path / "first computer")
    monkeypatch.setattr(
        "pellucid.data.preparing.start_upload", lambda *place, overwrite: start_upload(*place, overwrite=True)
    )
    index = bucket.get("same/index.json")
    decode = preparing._decode_all
    monkeypatch.setattr(preparing, "_decode_all", lambda tasks, *rest: decode(tasks[::-1], *rest))
    pellucid.prepare("folder", [album], f"{bucket.url}/same", workers=1)
    assert bucket.get("same/index.json") == index
    (album / "a.png").unlink()
    with pytest.raises(pellucid.OutputError, match="/other contains another store; overwrite=True replaces it"):
        pellucid.prepare("folder", [album], f"{bucket.url}/other")


def test_waiting_for_another_upload_is_said(album: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import pellucid

    monkeypatch.setattr(ownership, "LEASE_S", 0.2)
    owner = '{"number": 3, "host": "node7", "has_ended": false, "process": "x"}'
    bucket.put("store/.owner.json", owner.encode())
    lines: list[str] = []
    pellucid.prepare("folder", [album], f"{bucket.url}/store", log=lines.append)
    assert lines == [f"{bucket.url}/store was uploaded on node7 and did not end there; waiting up to 0 s"]
    assert bucket.exists("store/index.json")
