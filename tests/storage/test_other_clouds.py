"""gs:// and az:// against servers of this computer: conditions, listings, metadata, and errors in one line."""

from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from azure_server import AzureServer
from gcs_server import google_server
from pellucid.errors import OutputError, StorageError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import leases, planning
from pellucid.restoration.leases import Leases
from pellucid.restoration.restore import iter_restore, restore
from pellucid.restoration.restorer import load
from pellucid.storage import clients, objects
from pellucid.storage.ownership import Ownership
from pellucid.storage.urls import Url, locate


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    try:
        server = AzureServer(tmp_path_factory.mktemp("azure"))
    except RuntimeError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(params=["gs", "az"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Url]:
    """An empty folder in a bucket, which the environment leads to."""
    scheme = request.param
    if scheme == "az":
        environment = request.getfixturevalue("azure").environment()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield _url(f"az://pictures/{request.node.name}")
        return
    with google_server(tmp_path) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield _url(f"gs://pictures/{request.node.name}")


def _url(text: str) -> Url:
    url = locate(text)
    assert isinstance(url, Url)
    return url


def test_content_and_metadata_come_back(folder: Url, tmp_path: Path) -> None:
    url = folder / "a b%20?#.bin"
    tag = objects.put(b"0123456789", url, attributes={"pellucid": "abc"})
    assert objects.read(url) == (b"0123456789", tag) and objects.stat(url) == tag
    assert objects.read_range(url, 2, 5) == (b"234", tag)
    assert objects.read_attribute(url, "pellucid") == "abc"
    assert objects.fetch(url, tmp_path / "copy") == tag and (tmp_path / "copy").read_bytes() == b"0123456789"
    ((found),) = objects.list_objects(folder)
    assert found == url and found.tag == tag
    objects.delete(url)
    assert objects.stat(url) is None and not objects.contains_objects(folder)


def test_large_files_are_stored_in_parts(folder: Url, tmp_path: Path) -> None:
    path, url = tmp_path / "large", folder / "large"
    path.write_bytes(b"0123456789abcdef" * 2**20 + b"end")
    assert objects.put(path, url).size_bytes == path.stat().st_size
    assert md5(objects.read(url)[0]).digest() == md5(path.read_bytes()).digest()


def test_conditions_are_enforced(folder: Url) -> None:
    url = folder / "x"
    tag = objects.put_new(b"first", url)
    with pytest.raises(OutputError, match=r"/x exists; overwrite=True"):
        objects.put_new(b"second", url)
    assert objects.put_new(b"first", url) == tag  # a repeated request, whose first answer was lost
    second = objects.put(b"second", url, e_tag=tag.e_tag)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"third", url, e_tag=tag.e_tag)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"third", folder / "none", e_tag=tag.e_tag)
    assert objects.read(url) == (b"second", second)
    assert objects.put(b"second", url, e_tag=tag.e_tag) == second


def test_a_change_between_look_and_update_is_noticed(folder: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    url = folder / "x"
    tag = objects.put_new(b"first", url)
    put = obstore.put

    def put_late(store: Any, key: str, content: bytes, **keywords: Any) -> Any:
        monkeypatch.setattr(obstore, "put", put)
        objects.put(b"of another", url)
        return put(store, key, content, **keywords)

    monkeypatch.setattr(obstore, "put", put_late)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"second", url, e_tag=tag.e_tag)
    assert objects.read(url)[0] == b"of another"


def test_folders_have_one_owner_and_results_one_claim(folder: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ownership(folder, "trained")
    first.take(print)
    first.confirm()
    first.release()
    second = Ownership(folder, "trained")
    second.take(print)
    assert second.number == 2
    second.release()

    monkeypatch.setattr(leases, "LEASE_S", 0.0)
    mine, other = Leases(folder), Leases(folder)
    assert mine.take("a") and not other.take("a")
    assert other.take("a"), "a claim that has expired, by this process's clock, is taken over"
    mine.close()
    other.close()


def test_pictures_are_restored_once(folder: Url, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        images.write(Picture(rng.integers(0, 256, (20, 31, 3), np.uint8)), tmp_path / "in" / f"{name}.png")
        objects.put((tmp_path / "in" / f"{name}.png"), folder / "in" / f"{name}.png")
    restorer = load("srcnn-x2", device="cpu")
    restore(tmp_path / "in", restorer, tmp_path / "one")
    jobs = planning.plan(str(folder / "in"), str(folder / "out"), model=restorer.name)
    assert [outcome.error for outcome in iter_restore(jobs, restorer)] == [None, None]
    for name in ("a.png", "b.png"):
        assert objects.read(folder / "out" / name)[0] == (tmp_path / "one" / name).read_bytes()
    jobs = planning.plan(str(folder / "in"), str(folder / "out"), model=restorer.name)
    assert all(outcome.is_skipped for outcome in iter_restore(jobs, restorer))


def test_failures_are_one_line(folder: Url) -> None:
    missing = _url(f"{folder.scheme}://no-such-bucket/x")
    for use in (lambda: objects.put(b"x", missing), lambda: objects.read(missing)):
        with pytest.raises(StorageError) as caught:
            use()
        place = f"the bucket {folder.scheme}://no-such-bucket"
        assert str(caught.value) == f"{place} does not exist; check its name, the account and the endpoint"
    with pytest.raises(StorageError, match="does not exist; check the name"):
        objects.read(folder / "none")


def test_wrong_keys_and_names_at_azure(azure: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="the bucket az://Bad_Name does not exist"):
        objects.put(b"x", _url("az://Bad_Name/x"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.raises(StorageError, match="is not permitted; check the credentials"):
        objects.put(b"x", _url("az://pictures/x"))


@pytest.mark.parametrize(
    ("scheme", "variable", "allowing"),
    [("az", "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP"), ("gs", "GOOGLE_BASE_URL", "GOOGLE_ALLOW_HTTP")],
)
def test_other_computers_need_encryption(
    monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str, allowing: str
) -> None:
    monkeypatch.setenv(variable, "http://storage.example/account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    with pytest.raises(StorageError, match=f"is not encrypted; use https://, or set {allowing}=true"):
        clients.open_store(_url(f"{scheme}://pictures/x"))
    monkeypatch.setenv(allowing, "true")
    clients.open_store(_url(f"{scheme}://pictures/x"))
