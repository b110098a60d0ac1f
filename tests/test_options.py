"""Values of command-line options, and parameters worded as options."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ByteSize, TypeAdapter
from typer.testing import CliRunner

from object_server import Bucket
from pellucid import cli
from pellucid.commands import export as export_command
from pellucid.commands.options import check_urls, parse_bytes, parse_keywords, parse_mix
from pellucid.commands.terminal import word_as_option
from pellucid.errors import ArgumentError, StorageError
from pellucid.exporting import export as exporting
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

NUMBERS = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,6})?", fullmatch=True)
SPACES = st.sampled_from(["", " ", "  "])


@given(NUMBERS, SPACES, st.sampled_from(["", *(f"{prefix}{i}" for prefix in "kKmMgGtT" for i in ("", "i", "I"))]))
def test_amounts_of_memory_are_those_of_pydantic(number: str, space: str, unit: str) -> None:
    expected = TypeAdapter(ByteSize).validate_python(f"{number}{space}{unit}B")
    assume(expected >= 1)
    assert parse_bytes(f"{number}{space}{unit}B") == expected
    assert parse_bytes(f" {number}{space}{unit} ") == expected  # the B can be omitted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restore", "a.png", "--model", "srcnn-x2", "--out", ""], "--out: an empty text"),
        (["restore", "a.png", "--model", "srcnn-x2", "--out="], "--out: an empty text"),
        (["restore", "", "--model", "srcnn-x2"], "an empty text"),
        (["train", "dncnn.gaussian", "--out", "r", "--data", ""], "--data: an empty text"),
        (["restore", "a.png", "--model", "srcnn-x2", "--json", "s3://bucket/a"], "--json: s3://bucket/a is a URL"),
        (["plot", "https://example.org/a.png", "--out", "b.png"], "https://example.org/a.png is a URL"),
        (["export", "srcnn-x2", "--out", "S3://b"], "--out: S3://b is a URL"),
        (["train", "dncnn.gaussian", "--data", "d", "lr=1", "lr=2"], "lr=2: lr=1 is given, too; omit one"),
        (
            ["restore", "a.png", "--model", "srcnn-x2", "--set", "scale=2", "--set", "scale=3"],
            "scale=2 is given, too",
        ),
        (["serve", "--max-size", "lots"], "--max-size lots: expected a size above 0"),
        (["serve", "--keep-size", "lots"], "--keep-size lots: expected a size above 0"),
        (["train", "dncnn.gaussian", "--data", "d", "--steps", "2", "num_steps=3"], "--steps and num_steps are"),
        (["train", "dncnn.gaussian", "--data", "d", "--mix", "a=0.5", "--mix", "a=0.1"], "a=0.5 is given, too"),
        (
            ["train", "dncnn.gaussian", "--data", "d", "--mix", "store"],
            "--mix store: expected a store and its share",
        ),
        (
            ["train", "dncnn.gaussian", "--data", "d", "--mix", "a=40%"],
            "above 0 and below 1, e.g. gopro.store=0.4",
        ),
        (["train", "dncnn.gaussian", "--data", "d", "--mix", "a=nan"], "--mix a=nan: expected a store"),
        (["train", "dncnn.gaussian", "--data", "d", "--mix", "=0.4"], "--mix =0.4: expected a store"),
        (["train", "dncnn.gaussian", "--data", "d", "--mix", "a=1"], "--mix a=1: expected a store"),
        (["export", "srcnn-x2", "--out", "a.onnx", "--target", "t"], "--target needs --data"),
        (["restore", "a.png", "--model", "srcnn-x2", "--size", "99999999x"], "at most 9,999,999 pixels"),
        (["restore", "a.png", "--model", "srcnn-x2", "--crop", "99999999,0,1,1"], "at most 9,999,999 pixels"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("2GB", 2 * 10**9), ("1.5GiB", 3 * 2**29), ("800m", 800 * 10**6), ("5.k", 5000), ("7", 7)],
)
def test_decimal_and_binary_units(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "much",
        "2XB",
        "-1GB",
        "5,5GB",
        "2GB please",
        "2GB/s",
        "1e9",
        "2 G B",
        "2i",
        "inf",
        "0",
        "0.0GB",
        "9" * 400 + "TB",
    ],
)
def test_other_texts_are_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a size above 0, e.g. 2GB"):
        parse_bytes(text)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert parse_bytes(text) >= 1
    except typer.BadParameter as error:
        assert "expected a size above 0" in str(error)


def test_stores_and_their_shares() -> None:
    mix = parse_mix(["a.store=0.4", "s3://bucket/b=c=0.25", "d= .1"])
    assert list(mix.items()) == [("a.store", 0.4), ("s3://bucket/b=c", 0.25), ("d", 0.1)]
    assert parse_mix(None) == {}


def test_keywords_keep_their_text() -> None:
    assert parse_keywords(["sigma_255=25", "betas=0.9,0.999", "name=a=b"]) == {
        "sigma_255": "25",
        "betas": "0.9,0.999",
        "name": "a=b",
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("sigma", "does not have the form KEY=VALUE"),
        ("device=cpu", "use --device"),
        ("progress=1", "progress is not a keyword of a recipe"),
    ],
)
def test_texts_that_are_not_keywords_are_a_usage_error(pair: str, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        parse_keywords([pair], options=["device"], reserved=["progress"])


def test_no_keyword_of_an_export_is_one_of_its_options() -> None:
    parameters = inspect.signature(exporting.export).parameters.values()
    options = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert set(export_command._OPTIONS) == options


@pytest.mark.parametrize(
    ("parameter", "value", "option"),
    [
        ("overwrite", True, "--overwrite"),
        ("out", None, "--out"),
        ("bit_depth", 16, "--bit-depth 16"),
        ("memory_bytes", 430 * 10**6, "--memory 430MB"),
        ("memory_bytes", 430 * 10**6 + 1, "--memory 431MB"),  # 430MB would not be enough
        ("tile_px", 64, "--tile 64"),
        ("start_from", "srcnn-x2", "--from srcnn-x2"),
        ("tune", False, "--tune off"),
    ],
)
def test_parameters_are_worded_as_they_are_typed(parameter: str, value: object, option: str) -> None:
    assert word_as_option(parameter, value) == option


def _parameters_in_hints() -> set[str]:
    """Names in braces in the hints of all errors of the package."""
    found: set[str] = set()
    for path in Path(cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                texts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                found |= {name for text in texts for name in re.findall(r"\{(\w+)\}", str(text))}
    return found


def test_every_parameter_in_a_hint_is_an_option_of_a_command() -> None:
    commands = vars(typer.main.get_command(cli.app))["commands"].values()
    options = {option for command in commands for parameter in command.params for option in parameter.opts}
    missing = {name for name in _parameters_in_hints() if word_as_option(name, None) not in options}
    assert not missing, "add them to terminal._OPTIONS"


@pytest.mark.parametrize(("command", "has_option"), [("restore", True), ("evaluate", False)])
def test_hints_do_not_name_options_of_other_commands(
    command: str, has_option: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in" / "large.png"
    images.write(Picture(np.zeros((50, 50, 1), np.uint8)), path)
    images.write(Picture(np.zeros((40, 40, 1), np.uint8)), path.with_name("small.png"))
    defaults = inspect.unwrap(images.read).__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "max_pixels", 2000)
    arguments = {
        "restore": ["restore", str(path), "--model", "srcnn-x2", "--max-pixels", "2000"],
        "evaluate": ["evaluate", "srcnn-x2", "--data", str(path.parent)],
    }
    result = CliRunner().invoke(cli.app, arguments[command])
    assert result.exit_code == 1 and "50 x 50 = 2,500 pixels; at most 2,000 are allowed" in result.output
    assert ("--max-pixels 2500" in result.output) == has_option


COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def _parameters() -> list[tuple[str, str]]:
    """All (command, parameter) that have a value."""
    return [
        (name, parameter.name)
        for name, command in COMMANDS.items()
        for parameter in command.params
        if not getattr(parameter, "is_flag", False)
    ]


@pytest.mark.parametrize(("command", "name"), _parameters())
def test_every_parameter_takes_urls_or_refuses_them(command: str, name: str) -> None:
    """None reads s3://x as the folder `s3:` of this computer."""
    (parameter,) = [one for one in COMMANDS[command].params if one.name == name]
    if name in cli.URL_PARAMETERS.get(command, ()):
        return  # see below
    for value in ("s3://b/x", Path("s3://b/x"), ["a", "S3://b/x"], ("https://host/x?y",)):
        with pytest.raises(typer.BadParameter, match="://.*is a URL; only files and folders of this computer"):
            check_urls([parameter], {name: value}, cli.URL_PARAMETERS.get(command, ()))


