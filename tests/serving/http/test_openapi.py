"""The description of the API is true: requests made from it get answers that it describes."""

import os
import subprocess
import sys
from pathlib import Path

from serving_service import Running


def test_answers_are_as_described(service: Running, tmp_path: Path) -> None:
    """Valid and invalid requests by schemathesis: no 5xx, only described statuses, types and contents."""
    checks = (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "use_after_free",
        "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
        "unsupported_method",
    )  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json", "--seed", "1",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--no-color", "--continue-on-failure",
        "--checks", ",".join(checks),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
