"""Chapter 8, pictures and examples 1 to 4 and 10: the parts a reader would copy."""

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from child_tasks import Deadly
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    pytest.skip("needs opencv-python-headless", allow_module_level=True)

import example01_read_and_look as reading
import example02_greyscale as greyscale
import example03_simple_threshold as simple
import example04_adaptive_thresholds as adaptive
import example10_batch_that_goes_on as batch
import generate_input as pictures
from reader import STRICTLY

LIMIT = 30.0  # seconds that nothing here comes near to

Picture = NDArray[np.uint8]

sizes = st.integers(1, 40)
greys = npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=30))
# Few different values: pixels at the level, and ties, are frequent.
flat_greys = npst.arrays(
    np.uint8,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.sampled_from([0, 1, 100, 101, 254, 255]),
)


# -- generate_input


def test_the_portrait_is_the_one_that_is_meant() -> None:
    portrait = pictures.grace_hopper()
    assert portrait.shape == (600, 512, 3)
    blue, _, red = portrait[50, 500]  # of the background
    assert blue > red


def test_the_same_seed_gives_the_same_page_and_another_one_another() -> None:
    page = pictures.scene(300, 200, seed=1)
    assert page.shape == (200, 300, 3)
    assert (page == pictures.scene(300, 200, seed=1)).all()
    assert (page != pictures.scene(300, 200, seed=2)).any()
    assert (pictures.ink(300, 200, 1) != pictures.ink(300, 200, 2)).any()
    # Also where nobody has written, light and noise are others.
    corner = np.s_[:10, :10]
    assert (page[corner] != pictures.scene(300, 200, seed=2)[corner]).any()


def test_ink_is_where_the_page_is_darker_than_around() -> None:
    page, is_ink = pictures.scene(800, 600, 3), pictures.ink(800, 600, 3)
    assert 0.02 < is_ink.mean() < 0.3
    grey = page.mean(axis=2)
    for rows in range(0, 600, 100):
        for columns in range(0, 800, 100):
            part = np.s_[rows : rows + 100, columns : columns + 100]
            if 200 < is_ink[part].sum() < 9_800:
                assert (
                    grey[part][is_ink[part]].mean() < grey[part][~is_ink[part]].mean()
                )


def test_paper_in_the_shadow_is_darker_than_ink_in_the_light() -> None:
    page, is_ink = pictures.scene(1200, 900), pictures.ink(1200, 900)
    grey = page.mean(axis=2)
    assert np.percentile(grey[~is_ink], 10) < np.percentile(grey[is_ink], 90)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_page_or_a_tile_without_a_pixel_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="has no pixel"):
        pictures.scene(*size)
    with pytest.raises(ValueError, match="cannot cut"):
        pictures.cut_into_tiles(np.zeros((9, 9), np.uint8), *size)


def test_a_picture_without_a_pixel_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        pictures.cut_into_tiles(np.zeros((0, 5), np.uint8))


@given(height=sizes, width=sizes, tile_width=sizes, tile_height=sizes)
def test_tiles_put_together_are_the_picture(
    height: int, width: int, tile_width: int, tile_height: int
) -> None:
    picture = np.arange(height * width * 3).astype(np.uint8).reshape(height, width, 3)
    tiles = pictures.cut_into_tiles(picture, tile_width, tile_height)
    n_columns = max(1, width // tile_width)
    rows = [
        np.hstack(tiles[start : start + n_columns])
        for start in range(0, len(tiles), n_columns)
    ]
    assert (np.vstack(rows) == picture).all()
    assert len(tiles) == n_columns * max(1, height // tile_height)
    for tile in tiles:
        assert np.shares_memory(tile, picture)
        assert min(height, tile_height) <= tile.shape[0] < 2 * max(tile_height, height)
        assert min(width, tile_width) <= tile.shape[1]
        assert tile.shape[1] < 2 * tile_width or n_columns == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 9, 10])
