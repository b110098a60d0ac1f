"""Azurite, Microsoft's emulator of Azure Blob Storage, which checks signatures and conditions.

It is a package of npm (`npm install --global azurite`); tests that need it are skipped where it is not installed.
"""

import hmac
import http.client
import shutil
import socket
import subprocess
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that every Azurite has; published in its documentation."""

CONTAINER = "pictures"


class AzureServer:
    """A running server with one container."""

    def __init__(self, folder: Path) -> None:
        """Start it. Raises RuntimeError, with the reason, if that is not possible."""
        program = shutil.which("azurite-blob")
        if program is None:
            raise RuntimeError("needs `azurite-blob`, of the npm package azurite")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(folder)]
        self._process = subprocess.Popen(
            [program, *options, "--silent", "--disableTelemetry"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + 30
        while not self._make_container():
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                self.stop()
                raise RuntimeError("Azurite does not start")
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}/{ACCOUNT}",
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _make_container(self) -> bool:
        """Whether the server has stored the container; signed by hand, as the client cannot make containers."""
        path = f"/{ACCOUNT}/{CONTAINER}"
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": date, "x-ms-version": "2023-11-03"}
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        text = f"PUT{12 * chr(10)}{lines}/{ACCOUNT}{path}\nrestype:container"
        signature = b64encode(hmac.digest(b64decode(KEY), text.encode(), "sha256")).decode()
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("PUT", f"{path}?restype=container", headers=headers)
            return connection.getresponse().status == 201
        except OSError:
            return False
        finally:
            connection.close()
