"""The HTTP API of a real service: what comes back, and every error as a problem."""

import contextlib
import io
import json
import socket
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import pellucid
import sample_files
from serving_service import Running, png, wait_for

MODEL = "srcnn-x2"


def _restored_by_library(content: bytes, suffix: str, folder: Path, **settings: object) -> bytes:
    source = folder / f"source{suffix}"
    source.write_bytes(content)
    target = folder / f"expected{suffix}"
    pellucid.restore(source, MODEL, target, pellucid.Settings(**settings), overwrite=True)  # type: ignore[arg-type]
    return target.read_bytes()


def _check_problem(response: httpx.Response, status: int, text: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and text in problem["detail"], problem
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text


# Results


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_the_result_has_the_bytes_of_the_command_line(client: httpx.Client, tmp_path: Path, suffix: str) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(png())).save(stream, {".png": "PNG", ".tif": "TIFF", ".jpg": "JPEG"}[suffix])
    response = client.post("/v1/restore", params={"model": MODEL}, content=stream.getvalue())
    assert response.status_code == 200, response.text
    assert response.content == _restored_by_library(stream.getvalue(), suffix, tmp_path)


def test_options_act_as_those_of_restore(client: httpx.Client, tmp_path: Path) -> None:
    params = {"model": MODEL, "strength": "0.5", "ensemble": "true", "bit_depth": "16"}
    response = client.post("/v1/restore", params=params, content=png())
    assert response.status_code == 200, response.text
    expected = _restored_by_library(png(), ".png", tmp_path, strength=0.5, ensemble=True, bit_depth=16)
    assert response.content == expected


def test_quality_and_exposure_ratio(client: httpx.Client) -> None:
    params = {"model": MODEL, "format": "jpeg"}
    low, high = (client.post("/v1/restore", params={**params, "quality": q}, content=png()) for q in ("5", "95"))
    assert len(low.content) < len(high.content) / 2
    ineffective = {"model": MODEL, "quality": "5", "exposure_ratio": "7.5"}
    notes = client.post("/v1/restore", params=ineffective, content=png()).headers["x-pellucid-notes"]
    assert "the quality has no effect on PNG" in notes and "the exposure ratio has no effect" in notes
    raw = next(content for name, content in sample_files.raw_files().items() if name.endswith(".dng"))
    params = {"model": "sid-any", "exposure_ratio": "7.5", "filename": "a.dng"}
    response = client.post("/v1/restore", params=params, content=raw)
    assert response.status_code == 200 and "exposure ratio is 7.5" in response.headers["x-pellucid-notes"]


@pytest.mark.parametrize(
    ("params", "detail"),
    [
        ({}, "model is missing"),
        ({"model": MODEL, "scale": "nan"}, "scale=nan is not possible; expected a finite number"),
        ({"model": "x" * 300}, f"model={'x' * 80}... is not possible; expected at most 200 characters"),
        ({"model": MODEL, "scale": "0"}, "scale=0 is not possible; expected a number above 0"),
        ({"model": MODEL, "quality": "lots"}, "quality=lots is not possible; expected a whole number"),
        ({"model": MODEL, "sharpness": "1"}, "sharpness is not an option of this request"),
    ],
)
def test_options_that_are_not_possible_are_named(
    client: httpx.Client, params: dict[str, str], detail: str
) -> None:
    _check_problem(client.post("/v1/restore", params=params, content=png()), 400, detail)


def test_the_name_of_the_result(client: httpx.Client) -> None:
    params = {"model": MODEL, "filename": 'a "b"/ä 1.png', "format": "jpeg"}
    response = client.post("/v1/restore", params=params, content=png())
    disposition = response.headers["content-disposition"]
    assert disposition == "attachment; filename=\"_ 1-restored.jpg\"; filename*=UTF-8''%C3%A4%201-restored.jpg"
    assert response.headers["content-type"] == "image/jpeg"


def test_a_crop_equals_that_part_of_the_whole(client: httpx.Client) -> None:
    content = png(90, 70)
    whole = client.post("/v1/restore", params={"model": MODEL}, content=content).content
    part = client.post("/v1/restore", params={"model": MODEL, "crop": "31,17,20,15"}, content=content).content
    expected = np.asarray(Image.open(io.BytesIO(whole)))[34:64, 62:102]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(part))), expected)


