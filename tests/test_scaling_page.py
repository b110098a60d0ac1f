"""The examples for Kubernetes in docs/scaling.md are valid YAML, and run commands that exist."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser
from typer.main import get_command

from pellucid import cli

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"


def _read_example(kind: str) -> Any:
    yaml = pytest.importorskip("yaml")
    blocks = re.findall(r"(?:^    .*\n)+", PAGE.read_text(), re.M)
    found = [yaml.safe_load(textwrap.dedent(block)) for block in blocks if "apiVersion:" in block]
    (example,) = [one for one in found if one["kind"] == kind]
    return example


def _check_command(arguments: list[str]) -> None:
    """Raises typer's usage errors."""
    group: Any = get_command(cli.app)
    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def test_the_job_of_shards() -> None:
    spec = _read_example("Job")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][0] == "pellucid"
    _check_command(container["command"][1:])
    assert f"env/{spec['completions']}" in container["command"]
    assert spec["completionMode"] == "Indexed"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_the_jobset_of_a_training() -> None:
    """Names of pods are those that JobSet documents: JOBSET-REPLICATED_JOB-JOB-POD.JOBSET."""
    jobset = _read_example("JobSet")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    program, *arguments = container["command"]
    given = get_args_parser().parse_args(arguments)
    assert program == "torchrun" and given.module and given.training_script == "pellucid"
    _check_command(given.training_script_args)
    assert int(given.nnodes) == job["completions"] == job["parallelism"]
    assert int(given.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    name, replicated_name = jobset["metadata"]["name"], replicated["name"]
    (port,) = container["ports"]
    assert given.rdzv_endpoint == f"{name}-{replicated_name}-0-0.{name}:{port['containerPort']}"
    (mount,), (volume,), (cache,) = container["volumeMounts"], job["template"]["spec"]["volumes"], container["env"]
    assert mount["name"] == volume["name"] and cache == {"name": "PELLUCID_CACHE", "value": mount["mountPath"]}
