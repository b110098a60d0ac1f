"""Pages of TIFF files that other programs wrote, and files of pages that other programs read."""

import shutil
import struct
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.pictures.tiff import directories
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.settings import Settings
from small_models import save_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile

UNCHANGED = Settings(strength=0)


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def run(*command: str | Path) -> str:
    """The output of another program; skips the test if it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def restore_file(path: Path, restorer: Restorer, settings: Settings = UNCHANGED) -> Path:
    """The result of a file in a folder next to it."""
    (outcome,) = restore(path, restorer, path.parent / "out", settings, overwrite=True)
    outcome.raise_error()
    assert isinstance(outcome.target, Path)
    return outcome.target


def restore_one(samples: Samples, restorer: Restorer) -> Samples:
    return restorer.restore(samples, strength=0)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    folder = tmp_path_factory.mktemp("weights")
    return load(save_weights(folder, "dncnn.gaussian", depth=3, width=4, channels=1))


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return load(save_weights(tmp_path_factory.mktemp("weights"), "srcnn.paper", mapping_px=1, scale=2))


def test_pages_of_different_kinds_come_back_as_pages(tmp_path: Path, denoiser: Restorer) -> None:
    pages = [noise(9, 11, 3), noise(30, 7, dtype="uint16"), noise(5, 6, 4, dtype="uint16")]
    with tifffile.TiffWriter(tmp_path / "x.tif", bigtiff=False) as file:
        file.write(pages[0], photometric="rgb", compression="zlib", description="first", metadata=None)
        file.write(pages[1], photometric="minisblack", compression=None, metadata=None)
        file.write(
            pages[2], photometric="rgb", extrasamples=[2], tile=(16, 16), metadata=None, resolution=(300, 300)
        )
    result = restore_file(tmp_path / "x.tif", denoiser)
    with tifffile.TiffFile(result) as file:
        read = [page.aspage() for page in file.pages]
    assert len(read) == 3
    for number, samples in enumerate(pages):
        assert np.array_equal(tifffile.imread(result, key=number), samples)
    assert [page.description for page in read] == ["first", "", ""]
    assert [int(page.compression) for page in read] == [8, 1, 1]
    assert read[2].tags["XResolution"].value == (300, 1)
    assert [page.tags["PageNumber"].value for page in read] == [(0, 3), (1, 3), (2, 3)]
    assert run("tiffinfo", "-D", result).count("TIFF Directory") == 3


def test_pages_joined_by_libtiff_are_enlarged_each(tmp_path: Path, enlarger: Restorer) -> None:
    for name, samples in (("a", noise(9, 11, 3)), ("b", noise(12, 5))):
        tifffile.imwrite(tmp_path / f"{name}.tif", samples)
    (tmp_path / "all").mkdir()
    run("tiffcp", "-c", "lzw", tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "all" / "x.tif")
    result = restore_file(tmp_path / "all" / "x.tif", enlarger)
    assert run("convert", result, "-format", "%wx%h ", "info:").split() == ["22x18", "10x24"]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_one_page_is_chosen_by_its_number(byteorder: Any, bigtiff: bool, tmp_path: Path) -> None:
    pages = noise(3, 9, 11, 3, dtype="uint16")
    options = {"byteorder": byteorder, "bigtiff": bigtiff, "photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "x.tif", pages, **options)
    assert np.array_equal(images.read(tmp_path / "x.tif", page=2).samples, pages[1])
    with pytest.raises(PictureError, match=r"x\.tif has 3 pages; one is needed; page=1 chooses one"):
        images.read(tmp_path / "x.tif")
    for number in (0, 4):
        with pytest.raises(PictureError, match=f"has 3 pages; there is no page {number}"):
            images.read(tmp_path / "x.tif", page=number)


def test_other_formats_have_one_page(tmp_path: Path) -> None:
    images.write(Picture.from_array(noise(4, 5)), tmp_path / "x.png")
    assert images.read(tmp_path / "x.png", page=1).width == 5
    with pytest.raises(PictureError, match="has one page; there is no page 2"):
        images.read(tmp_path / "x.png", page=2)


def test_several_pages_need_a_format_with_pages(tmp_path: Path, denoiser: Restorer) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(2, 9, 11, 3), photometric="rgb")
    (outcome,) = restore(tmp_path / "x.tif", denoiser, format="png")
    with pytest.raises(OutputError, match=r"x\.tif has 2 pages, and PNG can store one; .* page=1"):
        outcome.raise_error()
    (outcome,) = restore(tmp_path / "x.tif", denoiser, None, Settings(page=2, strength=0), format="png")
    outcome.raise_error()
    assert isinstance(outcome.target, Path)
    assert np.array_equal(images.read(outcome.target).samples, tifffile.imread(tmp_path / "x.tif")[1])


@pytest.mark.parametrize("truncate", [False, True])
def test_imagej_stacks_stay_imagej_stacks(truncate: bool, tmp_path: Path, denoiser: Restorer) -> None:
    stack = noise(2, 3, 2, 9, 11, dtype="uint16")
    metadata = {"axes": "TZCYX", "spacing": 2.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "x.tif", stack, imagej=True, metadata=metadata, truncate=truncate)
    with tifffile.TiffFile(restore_file(tmp_path / "x.tif", denoiser)) as file:
        (series,) = file.series
        assert (series.kind, series.axes) == ("imagej", "TZCYX")
        assert np.array_equal(series.asarray(), stack)
        assert file.imagej_metadata is not None and file.imagej_metadata["spacing"] == 2.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_samples_of_stacks_follow_each_other(dtype: str, tmp_path: Path, denoiser: Restorer) -> None:
    """Readers of ImageJ's stacks take the offset of the first page, and read on."""
    stack = noise(2, 45, 63, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", stack, imagej=True, metadata={"axes": "ZYX", "unit": "um"})
    result = restore_file(tmp_path / "x.tif", denoiser)
    assert np.array_equal(tifffile.imread(result), stack)
    with tifffile.TiffFile(result) as file:
        start = file.pages.first.dataoffsets[0]
    assert (
        result.read_bytes()[start : start + stack.nbytes] == stack.astype(stack.dtype.newbyteorder("<")).tobytes()
    )


def test_stacks_of_tifffile_in_one_directory_get_one_for_each_page(tmp_path: Path, enlarger: Restorer) -> None:
    stack = noise(3, 9, 11, dtype="uint16")
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", truncate=True)
    with tifffile.TiffFile(restore_file(tmp_path / "x.tif", enlarger)) as file:
        assert (file.series[0].kind, file.series[0].shape, len(file.pages)) == ("shaped", (3, 18, 22), 3)
        expected = [restore_one(samples, enlarger) for samples in stack]
        assert np.array_equal(file.series[0].asarray(), expected)


def test_ome_stacks_keep_their_axes(tmp_path: Path, enlarger: Restorer) -> None:
    stack = noise(2, 3, 9, 11)
    metadata = {"axes": "CZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(tmp_path / "x.ome.tif", stack, photometric="minisblack", metadata=metadata)
    with tifffile.TiffFile(restore_file(tmp_path / "x.ome.tif", enlarger)) as file:
        (series,) = file.series
        assert (series.kind, series.axes, series.shape) == ("ome", "CZYX", (2, 3, 18, 22))
        expected = [[restore_one(plane, enlarger) for plane in channel] for channel in stack]
        assert np.array_equal(series.asarray(), expected)
        assert 'PhysicalSizeX="0.25"' in str(file.ome_metadata)


def test_one_page_of_a_stack_loses_the_description_of_the_stack(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(3, 9, 11), imagej=True)
    picture = images.read(tmp_path / "x.tif", page=1)
    assert picture.encoding is not None
    assert "the description of the whole stack is not kept" in picture.encoding.notes
    images.write(picture, tmp_path / "one.tif")
    with tifffile.TiffFile(tmp_path / "one.tif") as file:
        assert not file.is_imagej and len(file.pages) == 1


def test_an_ome_tiff_of_several_files_is_refused(tmp_path: Path) -> None:
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels>'
        '<TiffData IFD="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(9, 11), description=text, metadata=None)
    with pytest.raises(PictureError, match="one of several files of an OME-TIFF"):
        images.read(tmp_path / "a.ome.tif")


def test_smaller_copies_and_masks_are_dropped_with_a_note(tmp_path: Path, denoiser: Restorer) -> None:
    picture = noise(32, 48, 3)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(picture, photometric="rgb", subifds=1, metadata=None)
        file.write(picture[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(picture[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(noise(32, 48) > 99, photometric="minisblack", subfiletype=4, metadata=None)
    read = images.read(tmp_path / "x.tif")
    assert read.encoding is not None and np.array_equal(read.samples, picture)
    assert read.encoding.notes == (
        "2 smaller copies of the picture in the file are not kept",
        "1 mask in the file is not kept",
    )
    with tifffile.TiffFile(restore_file(tmp_path / "x.tif", denoiser)) as file:
        assert len(file.pages) == 1 and file.pages[0].subifds is None


def test_a_smaller_copy_in_front_is_not_the_picture(tmp_path: Path) -> None:
    picture = noise(32, 48, 3)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(picture[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(picture, photometric="rgb", metadata=None)
    assert np.array_equal(images.read(tmp_path / "x.tif").samples, picture)


@pytest.mark.parametrize("is_below", [False, True])
def test_a_picture_after_a_thumbnail_has_its_metadata(is_below: bool, tmp_path: Path) -> None:
    """TIFF/EP, as cameras write it: the first directory is a thumbnail with the metadata of the photograph."""
    picture = noise(32, 48, 3)
    tags = [(315, 2, 0, "Artist", True), (274, 3, 1, 6, True)]
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(
            picture[::4, ::4],
            photometric="rgb",
            subfiletype=1,
            subifds=int(is_below),
            metadata=None,
            extratags=tags,
        )
        file.write(picture, photometric="rgb", metadata=None)
    read = images.read(tmp_path / "x.tif")
    assert read.encoding is not None and np.array_equal(read.samples, np.rot90(picture, -1))
    assert read.encoding.notes == ("1 smaller copy of the picture in the file is not kept",)
    images.write(read, tmp_path / "y.tif")
    with tifffile.TiffFile(tmp_path / "y.tif") as written:
        assert written.pages.first.tags["Artist"].value == "Artist"


def test_the_old_tag_of_smaller_copies_counts(tmp_path: Path) -> None:
    """SubfileType of TIFF 5.0: 2 is a smaller copy."""
    picture = noise(32, 48, 3)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(picture, photometric="rgb", metadata=None, extratags=[(255, 3, 1, 1, True)])
        file.write(picture[::2, ::2], photometric="rgb", metadata=None, extratags=[(255, 3, 1, 2, True)])
    read = images.read(tmp_path / "x.tif")
    assert read.encoding is not None and np.array_equal(read.samples, picture)
    assert read.encoding.notes == ("1 smaller copy of the picture in the file is not kept",)


def test_another_picture_below_the_first_is_not_called_a_copy(tmp_path: Path) -> None:
    picture = noise(32, 48, 3)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(picture, photometric="rgb", subifds=2, metadata=None)
        file.write(255 - picture, photometric="rgb", metadata=None)
        file.write(picture[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    read = images.read(tmp_path / "x.tif")
    assert read.encoding is not None and np.array_equal(read.samples, picture)
    assert read.encoding.notes == (
        "1 smaller copy of the picture in the file is not kept",
        "1 other picture (SubIFD) in the file is not kept",
    )


@pytest.mark.parametrize("subifd", [False, True])
def test_pyramids_of_libvips_are_one_picture(subifd: bool, tmp_path: Path) -> None:
    samples = noise(300, 400, 3)
    image = pyvips.Image.new_from_array(samples)
    image.tiffsave(str(tmp_path / "x.tif"), pyramid=True, tile=True, subifd=subifd)
    read = images.read(tmp_path / "x.tif")
    assert read.encoding is not None and np.array_equal(read.samples, samples)
    assert "smaller" in read.encoding.notes[0] and "not kept" in read.encoding.notes[0]


def test_a_loop_of_pages_is_damage(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(3, 9, 11), photometric="minisblack", byteorder="<", metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        first, last = file.pages[0].offset, file.pages[2].offset
        num_tags = len(file.pages[2].aspage().tags)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    struct.pack_into("<I", content, last + 2 + 12 * num_tags, first)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(PictureError, match=r"x\.tif is a damaged TIFF: its chain of pages is a loop"):
        images.read(tmp_path / "x.tif", page=1)


def test_damage_of_a_later_page_is_an_error_that_names_it(tmp_path: Path, denoiser: Restorer) -> None:
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "metadata": None}
    tifffile.imwrite(tmp_path / "x.tif", noise(3, 19, 21, 3), **options)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        start, length = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[start : start + length] = bytes(length)
    (tmp_path / "x.tif").write_bytes(content)
    (outcome,) = restore(tmp_path / "x.tif", denoiser)
    assert outcome.error is not None and "x.tif, page 2, is damaged" in str(outcome.error)
    assert not (tmp_path / "x-restored.tif").exists()


@pytest.mark.parametrize("bigtiff", [False, True])
def test_samples_that_are_missing_read_as_the_end_of_the_file(bigtiff: bool, tmp_path: Path) -> None:
    """And not as the directory that follows them: a decoder has to see that the file is truncated."""
    tifffile.imwrite(tmp_path / "x.tif", noise(40, 50), photometric="minisblack", metadata=None, bigtiff=bigtiff)
    content = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(content[:-500])
    with directories.open_page(directories.find_pages(tmp_path / "x.tif").pages[0]) as file:
        file.seek(len(content) - 510)
        assert file.read(20) == content[-510:-500]


NUMBERS: dict[int, tuple[float, ...]] = {
    1: (1, 255), 3: (1, 65535), 4: (1, 2**32 - 1), 6: (-1, 2), 8: (-1, 2), 9: (-1, 2), 11: (0.5, -2),
    12: (0.1, -2), 13: (1, 2), 16: (1, 2**63), 17: (-1, 2), 18: (1, 2**63),
}  # fmt: skip
"""Type, as the TIFF specifications number them -> two numbers."""


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_numbers_of_every_type_are_read(byteorder: Any, kind: int, tmp_path: Path) -> None:
    tags: Any = [(65_000, kind, 2, NUMBERS[kind], True)]
    options: dict[str, Any] = {"byteorder": byteorder, "bigtiff": kind >= 16, "extratags": tags}
    tifffile.imwrite(tmp_path / "x.tif", noise(4, 5), photometric="minisblack", metadata=None, **options)
    (page,) = directories.find_pages(tmp_path / "x.tif").pages
    assert page.directory.numbers(65_000) == NUMBERS[kind]


def test_a_truncated_stack_is_an_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(5, 40, 50), imagej=True, truncate=True)
    content = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(content[:-2500])
    with pytest.raises(PictureError, match="its description specifies 5 pictures, more than it has bytes for"):
        images.read(tmp_path / "x.tif", page=1)


def test_a_volume_in_one_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(16, 32, 32), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(PictureError, match="is a volume of 16 slices in one page"):
        images.read(tmp_path / "x.tif")


def test_large_stacks_are_written_as_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = noise(3, 9, 11, dtype="uint16")
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", metadata=None)
    pages = directories.find_pages(tmp_path / "x.tif")
    monkeypatch.setattr(directories, "CLASSIC_BYTES", 100)
    images.write_pages((images.read_page(page) for page in pages.pages), tmp_path / "big.tif", pages)
    with tifffile.TiffFile(tmp_path / "big.tif") as file:
        assert file.is_bigtiff and np.array_equal(file.asarray(), stack)


def test_only_one_page_is_in_memory(tmp_path: Path) -> None:
    """Each page is written before the next one is read."""
    tifffile.imwrite(tmp_path / "x.tif", noise(4, 9, 11), photometric="minisblack", metadata=None)
    pages = directories.find_pages(tmp_path / "x.tif")
    sizes = []

    def read_pages() -> Any:
        for page in pages.pages:
            sizes.append(sum(path.stat().st_size for path in tmp_path.glob("*.part")))
            yield images.read_page(page)

    images.write_pages(read_pages(), tmp_path / "y.tif", pages)
    assert sizes == sorted(set(sizes))


def test_odd_tags_are_not_damage(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(9, 11, 3), photometric="rgb", metadata=None)
    run("tiffset", "-s", "274", "0", tmp_path / "x.tif")
    assert images.read(tmp_path / "x.tif").width == 11


def test_a_sidecar_and_a_wrong_suffix_of_pages_count(tmp_path: Path, denoiser: Restorer) -> None:
    source = tmp_path / "x.png"
    with tifffile.TiffWriter(source) as file:
        for seed in range(2):
            file.write(noise(9, 11, seed=seed), photometric="minisblack", metadata=None)
    (tmp_path / "x.png.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta>'
    )
    (outcome,) = restore(source, denoiser, tmp_path / "y.tif", Settings(strength=0, sidecars=True))
    outcome.raise_error()
    assert "a TIFF file, not PNG as its name says" in outcome.info
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert b'xmp:Rating="5"' in file.pages[0].aspage().tags["XMP"].value
        assert "XMP" not in file.pages[1].aspage().tags
