"""Which places batches may use."""

from pathlib import Path

import pytest

from pellucid.errors import ArgumentError, OutputError
from pellucid.serving.places import AllowedPlaces


@pytest.mark.parametrize(
    ("prefix", "place", "is_allowed"),
    [
        ("s3://bucket", "s3://bucket/any/where", True),
        ("s3://bucket/", "s3://bucket", True),
        ("s3://bucket/", "s3://bucket/", True),
        ("s3://bucket/", "S3A://bucket/x", True),  # another name of the same scheme
        ("s3://bucket", "s3://bucket-evil/x", False),
        ("s3://bucket", "s3://Bucket/x", False),
        ("s3://bucket", "s3://bucket.evil/x", False),
        ("s3://bucket", "gs://bucket/x", False),
        ("s3://bucket/in", "s3://bucket/in", True),
        ("s3://bucket/in/", "s3://bucket/in/a.png", True),
        ("s3://bucket/in", "s3://bucket/in-2/a.png", False),
        ("s3://bucket/in", "s3://bucket/", False),
        ("s3://bucket/in", "s3://bucket/IN/a.png", False),
        ("s3://bucket/a b%", "s3://bucket/a b%/ü#?.png", True),
        ("s3://bucket", "/bucket", False),
    ],
)
def test_prefixes_of_buckets(prefix: str, place: str, is_allowed: bool, tmp_path: Path) -> None:
    places = AllowedPlaces([prefix], tmp_path)
    for check in (places.check_input, places.check_results):
        if is_allowed:
            assert check(check(place)) == check(place)  # it can be checked again
        else:
            with pytest.raises(OutputError, match="not in a place that the operator"):
                check(place)
    if is_allowed:
        assert places.check_results(place).endswith("/")


def test_links_of_this_computer_are_followed(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "allowed-not"
    (allowed / "in").mkdir(parents=True)
    secret.mkdir()
    (allowed / "out").symlink_to(secret)
    (allowed / "again").symlink_to(allowed / "in")
    (tmp_path / "door").symlink_to(allowed)
    places = AllowedPlaces([str(tmp_path / "door")], tmp_path / "data")
    assert places.check_input(str(tmp_path / "door" / "in")) == str(allowed / "in")
    assert places.check_input(str(allowed / "again")) == str(allowed / "in")
    assert places.check_results(str(allowed / "new" / "er")) == f"{allowed}/new/er/"
    for wrong in (secret, allowed / "out", allowed / "out" / "deeper", tmp_path):
        with pytest.raises(OutputError, match="not in a place that the operator"):
            places.check_results(str(wrong))
    for impossible in (f"{allowed}/in/../../x", "in", "~/in", f"{allowed}/*"):
        with pytest.raises(ArgumentError, match="without \\.\\.|does not exist"):
            places.check_input(impossible)


def test_the_folder_of_the_service_is_private(tmp_path: Path) -> None:
    for prefix in (tmp_path, tmp_path / "data", tmp_path / "data" / "uploads"):
        with pytest.raises(ArgumentError, match="contain each other"):
            AllowedPlaces([str(prefix)], tmp_path / "data")


@pytest.mark.parametrize(
    "prefix",
    [
        "s3://b/a\\b",
        "s3://b/a%255cb",
        "https://host/",
        "scans",
        "",
        "s3:/bucket",
        "s3://",
        "ftp://host/x",
        "s3://b/../c",
    ],
)
def test_prefixes_that_cannot_be_used(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        AllowedPlaces([prefix], tmp_path)


def test_without_prefixes_nothing_is_allowed(tmp_path: Path) -> None:
    places = AllowedPlaces([], tmp_path / "data")
    assert not places
    with pytest.raises(OutputError):
        places.check_input(str(tmp_path))
