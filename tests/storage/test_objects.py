"""Against a real server: what is stored, on which condition, and what is said of failures."""

import http.server
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

import pytest

from object_server import Bucket
from pellucid.errors import MissingExtraError, OutputError, PellucidError, StorageError
from pellucid.storage import clients, objects
from pellucid.storage.urls import Tag, Url, locate


def _url(text: str) -> Url:
    url = locate(text)
    assert isinstance(url, Url)
    return url


def test_content_comes_back_with_the_tag_of_the_server(bucket: Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # more than one piece
    url = _url(f"{bucket.url}/a b%20?#.bin")
    tag = objects.put(content, url)
    assert bucket.get("a b%20?#.bin") == content
    assert objects.read(url) == (content, tag) and objects.stat(url) == tag
    assert objects.fetch(url, tmp_path / "copy") == tag and (tmp_path / "copy").read_bytes() == content
    (tmp_path / "other").write_bytes(b"from a file")
    assert objects.put(tmp_path / "other", url).e_tag == f'"{md5(b"from a file").hexdigest()}"'
    objects.delete(url)
    assert objects.stat(url) is None and not bucket.exists("a b%20?#.bin")


def test_large_files_are_stored_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"0123456789abcdef" * 2**20 + b"end")
    tag = objects.put(path, _url(f"{bucket.url}/large"))
    assert bucket.get("large") == path.read_bytes()
    assert tag.e_tag != f'"{md5(path.read_bytes()).hexdigest()}"' and tag.size_bytes == path.stat().st_size


def test_existing_objects_are_kept_by_the_server_itself(bucket: Bucket) -> None:
    url = _url(f"{bucket.url}/x")
    tag = objects.put_new(b"first", url)
    with pytest.raises(OutputError, match=r"/x exists; overwrite=True"):
        objects.put_new(b"second", url)
    assert objects.put_new(b"first", url) == tag  # a repeated request, whose first answer was lost
    second = objects.put(b"second", url, e_tag=tag.e_tag)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"third", url, e_tag=tag.e_tag)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"third", _url(f"{bucket.url}/none"), e_tag=tag.e_tag)
    assert bucket.get("x") == b"second" and objects.stat(url) == second
    assert objects.put(b"second", url, e_tag=tag.e_tag) == second  # as above


def test_an_object_that_is_deleted_meanwhile_existed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    url = _url(f"{bucket.url}/x")
    objects.put_new(b"first", url)
    stat = objects.stat

    def stat_and_delete(url: Url) -> Tag | None:
        tag = stat(url)
        objects.delete(url)
        return tag

    monkeypatch.setattr(objects, "stat", stat_and_delete)
    with pytest.raises(OutputError, match="exists"):
        objects.put_new(b"other", url)


def test_large_objects_are_looked_at_before_they_are_stored(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MAX_CONDITIONAL_BYTES", 3)
    url = _url(f"{bucket.url}/x")
    tag = objects.put_new(b"first", url)
    with pytest.raises(OutputError, match=r"/x exists"):
        objects.put_new(b"second", url)
    objects.put(b"second", url, e_tag=tag.e_tag)
    with pytest.raises(OutputError, match="changed by another program"):
        objects.put(b"third", url, e_tag=tag.e_tag)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_servers_that_ignore_conditions_are_not_used(
    header: str, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del credentials
    with _keeping_objects(ignored=header) as (address, stored):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        url = _url("s3://b/x")
        stored["/b/x"] = b"of another program"
        with pytest.raises(OutputError, match="x exists" if header == "If-None-Match" else "changed by another"):
            if header == "If-None-Match":
                objects.put_new(b"mine", url)
            else:
                objects.put(b"mine", url, e_tag='"other"')
        assert stored == {"/b/x": b"of another program"}
        with pytest.raises(StorageError, match=rf"bucket s3://b ignores conditions \({header}\), .*; use another"):
            if header == "If-None-Match":
                objects.put_new(b"mine", _url("s3://b/y"))
            else:
                tag = objects.stat(url)
                assert tag is not None
                objects.put(b"mine", url, e_tag=tag.e_tag)
    with _keeping_objects(ignored="") as (address, stored):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        tag = objects.put_new(b"mine", url)
        assert objects.put(b"another", url, e_tag=tag.e_tag) != tag and stored == {"/b/x": b"another"}


def test_a_folder_contains_what_is_below_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LISTED_AT_ONCE", 2)
    names = ["a/1", "a/2 ü", "a/b/3", "a/b/c/50%?#"]
    for name in [*names, "ab", "b/4"]:
        bucket.put(name, b"x")
    folder = _url(f"{bucket.url}/a")
    listed = list(objects.list_objects(folder))
    assert sorted(f"a/{url.relative_to(folder)}" for url in listed) == names
    assert all(url.tag == objects.stat(url) for url in listed)
    assert not objects.contains_objects(_url(f"{bucket.url}/none"))


def test_notes_are_stored_with_an_object(bucket: Bucket) -> None:
    url = _url(f"{bucket.url}/x.png")
    objects.put(b"x", url, attributes={"pellucid": "a text", "Content-Type": "image/png"})
    assert objects.read_attribute(url, "pellucid") == "a text"
    assert objects.read_attribute(url, "other") is None


def test_a_name_that_cannot_be_used_is_said(bucket: Bucket) -> None:
    bucket.put("odd/a\nb.png", b"x")
    with pytest.raises(StorageError, match="control character; rename") as caught:
        list(objects.list_objects(_url(f"{bucket.url}/odd")))
    assert "\n" not in str(caught.value)


# Failures. Their words are those of AWS, from its list of error responses.


class _Answers(http.server.BaseHTTPRequestHandler):
    answers: Sequence[tuple[int, str]] = ()
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.command)
        status, code = self.answers[min(len(self.requests), len(self.answers)) - 1]
        body = b"content" if status == 200 else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


class _Objects(_Answers):
    """Keeps objects, and ignores one kind of conditions."""

    stored: dict[str, bytes]
    ignored: str

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        existing = self.stored.get(self.path)
        wanted = None if self.ignored == "If-Match" else self.headers["If-Match"]
        is_new = self.ignored != "If-None-Match" and self.headers["If-None-Match"] is not None
        is_refused = (is_new and existing is not None) or (wanted and wanted != _e_tag(existing or b""))
        if not is_refused:
            self.stored[self.path] = content
        self._answer(412 if is_refused else 200, content)

    def do_GET(self) -> None:
        found = self.stored.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if self.command != "PUT" else 0))
        self.send_header("ETag", _e_tag(content))
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _e_tag(content: bytes) -> str:
    return f'"{md5(content).hexdigest()}"'