def test_chains_and_sizes(client: httpx.Client) -> None:
    """A plus sign in a URL is a space; both are chains."""
    content = png(30, 20)
    answers = [
        client.post(f"/v1/restore?model={model}&size=50x", content=content).content
        for model in ("dncnn-color-blind+srcnn-x2", "dncnn-color-blind%2Bsrcnn-x2")
    ]
    assert answers[0] == answers[1] and Image.open(io.BytesIO(answers[0])).size == (50, 33)
    third = client.post("/v1/restore", params={"model": "srcnn-x3", "scale": "1.5"}, content=content)
    assert Image.open(io.BytesIO(third.content)).size == (45, 30)


def test_several_files_become_one_job_and_a_zip(client: httpx.Client, tmp_path: Path) -> None:
    files = [
        ("file", ("x.png", png(seed=1))),
        ("file", ("y/x.png", png(seed=2))),
        ("file", ("bad.png", b"text")),
    ]
    response = client.post("/v1/restore", params={"model": MODEL}, files=files)
    _check_problem(response, 400, "bad.png")
    response = client.post("/v1/restore", params={"model": MODEL}, files=files[:2])
    assert response.status_code == 202 and response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = wait_for(client, response.json()["id"])
    assert job["state"] == "done" and job["progress"] == 1.0
    archive = zipfile.ZipFile(io.BytesIO(client.get(job["result_url"]).content))
    assert archive.namelist() == ["x-restored.png", "x-restored-2.png"]
    assert archive.read("x-restored-2.png") == _restored_by_library(png(seed=2), ".png", tmp_path)
    assert client.get(job["files"][1]["url"]).content == archive.read("x-restored-2.png")


def test_one_damaged_picture_does_not_stop_the_others(client: httpx.Client) -> None:
    damaged = bytearray(png(60, 60))
    damaged[len(damaged) // 2] ^= 255
    files = [("file", ("good.png", png())), ("file", ("damaged.png", bytes(damaged)))]
    response = client.post("/v1/restore", params={"model": MODEL}, files=files)
    if response.status_code == 202:  # the header is intact
        job = wait_for(client, response.json()["id"])
        assert [file["state"] for file in job["files"]] == ["done", "failed"]
        assert job["state"] == "done" and "damaged.png" in job["files"][1]["error"]
    else:
        _check_problem(response, 422, "damaged.png")


def test_respond_async_and_events(client: httpx.Client) -> None:
    headers = {"Prefer": "respond-async"}
    response = client.post("/v1/restore", params={"model": MODEL}, content=png(200, 200), headers=headers)
    assert response.status_code == 202
    job = response.json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        states = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert states[-1]["state"] == "done" and states[-1]["files"][0]["url"]
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    _check_problem(client.get(f"/v1/jobs/{job}"), 404, "never existed")


def test_a_large_result_is_a_job(client: httpx.Client) -> None:
    response = client.post("/v1/restore", params={"model": "mimo-unet-small"}, content=png(2100, 2000))
    assert response.status_code == 202 and response.headers["preference-applied"] == "respond-async"
    assert client.delete(response.headers["location"]).status_code == 204
    response = client.post("/v1/restore", params={"model": MODEL, "size": "2500x"}, content=png(300, 200))
    assert response.status_code == 202
    assert client.delete(response.headers["location"]).status_code == 204


def test_an_archive_that_many_ask_for_while_its_job_is_deleted(service: Running, client: httpx.Client) -> None:
    files = [("file", (f"{seed}.png", png(300, 300, seed))) for seed in range(4)]
    job = client.post("/v1/restore", params={"model": MODEL}, files=files).json()["id"]
    wait_for(client, job)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.get, f"/v1/jobs/{job}/result") for _ in range(8)]
        time.sleep(0.01)
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
    for answer in asked:
        with contextlib.suppress(httpx.RemoteProtocolError):  # deleted between its first byte and its last
            assert answer.result().status_code in (200, 404)
    assert client.get(f"/v1/jobs/{job}").status_code == 404 and not (service.data / "jobs" / job).exists()