def test_as_many_tiles_as_wanted_are_written_no_two_alike(
    n: int, tmp_path: Path
) -> None:
    files = pictures.write_tiles(tmp_path, n, 60, 50)
    assert sorted(tmp_path.iterdir()) == files
    tiles = [reading.read_picture(file) for file in files]
    assert {tile.shape for tile in tiles} == {(50, 60, 3)}
    assert len({tile.tobytes() for tile in tiles}) == n
    n_columns = next(k for k in range(1, n + 1) if k * k >= n)
    page = pictures.scene(60 * n_columns, 50 * -(-n // n_columns))
    assert (tiles[0] == page[:50, :60]).all()
    assert n == 1 or (tiles[1] == page[:50, 60:120]).all()


def test_no_tile_is_not_a_number_of_tiles(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 tile, not 0"):
        pictures.write_tiles(tmp_path, 0)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        pictures.write_picture(tmp_path / "nowhere" / "a.png", pictures.scene(9, 9))


def test_pictures_go_into_a_new_folder_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "ö"
    page = pictures.scene(40, 30)
    pictures.write_pictures(folder, {"one": page, "two": page[:, ::-1]})
    assert [file.name for file in sorted(folder.iterdir())] == ["one.png", "two.png"]
    assert (reading.read_picture(folder / "two.png") == page[:, ::-1]).all()


# -- example 1: read and look


def encoded(picture: Picture, suffix: str, *parameters: int) -> bytes:
    written, data = cv2.imencode(suffix, picture, parameters)
    assert written
    return data.tobytes()


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """Return a JPEG file that holds another one in a segment, as cameras write it."""
    segment = b"Exif\0\0" + thumbnail
    length = (len(segment) + 2).to_bytes(2)
    return jpeg[:2] + b"\xff\xe1" + length + segment + jpeg[2:]


PAGE = pictures.scene(64, 48)
WHOLE_FILES = {
    "a.png": encoded(PAGE, ".png"),
    "a.jpg": encoded(PAGE, ".jpg"),
    "progressive.jpg": encoded(PAGE, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts.jpg": encoded(PAGE, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "grey.jpg": encoded(PAGE[:, :, 0], ".jpg"),
    "thumbnail.jpg": with_thumbnail(encoded(PAGE, ".jpg"), encoded(PAGE, ".jpg")),
}


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_whole_picture_is_read_also_with_something_behind_it(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    for behind in (b"", b"\0\0\0", b"what a camera adds"):
        file.write_bytes(WHOLE_FILES[name] + behind)
        assert reading.read_picture(file).shape == PAGE.shape


def test_a_png_file_gives_back_every_pixel_under_any_name(tmp_path: Path) -> None:
    file = tmp_path / "Grüße, ★.png"
    file.write_bytes(WHOLE_FILES["a.png"])
    assert (reading.read_picture(file) == PAGE).all()


@pytest.mark.parametrize("name", WHOLE_FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_file_that_breaks_off_is_taken_for_a_picture(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    whole = WHOLE_FILES[name]
    length = data.draw(st.integers(0, len(whole) - 1) | st.just(len(whole) - 1))
    is_whole = reading.is_whole_png if name == "a.png" else reading.is_whole_jpeg
    assert is_whole(whole)
    assert not is_whole(whole[:length])  # not every version of OpenCV would notice
    file = tmp_path / name
    file.write_bytes(whole[:length])
    with pytest.raises(ValueError, match=name):
        reading.read_picture(file)


@given(at=st.integers(8, len(WHOLE_FILES["a.png"]) - 1), bit=st.integers(0, 7))
def test_a_png_file_with_a_wrong_bit_is_not_whole(at: int, bit: int) -> None:
    data = bytearray(WHOLE_FILES["a.png"])
    assert reading.is_whole_png(bytes(data))
    data[at] ^= 1 << bit
    assert not reading.is_whole_png(bytes(data))


def test_errors_name_the_file_and_nothing_goes_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in reading.troublesome_files(tmp_path).values():
        if file.name == "whole.jpg":
            assert reading.read_picture(file).shape == (600, 512, 3)
        elif file.name == "missing.png":
            with pytest.raises(FileNotFoundError) as missing:
                reading.read_picture(file)
            assert missing.value.filename == str(file)
        else:
            with pytest.raises(ValueError) as error:  # noqa: PT011
                reading.read_picture(file)
            assert str(error.value).startswith(f"{file}: ")
    with pytest.raises(OSError, match=tmp_path.name):
        reading.read_picture(tmp_path)
    assert capfd.readouterr() == ("", "")


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4)
    return len(data).to_bytes(4) + kind + data + checksum


def test_a_picture_too_large_for_opencv_is_one_clear_line(tmp_path: Path) -> None:
    size = (100_000).to_bytes(4)
    header = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    file = tmp_path / "bomb.png"
    file.write_bytes(reading.PNG + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"bomb\.png: OpenCV refuses it") as error:
        reading.read_picture(file)
    assert "\n" not in str(error.value)


def test_an_option_names_the_file_that_is_no_picture_and_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "half.bmp"
    file.write_bytes(encoded(PAGE, ".bmp")[:5000])
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(argparse.ArgumentTypeError, match=r"half\.bmp: no picture"):
        reading.picture_file(str(file))
    with pytest.raises(argparse.ArgumentTypeError, match=r"missing\.png"):
        reading.picture_file(str(tmp_path / "missing.png"))
    assert cv2.utils.logging.getLogLevel() == level
    assert capfd.readouterr() == ("", "")


def test_stderr_is_caught_and_given_back_also_after_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stderr"
    descriptors = psutil.Process().num_fds() if os.name == "posix" else 0

    def fail() -> None:
        os.write(2, b"caught")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), reading.stderr_in(file):
        fail()
    os.write(2, b"seen")
    assert file.read_text() == "caught"
    assert capfd.readouterr().err == "seen"
    if os.name == "posix":
        assert psutil.Process().num_fds() == descriptors


# -- example 2: greyscale


@given(
    npst.arrays(
        np.uint8,
        st.tuples(sizes, sizes, st.just(3)),
        elements=st.integers(0, 255) | st.sampled_from([0, 1, 254, 255]),
    )
)
def test_the_luma_formula_is_opencvs_within_one_level(picture: Picture) -> None:
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    assert greyscale.difference(greyscale.luma(picture), grey).max() <= 1


def test_grey_stays_what_it_is_in_either_way() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    coloured = np.dstack([grey] * 3)
    assert (greyscale.luma(coloured) == grey).all()
    assert (greyscale.plain_mean(coloured) == grey).all()


def test_of_the_pure_colours_green_is_the_brightest_and_blue_the_darkest() -> None:
    pure = np.array([list(greyscale.PURE.values())], np.uint8)
    assert list(greyscale.luma(pure)[0]) == [29, 150, 76]
    assert list(greyscale.plain_mean(pure)[0]) == [85, 85, 85]


def test_a_difference_does_not_wrap_around() -> None:
    black, white = np.zeros((1, 1), np.uint8), np.full((1, 1), 255, np.uint8)
    assert (
        greyscale.difference(black, white) == greyscale.difference(white, black) == 255
    )


# -- example 3: simple threshold


@pytest.mark.parametrize("name", simple.KINDS)
@given(grey=flat_greys, level=st.sampled_from([0, 1, 99, 100, 101, 254, 255]))
def test_each_kind_of_threshold_is_its_definition(
    name: str, grey: Picture, level: int
) -> None:
    kind, definition = simple.KINDS[name]
    before = grey.copy()
    cut = definition(grey, level)
    assert cut.dtype == np.uint8
    assert (cut == cv2.threshold(grey, level, 255, kind)[1]).all()
    assert (grey == before).all()


@given(greys | flat_greys)
@example(np.full((3, 3), 7, np.uint8))
def test_otsus_level_is_the_best_of_all(grey: Picture) -> None:
    values = grey.ravel().astype(float)
    expected = np.zeros(256)
    for level in range(grey.min(), grey.max()):
        low, high = values[values <= level], values[values > level]
        shares = low.size * high.size / values.size**2
        expected[level] = shares * (high.mean() - low.mean()) ** 2
    best = simple.variances_between_classes(grey)
    assert best == pytest.approx(expected, rel=1e-9)
    assert best[simple.otsu_level(grey)] == best.max()
    found, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert best[int(found)] == pytest.approx(best.max(), rel=1e-6)


# -- example 4: adaptive thresholds


@given(
    grey=greys | flat_greys,
    block=st.integers(1, 20).map(lambda half: 2 * half + 1),
    less=st.integers(-20, 20) | st.sampled_from([-255, 255]),
)
def test_the_mean_method_is_opencvs_for_any_size_block_and_constant(
    grey: Picture, block: int, less: int
) -> None:
    expected = cv2.adaptiveThreshold(
        grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, less
    )
    cut = adaptive.mean_threshold(grey, block, less)
    assert cut.dtype == np.uint8
    assert (cut == expected).all()


@given(st.data())
def test_the_best_level_takes_the_fewest_pixels_for_what_they_are_not(
    data: st.DataObject,
) -> None:
    grey = data.draw(flat_greys)
    is_ink = data.draw(npst.arrays(np.bool_, grey.shape))
    wrong = [int((is_ink != (grey <= level)).sum()) for level in range(256)]
    assert wrong[adaptive.best_level(grey, is_ink)] == min(wrong)


def test_shares_are_of_those_asked_for() -> None:
    wrong = np.array([True, True, False, False, False])
    among = np.array([True, False, True, True, True])
    assert adaptive.share_of(wrong, among) == 25


# -- example 10: a batch that goes on


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Give a folder with six small pictures, and an empty one for the results."""
    given, output = tmp_path / "given", tmp_path / "output"
    given.mkdir()
    output.mkdir()
    pictures.write_tiles(given, 6, 80, 60)
    return given, output


def notebook(tmp_path: Path, deadly: str = "") -> batch.Notebook:
    (tmp_path / "notes").touch()
    return batch.Notebook(tmp_path / "notes", tmp_path / "given" / deadly)


def thresholded(source: Path) -> Picture:
    grey = cv2.cvtColor(reading.read_picture(source), cv2.COLOR_BGR2GRAY)
    method, kind = cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY
    cut = cv2.adaptiveThreshold(grey, 255, method, kind, batch.BLOCK, batch.LESS)
    return np.asarray(cut, np.uint8)


def check_results(sources: list[Path], output: Path) -> None:
    """Each source has its result and nothing else is there."""
    results = [batch.result_of(source, output) for source in sources]
    assert sorted(output.iterdir()) == sorted(results)
    for source, result in zip(sources, results, strict=True):
        assert (reading.read_picture(result)[:, :, 0] == thresholded(source)).all()


def test_all_is_finished_and_what_cannot_be_is_named(
    start_method: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given, output = tmp_path / "given", tmp_path / "output"
    given.mkdir()
    output.mkdir()
    batch.fill(given, 3)
    (given / "half.bmp").write_bytes(encoded(PAGE, ".bmp")[:5000])
    sources = batch.pictures_in(given)
    (given / "gone.jpg").unlink()
    seen: list[Path] = []
    failures = batch.run_batch(sources, output, 2, seen.append)
    assert {source.name: why for source, why in failures.items()} == {
        "empty.png": "empty",
        "gone.jpg": "No such file or directory",
        "half.bmp": "no picture that OpenCV can read",
        "half.jpg": "truncated or damaged",
        "half.png": "truncated or damaged",
        "letter.jpg": "no picture that OpenCV can read",
    }
    assert sorted(seen) == sources
    check_results(sources[-3:], output)
    assert not multiprocessing.active_children()
    assert capfd.readouterr() == ("", "")


def test_what_is_finished_is_not_read_again_unless_it_has_changed(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    notes = notebook(tmp_path)

    def names_read_again() -> set[str]:
        before, seen = notes.seen("read"), list[Path]()
        assert batch.run_batch(sources, output, 1, seen.append, notes) == {}
        assert sorted(seen) == sources
        check_results(sources, output)
        return set(notes.seen("read") - before)

    assert names_read_again() == {source.name for source in sources}
    assert names_read_again() == set()

    sources[0].write_bytes(sources[1].read_bytes())  # newer
    os.utime(sources[2], ns=(0, 0))  # older: another file has been put in its place
    batch.result_of(sources[3], output).unlink()
    result = batch.result_of(sources[4], output)
    time = result.stat().st_mtime_ns
    result.write_bytes(b"")  # after a power cut
    os.utime(result, ns=(time, time))
    expected = {source.name for source in (*sources[:1], *sources[2:5])}
    assert names_read_again() == expected
    assert names_read_again() == set()


def test_a_source_that_changes_while_it_is_read_is_done_again(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    source, other, *_ = batch.pictures_in(given)

    def change(step: str, _: Path) -> None:
        if step == "read":
            source.write_bytes(other.read_bytes())
            os.utime(source, ns=(0, 0))

    batch.threshold_file(source, output, tmp_path, change)
    assert batch.result_of(source, output).is_file()
    assert not batch.is_finished(source, output)


def test_a_result_is_whole_or_not_there(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    source = batch.pictures_in(given)[0]
    seen = []

    def look(step: str, _: Path) -> None:
        seen.append((step, list(output.iterdir())))

    batch.threshold_file(source, output, tmp_path, look)
    assert seen == [("read", []), ("written", [])]
    check_results([source], output)


def test_an_interruption_finishes_what_is_in_flight_and_the_next_run_the_rest(
    start_method: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    notes = notebook(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        batch.run_batch(sources, output, 1, batch.interrupted_at(2), notes)
    check_results(sources[:3], output)  # two outcomes, and one more in flight
    assert not multiprocessing.active_children()
    assert notes.seen("read") == Counter(source.name for source in sources[:3])
    assert batch.run_batch(sources, output, 1, witness=notes) == {}
    check_results(sources, output)
    assert notes.seen("read") == Counter(source.name for source in sources)


def test_a_worker_that_dies_loses_nothing(
    start_method: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    notes = notebook(tmp_path, deadly=sources[2].name)
    seen: list[Path] = []
    assert batch.run_batch(sources, output, 2, seen.append, notes) == {}
    assert sorted(seen) == sources
    check_results(sources, output)
    assert notes.seen("written")[sources[2].name] == 2
    assert not multiprocessing.active_children()


def test_a_picture_that_kills_every_worker_is_named_and_the_rest_finished(
    folders: tuple[Path, Path],
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    seen: list[Path] = []
    witness = Deadly(sources[1].name)
    failures = batch.run_batch(sources, output, 2, seen.append, witness)
    assert failures == {sources[1]: "kills whoever works on it"}
    assert sorted(seen) == sources
    check_results([source for source in sources if source != sources[1]], output)


def test_what_was_in_flight_when_a_worker_died_is_tried_one_at_a_time(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    how_many = []

    def spy(*arguments: Any) -> list[Path]:
        _, _, _, most, _ = arguments
        how_many.append(most)
        return work_off(*arguments)

    work_off = batch.work_off
    monkeypatch.setattr(batch, "work_off", spy)
    notes = notebook(tmp_path, deadly=sources[0].name)
    assert batch.run_batch(sources, output, 2, witness=notes) == {}
    assert how_many[:2] == [2 * batch.IN_FLIGHT, 1]


def test_what_cannot_be_put_in_its_place_is_named_and_the_rest_finished(
    folders: tuple[Path, Path],
) -> None:
    given, output = folders
    sources = batch.pictures_in(given)
    in_the_way = batch.result_of(sources[0], output)
    in_the_way.mkdir()
    (why,) = batch.run_batch(sources, output, 2).values()
    assert in_the_way.name in why
    in_the_way.rmdir()
    check_results(sources[1:], output)


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_as_many_are_in_flight_as_asked_for_and_no_more(most: int) -> None:
    """The pool does a job only when `most` are there, or when there are no more."""
    sources = deque(Path(str(number)) for number in range(7))
    last, noted = sources[-1], []
    in_flight: list[Future[None]] = []

    class Pool:
        def submit(self, _: object, source: Path) -> Future[None]:
            in_flight.append(Future())
            assert len(in_flight) <= most
            future = in_flight[-1]
            while len(in_flight) == most or (in_flight and source == last):
                in_flight.pop(0).set_result(None)
            return future

    pool: Any = Pool()
    lost = batch.work_off(
        sources, pool, print, most, lambda source, _: noted.append(source)
    )
    assert (lost, len(noted), len(sources)) == ([], 7, 0)


def test_a_pool_that_is_broken_before_it_gets_a_job_loses_none() -> None:
    class Broken:
        def submit(self, *_: object) -> Future[None]:
            raise BrokenProcessPool

    sources = deque([Path("a"), Path("b")])
    broken: Any = Broken()
    assert batch.work_off(sources, broken, print, 2, print) == []
    assert list(sources) == [Path("a"), Path("b")]


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    results = {
        batch.result_of(tmp_path / name, tmp_path) for name in ("a.png", "a.jpg")
    }
    assert len(results) == 2


def test_only_what_is_called_a_picture_is_taken_for_one(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c.webp"):
        (tmp_path / name).touch()
    found = [file.name for file in batch.pictures_in(tmp_path)]
    assert found == ["a.png", "b.JPG", "c.webp"]


def test_reasons_are_short_but_name_another_file() -> None:
    source = Path("a.png")
    full = OSError(28, "No space left on device", "b.png")
    assert batch.reason(source, full) == "b.png: No space left on device"
    gone = FileNotFoundError(2, "No such file or directory", "a.png")
    assert batch.reason(source, gone) == "No such file or directory"
    assert batch.reason(source, ValueError(f"{source}: empty")) == "empty"
    assert batch.reason(source, TypeError("oops")) == "TypeError: oops"


SCRIPT = Path(batch.__file__)


def own_folder(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *STRICTLY, SCRIPT, *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_folder_of_ones_own_is_done_and_the_status_tells_of_failures(
    folders: tuple[Path, Path],
) -> None:
    given, output = folders
    output.rmdir()
    run = own_folder("--input", given, "--output", output)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "6 of 6 finished\n"
    (given / "half.bmp").write_bytes(encoded(PAGE, ".bmp")[:5000])
    run = own_folder("--input", given, "--output", output)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.splitlines() == [
        f"{given / 'half.bmp'}: no picture that OpenCV can read",
        "6 of 7 finished",
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    # Whoever reads this waits until somebody has opened it to write, and has closed it.
    waits = given / "tile_03_pipe.png"
    os.mkfifo(waits)
    sources = batch.pictures_in(given)
    assert sources.index(waits) == 4
    command = [sys.executable, SCRIPT, "--input", given, "--output", output]
    with subprocess.Popen(
        [*map(str, command), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        descriptor = None
        while descriptor is None and process.poll() is None:
            with suppress(OSError):  # nobody reads it yet
                descriptor = os.open(waits, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.01)
        assert descriptor is not None, process.communicate()
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        os.close(descriptor)
        out, err = process.communicate(timeout=LIMIT)
    # The one behind the pipe was in flight, and maybe the next.
    done = [source for source in sources if batch.is_finished(source, output)]
    assert done in (sources[:4], [*sources[:4], sources[5]])
    check_results(done, output)
    assert out == f"interrupted: {len(done)} of 7 finished; run it again for the rest\n"
    assert (process.returncode, err) == (130, "")
    assert not psutil.wait_procs(children, LIMIT)[1]
    waits.unlink()
    run = own_folder("--input", given, "--output", output)
    assert (run.returncode, run.stdout) == (0, "6 of 6 finished\n")


FORK_AFTER_THREADS = """
import os, signal, sys, warnings
from pathlib import Path
import cv2, numpy
import example10_batch_that_goes_on as batch
cv2.setNumThreads(2)
cv2.GaussianBlur(numpy.ones((2000, 2000, 3), numpy.uint8), (31, 31), 0)
warnings.simplefilter("ignore")  # from 3.12 on, that there are threads
if not (child := os.fork()):
    signal.alarm(8)  # seconds, if it waits for threads that are not there
    source, output, parts = map(Path, sys.argv[1:])
    batch.threshold_file(source, output, parts, batch.nobody)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_wait_for_the_threads_that_its_parent_had(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, output = folders
    paths = [given / "tile_00.png", output, tmp_path]
    pictures.write_picture(paths[0], pictures.scene(900, 900))
    command = [sys.executable, "-c", FORK_AFTER_THREADS, *map(str, paths)]
    run = subprocess.run(
        command, capture_output=True, cwd=SCRIPT.parent, timeout=60, check=True
    )
    assert run.stdout.split() == [b"7"]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_and_no_thread_is_there_when_processes_are_forked(
    folders: tuple[Path, Path],
) -> None:
    import pty
    import termios

    given, output = folders
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-W", "always", SCRIPT, "--input", given]
    with subprocess.Popen(
        [*map(str, command), "--output", str(output)], stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while piece := read_terminal(ours):
            shown += piece
        assert process.wait(LIMIT) == 0
    os.close(ours)
    assert b" 6/6 [" in shown
    assert b"Warning" not in shown


def read_terminal(descriptor: int) -> bytes:
    """Return what comes next, nothing at the end (which is an error on Linux)."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


# -- options


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (pictures, ["--tiles", "0"], "must be at least 1, not 0"),
        (pictures, ["--output", __file__], "--output"),
        (reading, ["--input", "nowhere.png"], "nowhere.png"),
        (greyscale, ["--input", __file__], "no picture that OpenCV can read"),
        (greyscale, ["--output", __file__], "--output"),
        (simple, ["--level", "256"], "must be from 0 to 255, not 256"),
        (simple, ["--level", "-1"], "must be from 0 to 255, not -1"),
        (simple, ["--output", __file__], "--output"),
        (adaptive, ["--block", "4"], "must be odd, from 3 to 999, not 4"),
        (adaptive, ["--block", "1"], "must be odd, from 3 to 999, not 1"),
        (adaptive, ["--block", "1001"], "must be odd, from 3 to 999, not 1001"),
        (adaptive, ["--less", "256"], "must be from -255 to 255, not 256"),
        (adaptive, ["--output", __file__], "--output"),
        (batch, ["--input", "."], "--input and --output belong together"),
        (batch, ["--output", "."], "--input and --output belong together"),
        (batch, ["--input", "nowhere", "--output", "."], "nowhere"),
        (batch, ["--input", ".", "--output", "."], "another folder than --input"),
        (batch, ["--input", ".", "--output", __file__], "test_chapter08"),
        (batch, ["--workers", "0"], "must be at least 1, not 0"),
        (batch, ["--workers", "62"], "must be at most 61, not 62"),
    ],
)
def test_a_bad_option_is_one_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert culprit in complaint(module, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", [pictures, greyscale, simple, adaptive])
def test_results_are_kept_in_the_folder_that_is_named(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--output", str(tmp_path / "new")])
    module.main()
    files = list((tmp_path / "new").iterdir())
    assert files
    for file in files:
        assert reading.read_picture(file).size
    assert capsys.readouterr().out.splitlines()