TAKES_URLS = [
    ["bench", "{url}.safetensors"],
    ["evaluate", "{url}.safetensors", "--data", "{folder}"],
    ["evaluate", "--model", "{url}.safetensors", "--data", "{folder}"],
    ["evaluate", "srcnn-x2", "--data", "{url}"],
    ["evaluate", "--data", "{folder}", "--target", "{url}"],
    ["evaluate", "srcnn-x2", "--data", "{folder}", "--train-data", "{url}"],
    ["export", "{url}.safetensors", "--out", "{folder}/x.onnx"],
    ["status", "{url}"],
    ["train", "dncnn.gaussian", "--data", "{url}", "--measure", "2"],
    ["train", "dncnn.gaussian", "--data", "{folder}", "--target", "{url}", "--measure", "2"],
    ["train", "dncnn.gaussian", "--data", "{folder}", "--mix", "{url}=0.5", "--measure", "2"],
    ["train", "dncnn.gaussian", "patch_px=16", "--data", "{folder}", "--out", "{url}"],
    [
        "train",
        "dncnn.gaussian",
        "patch_px=16",
        "--data",
        "{folder}",
        "--out",
        "{folder}-run",
        "--from",
        "{url}.safetensors",
    ],
    ["train", "dncnn.gaussian", "--data", "{folder}", "--out", "{folder}-run", "--val", "{url}"],
    [
        *("train", "dncnn.gaussian", "--data", "{folder}", "--out", "{folder}-run"),
        *("--val", "{folder}", "--val-target", "{url}"),
    ],
    ["models", "{url}.safetensors"],
    ["prepare", "folder", "{url}", "--out", "{folder}/out"],
    ["prepare", "folder", "{folder}", "--out", "{url}"],
    ["prepare", "folder", "{folder}", "--out", "{folder}-store", "--against", "{url}"],
    ["prepare", "check", "{url}"],
    ["restore", "{url}", "--model", "srcnn-x2"],
    ["restore", "{folder}", "--out", "{url}", "--model", "srcnn-x2"],
    ["restore", "{folder}", "--model", "{url}.safetensors"],
    ["restore", "{folder}", "--mask", "{url}", "--model", "srcnn-x2"],
]