def test_a_picture_is_sent_once_and_restored_twice(service: Running, client: httpx.Client) -> None:
    sent = client.post("/v1/pictures", params={"filename": "a.png"}, content=png())
    assert sent.status_code == 201
    picture = sent.json()
    assert (picture["name"], picture["kind"], picture["pixels"], picture["pages"]) == ("a.png", "PNG", 1200, 1)
    for model in ("srcnn-x2", "srcnn-x3"):
        response = client.post("/v1/restore", params={"model": model, "picture": picture["id"]})
        assert response.status_code == 200
    assert client.delete(f"/v1/pictures/{picture['id']}").status_code == 204
    assert not list((service.data / "uploads").glob(f"{picture['id']}*"))
    _check_problem(client.get(f"/v1/pictures/{picture['id']}"), 404, "never existed")


def test_only_the_user_of_the_service_can_read_pictures(service: Running) -> None:
    assert service.data.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_of_a_request_that_waited(service: Running, client: httpx.Client) -> None:
    before = {path for path in service.data.rglob("*") if path.is_file()}
    assert client.post("/v1/restore", params={"model": MODEL}, content=png()).status_code == 200
    time.sleep(0.2)
    assert {path for path in service.data.rglob("*") if path.is_file()} == before


def test_views_are_parts_of_the_picture(client: httpx.Client) -> None:
    content = png(50, 40)
    picture = client.post("/v1/pictures", content=content).json()["id"]
    view = client.get(f"/v1/pictures/{picture}/view", params={"box": "10,5,20,30"})
    assert view.headers["x-picture-size"] == "50x40"
    expected = np.asarray(Image.open(io.BytesIO(content)))[5:35, 10:30]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(view.content))), expected)
    small = client.get(f"/v1/pictures/{picture}/view", params={"longest_px": "25"})
    assert Image.open(io.BytesIO(small.content)).size == (25, 20)
    _check_problem(client.get(f"/v1/pictures/{picture}/view", params={"box": "50,0,1,1"}), 422, "outside")


def test_every_format_can_be_shown(client: httpx.Client) -> None:
    """Those that browsers cannot show, too: as PNG."""
    refused = {}
    for name, content in {**sample_files.all_files(), **sample_files.raw_files()}.items():
        sent = client.post("/v1/pictures", params={"filename": name}, content=content)
        if sent.status_code != 201:
            refused[name] = (sent.status_code, sent.json()["detail"])
            continue
        view = client.get(f"/v1/pictures/{sent.json()['id']}/view", params={"longest_px": "16"})
        assert view.status_code == 200, (name, view.text)
        assert max(Image.open(io.BytesIO(view.content)).size) <= 16 and view.content[1:4] == b"PNG"
    assert {status for status, _ in refused.values()} <= {422} and len(refused) < 4, refused


def test_advice(client: httpx.Client) -> None:
    flat = np.full((300, 300, 3), 128.0)
    noisy = np.clip(flat + np.random.default_rng(0).normal(0, 25, flat.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "PNG")
    advice = client.post("/v1/advise", content=stream.getvalue()).json()["advice"]
    assert advice[0]["model"] == "dncnn-color-blind" and "about 2" in advice[0]["reason"]
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=10)
    advice = client.post("/v1/advise", content=stream.getvalue()).json()["advice"]
    assert advice[0]["model"] == "dncnn-color-jpeg" and "quality 10" in advice[0]["reason"]