@contextmanager
def _keeping_objects(ignored: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """An address of this computer that keeps objects, and what it keeps."""
    stored: dict[str, bytes] = {}
    with _running(type("Handler", (_Objects,), {"stored": stored, "ignored": ignored})) as address:
        yield address, stored


@contextmanager
def _serving(*answers: tuple[int, str]) -> Iterator[tuple[str, list[str]]]:
    """An address of this computer that gives these answers in turn, and the requests so far."""
    requests: list[str] = []
    with _running(type("Handler", (_Answers,), {"answers": answers, "requests": requests})) as address:
        yield address, requests


@contextmanager
def _running(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "NoSuchBucket", "the bucket s3://b does not exist; check its name"),
        (404, "NoSuchKey", "s3://b/x does not exist; check the name"),
        (403, "AccessDenied", "reading s3://b/x is not permitted; check"),
        (400, "ExpiredToken", "the credentials for the bucket s3://b have expired; renew"),
        (
            403,
            "InvalidAccessKeyId",
            r"does not accept .* \(InvalidAccessKeyId\); set AWS_ACCESS_KEY_ID",
        ),
        (403, "SignatureDoesNotMatch", r"does not accept the credentials \(SignatureDoesNotMatch\)"),
        (403, "RequestTimeTooSkewed", "the clock of this computer differs too much .*; set the clock"),
        (
            400,
            "AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region><Code>",
            "in another region, eu-west-1; set AWS_REGION=eu-west-1",
        ),
        (301, "PermanentRedirect", "in another region; set AWS_REGION"),
    ],
)
@pytest.mark.usefixtures("credentials")
def test_final_failures_are_said_in_one_line_and_not_repeated(
    status: int, code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _serving((status, code)) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=message) as caught:
            objects.read(_url("s3://b/x"))
        assert len(requests) == 1
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.usefixtures("credentials")
def test_the_reason_is_found_although_answers_to_head_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving((403, "RequestTimeTooSkewed")) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match="set the clock"):
            objects.stat(_url("s3://b/x"))
    assert requests == ["HEAD", "GET"]


@pytest.mark.usefixtures("credentials")
def test_failures_that_pass_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving((503, "SlowDown"), (500, "InternalError"), (200, "")) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert objects.read(_url("s3://b/x"))[0] == b"content"
        assert len(requests) == 3


@pytest.mark.usefixtures("credentials")
def test_failures_that_stay_end_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clients.RETRY, "max_retries", 2)
    with _serving((503, "SlowDown")) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match="failed, also when repeated: 503 SlowDown; try later"):
            objects.read(_url("s3://b/y"))
        assert len(requests) == 3
    with pytest.raises(StorageError, match=r"the connection was refused; check the network and AWS_ENDPOINT_URL"):
        objects.read(_url("s3://b/y"))
    for address in ("nothing", "http://", "http://a b", "http://host:99999"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(
            StorageError, match=f"AWS_ENDPOINT_URL={address} is not a URL of a server; use https://"
        ):
            objects.read(_url("s3://b/y"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host.invalid")
    with pytest.raises(StorageError, match="is not encrypted; use https"):
        objects.read(_url("s3://b/y"))
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(StorageError, match="its host is not known; check the network"):
        objects.read(_url("s3://b/y"))


def test_wrong_credentials_are_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("x", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"does not accept the credentials \(SignatureDoesNotMatch\)"):
        objects.stat(_url(f"{bucket.url}/x"))


def test_files_of_web_servers_are_read_and_not_written(tmp_path: Path) -> None:
    with _serving((200, "")) as (address, _):
        url = _url(f"{address}/a/photo.png?signature=1%2F2&x=y")
        assert objects.stat(url) == ('"tag"', 7)
        assert objects.fetch(url, tmp_path / "copy").size_bytes == 7
        assert (tmp_path / "copy").read_bytes() == b"content"
        with pytest.raises(OutputError, match="is read-only"):
            objects.put(b"x", url)
        with pytest.raises(StorageError, match="has no list of files"):
            list(objects.list_objects(url))
    with _serving((404, "")) as (address, _):
        assert objects.stat(_url(f"{address}/none")) is None


def test_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    for work in (objects.stat, objects.read, objects.contains_objects, lambda url: objects.put(b"", url)):
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'pellucid[cloud]'")):
            work(_url("s3://b/x"))


def test_a_profile_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(PellucidError, match="the profile mine of AWS_PROFILE needs boto3; pip install boto3"):
        objects.stat(_url("s3://b/x"))