@pytest.mark.parametrize("arguments", TAKES_URLS, ids=" ".join)
def test_urls_lead_to_their_server(arguments: list[str], album: Path, bucket: Bucket) -> None:
    (album / "broken.png").unlink()
    filled = [text.format(url="s3://no-such-bucket/x", folder=album) for text in arguments]
    result = CliRunner().invoke(cli.app, filled)
    assert isinstance(result.exception, StorageError | SystemExit) and result.exit_code == 1
    assert re.search(r"s3://no-such-bucket.* does not exist", f"{result.exception} {result.stderr}")
    assert not Path("s3:").exists()


OTHER_URLS = {
    *((command, "on") for command in ("restore", "evaluate", "prepare")),
    ("serve", "allow_origin"),
    ("serve", "allow_urls"),
    ("serve", "workers"),
    ("convert", "license"),
}
"""Addresses of a cluster, a site and the text of a license, and prefixes of URLs, are not places of files."""


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "convert",
            "gone",
            "--recipe",
            "srcnn.paper",
            "--out",
            "a.safetensors",
            "--license",
            "https://host/by/4.0",
        ],
        ["serve", "--allow-origin", "https://host", "--token-file", "gone"],
        ["serve", "--allow-urls", "s3://bucket/", "--allow-urls", "gs://bucket/in", "--token-file", "gone"],
    ],
)
def test_urls_that_are_not_places_of_files_are_accepted(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(CliRunner().invoke(cli.app, arguments).exception).startswith("gone ")


def test_every_parameter_that_takes_urls_is_tried() -> None:
    tried = {(arguments[0], name) for arguments in TAKES_URLS for name in _name_url_parameter(arguments)}
    assert tried | OTHER_URLS == {
        (command, name) for command, names in cli.URL_PARAMETERS.items() for name in names
    }


ON_CLUSTERS = {
    "restore": ["restore", "{album}", "--model", "srcnn-x2", "--out", "{out}"],
    "evaluate": ["evaluate", "srcnn-x2", "--data", "{album}", "--save", "{out}"],
    "prepare": ["prepare", "folder", "{album}", "--out", "{out}"],
}


def _fill_on_cluster(command: str, album: Path) -> list[str]:
    return [text.format(album=album, out=album.with_name("out")) for text in ON_CLUSTERS[command]]


@pytest.mark.parametrize("command", ON_CLUSTERS)
@pytest.mark.parametrize("address", ["s3://bucket/x", "http://host:1", "ray://", "local"])
def test_other_addresses_than_those_of_clusters_are_refused(address: str, command: str, album: Path) -> None:
    result = CliRunner().invoke(cli.app, [*_fill_on_cluster(command, album), "--on", address])
    assert isinstance(result.exception, ArgumentError)
    assert f"{address!r} is not a cluster" in str(result.exception)


@pytest.mark.parametrize("command", ON_CLUSTERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [(["--on", "ray", "--shard", "1/2"], "omit --shard"), (["--processes", "2"], "omit --processes")],
)
def test_options_of_clusters_are_not_ignored(command: str, options: list[str], message: str, album: Path) -> None:
    record = ["--record", str(album)] if command == "evaluate" else []
    result = CliRunner().invoke(cli.app, [*_fill_on_cluster(command, album), *record, *options])
    assert result.exit_code == 2 and message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())
    assert not album.with_name("out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ([f"--workers={text}"], f"{text!r} is neither a number from 1 to 256 nor a cluster")
            for text in ("s3://bucket/x", "ray://", "local", "-1", "two")
        ),
        (["--workers", "0"], "not in the range 1 to 256"),
        (["--workers", "257"], "not in the range 1 to 256"),
        (["--processes", "2"], "omit --processes"),
    ],
)
def test_workers_are_a_number_or_a_cluster(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["serve", "--data", str(tmp_path / "data"), *options])
    assert result.exit_code == 2 and message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())
    assert not (tmp_path / "data").exists()


def _name_url_parameter(arguments: list[str]) -> list[str]:
    """The name of the parameter that gets the URL."""
    place = next(i for i, text in enumerate(arguments) if "{url}" in text)
    command = COMMANDS[arguments[0]]
    if arguments[place - 1].startswith("--"):
        return [one.name for one in command.params if arguments[place - 1] in one.opts]
    positional = [one.name for one in command.params if one.param_type_name == "argument"]
    return [positional[min(place, len(positional)) - 1]]