def test_models(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/v1/models").json()}
    assert models["srcnn-x3"]["scale"] == 3 and models["srcnn-x3"]["corrects"] == ["too small"]
    assert models["sid-any"]["takes_raw_only"] and models["sid-any"]["scale"] == 1
    assert models["dncnn-gray-25"]["colors"] == "gray" and models["dncnn-gray-25"]["license"]


# Errors


@pytest.mark.parametrize(
    ("params", "content", "status", "text"),
    [
        ({"model": MODEL}, b"", 400, "empty"),
        ({"model": MODEL}, b"text", 400, "known picture format"),
        ({"model": "srcnn-x9"}, png(), 400, "did you mean srcnn-x2"),
        ({}, png(), 400, "model"),
        ({"model": MODEL, "qualty": "3"}, png(), 400, "qualty is not an option of this request; /docs lists"),
        ({"model": MODEL, "quality": "300"}, png(), 400, "quality"),
        ({"model": MODEL, "strength": "nan"}, png(), 400, "strength"),
        ({"model": MODEL, "strength": ["1", "0"]}, png(), 400, "strength: it is given twice"),
        ({"model": MODEL, "scale": "2", "size": "30x"}, png(), 400, "exclude each other"),
        ({"model": f"raw-denoise+{MODEL}"}, png(), 400, "raw-denoise is for camera RAW files, and cannot be"),
        ({"model": f"{MODEL}+sid-any"}, png(), 400, "sid-any is for camera RAW files, and cannot be"),
        ({"model": MODEL, "crop": "1,2,3"}, png(), 400, "crop=1,2,3 is not possible; expected x, y, width"),
        ({"model": MODEL, "size": "0x0"}, png(), 400, "size=0x0 is not possible; expected a size of up to"),
        ({"model": MODEL, "crop": "30,20,20,20"}, png(), 422, "40 x 30 px"),
        ({"model": MODEL, "picture": "abcdefgh"}, b"", 404, "never existed"),
        ({"model": MODEL, "picture": "abcdefgh"}, png(), 400, "a body and the option picture"),
        ({"model": "+".join(["srcnn-x4"] * 12)}, png(), 413, "the limit is 1000"),
        ({"model": MODEL, "scale": "64"}, png(1500, 1500), 413, "the limit is 1000"),
        ({"model": MODEL, "page": "2"}, png(), 422, "one page"),
        ({"model": "sid-any"}, png(), 422, "camera RAW"),
        ({"model": MODEL, "format": "jpeg", "bit_depth": "16"}, png(), 422, "16"),
    ],
)
def test_errors_are_problems(
    client: httpx.Client, params: dict[str, str | list[str]], content: bytes, status: int, text: str
) -> None:
    _check_problem(client.post("/v1/restore", params=params, content=content), status, text)


def _bombs() -> dict[str, tuple[bytes, str]]:
    """Small files of pictures that are, or say that they are, very large; and words of the answer."""
    noise = Image.open(io.BytesIO(png(64, 64)))
    flat = Image.new("L", (6000, 6000))
    avif, codestream = _encode(noise, "AVIF"), _encode(noise, "JPEG2000", no_jp2=True)
    flat_avif, flat_jp2 = _encode(flat, "AVIF", speed=10), _encode(flat, "JPEG2000")
    return {
        "AVIF that says 3600 megapixels": (_claim(avif, b"ispe", 4, 60_000, 60_000), "the limit is 200"),
        "AVIF that says 64 x 64": (_claim(flat_avif, b"ispe", 4, 64, 64), "damaged"),
        "JPEG 2000 that says 3600 megapixels": (
            _claim(codestream, b"\xff\x51", 4, 60_000, 60_000),
            "limit is 200",
        ),
        "JPEG 2000 that says 196 megapixels": (
            _claim(codestream, b"\xff\x51", 4, 14_000, 14_000),
            "needs more than the memory limit of 1725 MB; a limit of",
        ),
        "JPEG 2000 whose box says 64 x 64": (_claim(flat_jp2, b"ihdr", 0, 64, 64), "needs more than the memory"),
        "PNG that says 3600 megapixels": (_claim(png(), b"IHDR", 0, 60_000, 60_000), "the limit is 200"),
    }


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _claim(content: bytes, mark: bytes, skip: int, width: int, height: int) -> bytes:
    """A file with another size in its header, skip bytes after a mark."""
    start = content.index(mark) + len(mark) + skip
    return content[:start] + struct.pack(">II", width, height) + content[start + 8 :]


def test_decompression_bombs(service: Running, client: httpx.Client) -> None:
    """They end no process, and take no time."""
    processes = [process.pid for process in service.workers()]
    for name, (content, words) in _bombs().items():
        start_s = time.monotonic()
        response = client.post("/v1/restore", params={"model": MODEL, "crop": "0,0,8,8"}, content=content)
        assert response.status_code in (413, 422) and words in response.text, (name, response.text)
        picture = client.post("/v1/pictures", content=content)
        if picture.status_code == 201:
            picture = client.get(f"/v1/pictures/{picture.json()['id']}/view")
        assert picture.status_code in (413, 422), name
        assert time.monotonic() - start_s < 10, name
    assert [process.pid for process in service.workers()] == processes


def test_a_damaged_picture_gets_the_line_of_the_reader(client: httpx.Client) -> None:
    response = client.post("/v1/restore", params={"model": MODEL, "filename": "my.png"}, content=png()[:-200])
    _check_problem(response, 422, "my.png")
    assert str(client.base_url) not in response.text and "/uploads/" not in response.text


def test_other_content_is_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    _check_problem(
        client.post("/v1/restore", params={"model": MODEL}, content=b"{}", headers=headers), 415, "json"
    )
    _check_problem(client.post("/v1/restroe"), 404, "/docs")
    _check_problem(client.put("/v1/restore"), 405, "PUT")
    _check_problem(client.patch("/v1/batches"), 405, "possible: GET, POST")
    form = client.post("/v1/restore", params={"model": MODEL}, data={"model": "a"}, files={"file": png()})
    _check_problem(form, 400, "'model'")
    files = [("file", ("a.png", png())), ("file", ("empty.png", b""))]
    _check_problem(client.post("/v1/restore", params={"model": MODEL}, files=files), 400, "empty.png is empty")


def test_the_description_of_forms_allows_no_other_fields(client: httpx.Client) -> None:
    """As the service: see the form above."""
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/pictures", "/v1/advise", "/v1/restore"):
        form = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"].keys() == {"file"} and form["additionalProperties"] is False


def test_results_before_the_end_are_refused(client: httpx.Client) -> None:
    headers = {"Prefer": "respond-async"}
    params = {"model": "mimo-unet-small"}
    job = client.post("/v1/restore", params=params, content=png(700, 700), headers=headers).json()["id"]
    _check_problem(client.get(f"/v1/jobs/{job}/result"), 409, "%")
    _check_problem(client.get(f"/v1/jobs/{job}/files/0"), 409, "this picture is")
    _check_problem(client.get(f"/v1/jobs/{job}/files/1"), 404, "1 picture,")
    start = time.monotonic()
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert time.monotonic() - start < 10  # 1 s on a quiet machine


# Requests


def test_request_ids_and_log_lines(service: Running, client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"X-Request-Id": "my-1"}).headers["x-request-id"] == "my-1"
    odd = client.get("/v1/models", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert odd != "a b"
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("id") == "my-1"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Content-Length": "99999999999"}, 413, "the limit of a request is"),
        (
            {"Content-Encoding": "gzip", "Content-Length": "4"},
            415,
            "the body is encoded by gzip; send it as it is",
        ),
        (
            {"Content-Length": "4", "Transfer-Encoding": "chunked"},
            400,
            "Content-Length or Transfer-Encoding, not both",
        ),
    ],
)
def test_a_body_is_refused_by_its_headers(
    client: httpx.Client, headers: dict[str, str], status: int, text: str
) -> None:
    host, port = client.base_url.host, client.base_url.port
    lines = [f"POST /v1/restore?model={MODEL} HTTP/1.1", f"Host: {host}", *map(": ".join, headers.items())]
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "Expect: 100-continue", "", ""]).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ") and text in answer  # and the connection is closed


def test_ids_that_cannot_be_are_not_found(client: httpx.Client) -> None:
    for response in (client.get("/v1/jobs/zzz"), client.delete("/v1/jobs/zzz")):
        _check_problem(response, 404, "'zzz' is not an id of this service")


def test_other_sites_and_hosts_are_refused(client: httpx.Client) -> None:
    _check_problem(client.get("/v1/models", headers={"Origin": "https://evil.example"}), 403, "evil.example")
    _check_problem(client.get("/v1/models", headers={"Host": "evil.example"}), 421, "evil.example")
    own = str(client.base_url).rstrip("/")
    assert client.get("/v1/models", headers={"Origin": own}).status_code == 200


def test_headers_protect_the_page(client: httpx.Client) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff" and "set-cookie" not in page.headers
    assert "http://" not in page.text.replace("http://www.w3.org", "") and "https://" not in page.text
    for path in ("/docs", "/page/page.js", "/page/page.css", "/page/icon.svg"):
        assert client.get(path).status_code == 200
    _check_problem(client.get("/page/nothing.js"), 404, "nothing.js")
    assert client.get("/page/..%2Fservice.py").status_code in (400, 404)


def test_health_and_numbers(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    client.post("/v1/restore", params={"model": MODEL}, content=png())
    numbers = client.get("/metrics").text
    for name in (
        "pellucid_requests_total", "pellucid_queue_length", "pellucid_queue_wait_seconds_bucket",
        'pellucid_restore_seconds_count{model="srcnn-x2"}', 'pellucid_megapixels_total{model="srcnn-x2"}',
        "pellucid_worker_restarts_total", 'pellucid_resident_memory_bytes{process="service"}',
    ):  # fmt: skip
        assert name in numbers
