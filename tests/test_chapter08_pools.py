"""Chapter 8, examples 5 to 9: the parts a reader would copy."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest
from child_tasks import die, interrupting, no_such_filter
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    pytest.skip("needs opencv-python-headless", allow_module_level=True)

import example05_pool_that_pickles_images as pickling
import example06_pool_that_sends_names as naming
import example07_faces_in_many_pictures as faces
import example08_threads_names_pickles_side_by_side as beside
import example09_strips_with_halo_rows as strips
from example01_read_and_look import read_picture
from example07_faces_in_many_pictures import Box
from generate_input import grace_hopper, scene, write_picture, write_tiles

LIMIT = 30.0  # seconds that nothing here comes near to

Picture = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def no_threads_of_opencv() -> None:
    """Threads must not be forked, and here is forked."""
    cv2.setNumThreads(1)


def noise(*shape: int) -> Picture:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


# -- example05


def test_a_pool_that_pickles_gives_the_sequential_result(start_method: str) -> None:
    tiles = [scene(60, 40 + seed, seed) for seed in range(5)]
    with pickling.process_pool(2) as pool:
        found = pickling.threshold_with(pool, tiles)
    assert pickling.same_pixels(found, [pickling.threshold(tile) for tile in tiles])


def test_a_threshold_finds_writing_in_the_light_and_in_the_shadow() -> None:
    page = np.full((100, 200, 3), 200, np.uint8)
    page[:, 100:] = 60
    page[40:60, 40:44] //= 3
    page[40:60, 140:144] //= 3
    found = pickling.threshold(page)
    assert found.shape == (100, 200)
    assert not found[40:60, 40:44].any()
    assert not found[40:60, 140:144].any()
    assert found[10:30, 20:80].all()
    assert found[10:30, 120:180].all()


def test_moving_alone_moves_as_much() -> None:
    tile = scene(30, 20)
    nothing, result = pickling.compute_nothing(tile), pickling.threshold(tile)
    assert (nothing.shape, nothing.dtype) == (result.shape, result.dtype)


def test_every_pixel_is_counted_once_and_little_else() -> None:
    tiles = [noise(50, 70, 3), noise(1, 1, 3)]
    pixels = 50 * 70 * 3 + 3
    assert pixels < pickling.pickled_size(tiles) < pixels + 2 * 300
    assert pickling.pickled_size([]) == 0


def test_same_pixels_means_all_pixels_of_all_pictures() -> None:
    one, other = noise(4, 5), noise(4, 5)
    assert pickling.same_pixels([one, one], [other, other])
    assert pickling.same_pixels([], [])
    assert not pickling.same_pixels([one], [one, one])
    assert not pickling.same_pixels([one], [one[:3]])
    other[3, 4] ^= 1
    assert not pickling.same_pixels([one, one], [one, other])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_do_not_wait_for_threads_that_a_fork_left_behind(
    tmp_path: Path,
) -> None:
    """The parent has let OpenCV's threads run, against the advice, and they sleep."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, sys, time, cv2, numpy as np\n"
        f"sys.path.insert(0, {str(Path(pickling.__file__).parent)!r})\n"
        "import example05_pool_that_pickles_images as pickling\n"
        "multiprocessing.set_start_method('fork')\n"
        "cv2.setNumThreads(4)\n"
        "large = np.zeros((2000, 2000, 3), np.uint8)\n"
        "cv2.bilateralFilter(large, 5, 50, 50)\n"
        "time.sleep(0.3)\n"
        "with pickling.process_pool(2) as pool:\n"
        "    print(len(pickling.threshold_with(pool, [large[:50]] * 4)))\n"
    )
    command = [sys.executable, "-W", "ignore", str(program)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=2 * LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert printed == "4\n"


# -- example06


@pytest.fixture
def tiles(tmp_path: Path) -> list[Path]:
    return write_tiles(tmp_path, 4, 60, 50)


def jobs_for(tiles: list[Path], folder: Path) -> list[naming.Job]:
    folder.mkdir()
    return [(tile, folder / tile.name) for tile in tiles]


def test_a_pool_that_gets_names_writes_the_sequential_result(
    start_method: str, tiles: list[Path], tmp_path: Path
) -> None:
    one_by_one = jobs_for(tiles, tmp_path / "one_by_one")
    shared_out = jobs_for(tiles, tmp_path / "shared_out")
    for job in one_by_one:
        naming.threshold_file(job)
    with naming.process_pool(2) as pool:
        assert naming.threshold_files_with(pool, shared_out) == len(tiles)
    for (source, one), (_, other) in zip(one_by_one, shared_out, strict=True):
        assert naming.same_pixels(one, other)
        assert np.array_equal(
            np.asarray(cv2.imread(str(other), cv2.IMREAD_UNCHANGED)),
            naming.threshold(read_picture(source)),
        )


def test_a_file_that_is_no_picture_is_named_to_who_asked(
    tiles: list[Path], tmp_path: Path
) -> None:
    jobs = jobs_for(tiles, tmp_path / "results")
    tiles[1].write_bytes(b"no picture")
    with (
        naming.process_pool(1) as pool,
        pytest.raises(ValueError, match=tiles[1].name),
    ):
        naming.threshold_files_with(pool, jobs)
    assert jobs[0][1].exists()
    assert not jobs[1][1].exists()


def test_files_with_one_other_pixel_are_not_the_same(tmp_path: Path) -> None:
    picture = noise(5, 6, 3)
    for name in ("one.png", "other.png", "third.png"):
        write_picture(tmp_path / name, picture)
        if name == "other.png":
            picture[4, 5, 2] ^= 1
    assert naming.same_pixels(tmp_path / "one.png", tmp_path / "other.png")
    assert not naming.same_pixels(tmp_path / "one.png", tmp_path / "third.png")


# -- example07

boxes = st.builds(
    Box, st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)
)


def pixels_of(box: Box) -> set[tuple[int, int]]:
    return {
        (box.top + y, box.left + x) for y in range(box.height) for x in range(box.width)
    }


@given(boxes, boxes)
def test_overlap_is_intersection_over_union_of_pixels(one: Box, other: Box) -> None:
    a, b = pixels_of(one), pixels_of(other)
    assert one.overlap(other) == len(a & b) / len(a | b)
    assert one.overlap(one) == 1


def test_covered_wants_each_face_once_and_nothing_else() -> None:
    one, other = Box(0, 0, 10, 10), Box(50, 50, 10, 10)
    near = Box(0, 2, 10, 10)
    assert faces.covered([one, other], [other, near]) == 80 / 120
    assert faces.covered([], []) == 1
    assert faces.covered([one, other], [one]) is None
    assert faces.covered([one, other], [one, near]) is None
    assert faces.covered([one], [one, other]) is None
    assert faces.covered([one], [Box(0, 4, 10, 10)]) is None
    assert faces.covered([one], []) is None
    assert faces.covered([], [one]) is None


def test_the_face_of_the_portrait_is_found() -> None:
    found = faces.faces_in(grace_hopper())
    assert faces.covered([faces.FACE], found) is not None


@pytest.mark.parametrize("n_faces", [0, 1, 5, 12])
def test_faces_of_a_collage_are_found_where_they_were_put(n_faces: int) -> None:
    picture, places = faces.collage(grace_hopper(), n_faces, seed=100 + n_faces)
    assert len(places) == n_faces
    assert faces.covered(places, faces.faces_in(picture)) is not None


def test_places_of_a_collage_are_where_the_face_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a portrait that is dark but for the face, all that is light is the face."""
    portrait = np.zeros((600, 512, 3), np.uint8)
    face = Box(top=110, left=100, height=180, width=190)  # not in the middle
    monkeypatch.setattr(faces, "FACE", face)
    rows = slice(face.top, face.top + face.height)
    portrait[rows, face.left : face.left + face.width] = 250
    picture, places = faces.collage(portrait, 6, seed=3)
    for box in places:
        margin = 5
        inside = picture[
            box.top : box.top + box.height, box.left : box.left + box.width
        ]
        around = picture[
            box.top - margin : box.top + box.height + margin,
            box.left - margin : box.left + box.width + margin,
        ]
        assert inside[2:-2, 2:-2].min() > 100
        assert around[0].max() == around[-1].max() == 0
        assert around[:, 0].max() == around[:, -1].max() == 0


def test_collage_takes_no_more_faces_than_it_has_cells() -> None:
    with pytest.raises(ValueError, match="larger sample"):
        faces.collage(grace_hopper(), faces.N_CELLS + 1, seed=0)


def times_loaded(_: int) -> int:
    return faces.face_cascade.cache_info().misses


def test_workers_load_the_cascade_once_and_find_what_one_process_finds(
    start_method: str, tmp_path: Path
) -> None:
    faces.face_cascade.cache_clear()  # forked workers would inherit it
    portrait = grace_hopper()
    files = []
    for n_faces in (2, 1, 3, 0):
        files.append(tmp_path / f"{n_faces}.png")
        write_picture(files[-1], faces.collage(portrait, n_faces, seed=n_faces)[0])
    with faces.detector_pool(2) as pool:
        assert set(pool.map(times_loaded, range(4))) == {1}  # before any picture
        answers = list(pool.map(faces.faces_in_file, files))
    assert [answer.loaded for answer in answers] == [1, 1, 1, 1]
    assert os.getpid() not in {answer.worker for answer in answers}
    assert [answer.faces for answer in answers] == [
        faces.faces_in_file(file).faces for file in files
    ]
    assert [len(answer.faces) for answer in answers] == [2, 1, 3, 0]


# -- example08


def beside_jobs(tiles: list[Path], folder: Path) -> list[beside.Job]:
    folder.mkdir()
    return [beside.Job(tile, folder / tile.name, 5) for tile in tiles]


def test_four_ways_write_the_same_pictures(
    start_method: str, tiles: list[Path], tmp_path: Path
) -> None:
    jobs = {
        way: beside_jobs(tiles, tmp_path / way)
        for way in ("sequential", "pickles", "names", "threads")
    }
    with beside.process_pool(2) as pool, ThreadPoolExecutor(2) as threads:
        assert beside.one_by_one(jobs["sequential"]) == 4
        assert beside.with_pickles(pool, jobs["pickles"]) == 4
        assert beside.with_names(pool, jobs["names"]) == 4
        assert beside.with_threads(threads, jobs["threads"]) == 4
    right = [beside.denoise(read_picture(tile), 5) for tile in tiles]
    for its_jobs in jobs.values():
        written = [read_picture(job.target) for job in its_jobs]
        assert pickling.same_pixels(written, right)
        assert beside.results(its_jobs) == [
            (tmp_path / "sequential" / tile.name).read_bytes() for tile in tiles
        ]


def test_pickles_move_every_pixel_and_names_none(
    tiles: list[Path], tmp_path: Path
) -> None:
    jobs = beside_jobs(tiles, tmp_path / "results")
    beside.one_by_one(jobs)
    pixels = 4 * 60 * 50 * 3
    assert 2 * pixels < beside.moved_by_pickles(jobs) < 2 * pixels + 4 * 600
    assert 0 < beside.moved_by_names(jobs) < 4 * (500 + 2 * len(str(tmp_path)))


def test_the_bilateral_filter_takes_noise_and_leaves_edges() -> None:
    step = np.zeros((40, 40, 3), np.uint8)
    step[:, 20:] = 200
    noisy = step + noise(40, 40, 3) // 32
    calm = beside.denoise(noisy, 5)
    assert calm[:, :18].std() < noisy[:, :18].std() / 1.5
    assert (calm[:, 20].astype(int) - calm[:, 19]).min() > 150


# -- example09


@given(st.integers(0, 300), st.integers(1, 400), st.integers(0, 50))
def test_strips_cover_each_row_once_and_read_as_far_as_the_filter_reaches(
    n_rows: int, n_strips: int, reach: int
) -> None:
    cut = strips.strips_of(n_rows, n_strips, reach)
    written = [row for strip in cut for row in range(strip.first, strip.end)]
    assert written == list(range(n_rows))
    assert len(cut) == min(n_strips, n_rows)
    lengths = {strip.end - strip.first for strip in cut}
    assert not cut or 1 <= min(lengths) <= max(lengths) <= min(lengths) + 1
    for strip in cut:
        needed = range(strip.first - reach, strip.end + reach)
        read = range(strip.halo_first, strip.halo_end)
        assert set(read) == set(needed) & set(range(n_rows))


@pytest.mark.parametrize(("n_strips", "reach"), [(0, 1), (-1, 1), (1, -1)])
def test_no_strips_and_no_reach_are_refused(n_strips: int, reach: int) -> None:
    with pytest.raises(ValueError, match="need a strip and a reach"):
        strips.strips_of(5, n_strips, reach)


def gaussian(picture: strips.Picture, kernel: int, border: int) -> strips.Picture:
    blurred = cv2.GaussianBlur(picture, (kernel, kernel), 0, borderType=border)
    return np.asarray(blurred)


def box_blur(picture: strips.Picture, kernel: int, border: int) -> strips.Picture:
    return np.asarray(cv2.blur(picture, (kernel, kernel), borderType=border))


def dilation(picture: strips.Picture, kernel: int, border: int) -> strips.Picture:
    neighbours = np.ones((kernel, kernel), np.uint8)
    return np.asarray(cv2.dilate(picture, neighbours, borderType=border))


def median(picture: strips.Picture, kernel: int, border: int) -> strips.Picture:
    return np.asarray(cv2.medianBlur(picture, kernel))  # it has a border of its own


@st.composite
def pictures(draw: st.DrawFn) -> strips.Picture:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shape = (height, width, 3) if draw(st.booleans()) else (height, width)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(0, 256, shape, np.uint8)


kernels = st.integers(0, 40).map(lambda half: 2 * half + 1)


@given(
    pictures(),
    st.integers(1, 60),
    kernels,
    st.sampled_from([gaussian, box_blur, dilation, median]),
    st.sampled_from(
        [
            cv2.BORDER_REFLECT_101,
            cv2.BORDER_REFLECT,
            cv2.BORDER_REPLICATE,
            cv2.BORDER_CONSTANT,
        ]
    ),
)
def test_strips_with_halo_are_the_whole_picture_filtered(
    picture: strips.Picture,
    n_strips: int,
    kernel: int,
    filter_: Callable[..., strips.Picture],
    border: int,
) -> None:
    of_this_kernel = partial(filter_, kernel=kernel, border=border)
    before = picture.copy()
    found = strips.filter_in_strips(picture, n_strips, kernel // 2, of_this_kernel)
    assert np.array_equal(found, of_this_kernel(picture))
    assert np.array_equal(picture, before)


@given(pictures(), st.integers(1, 60), kernels)
def test_without_halo_only_rows_near_a_seam_are_wrong(
    picture: strips.Picture, n_strips: int, kernel: int
) -> None:
    smoothing = partial(strips.smooth, kernel=kernel)
    seamed = strips.filter_in_strips(picture, n_strips, 0, smoothing)
    wrong = strips.rows_that_differ(smoothing(picture), seamed)
    cut = strips.strips_of(len(picture), n_strips, 0)
    assert wrong <= strips.rows_near_seams(cut, kernel // 2)


def test_without_halo_the_seams_show_and_one_row_too_few_is_too_few() -> None:
    picture = noise(60, 50, 3)
    smoothing = partial(strips.smooth, kernel=9)
    whole = smoothing(picture)
    seamed = strips.filter_in_strips(picture, 3, 0, smoothing)
    assert strips.rows_that_differ(whole, seamed) == {
        *range(16, 24),
        *range(36, 44),
    }
    almost = strips.filter_in_strips(picture, 3, 3, smoothing)
    assert strips.rows_that_differ(whole, almost)


def test_rows_that_differ() -> None:
    one, other = noise(5, 4, 3), noise(5, 4, 3)
    assert strips.rows_that_differ(one, other) == set()
    other[1, 3, 2] ^= 1
    other[4, 0, 0] ^= 128
    assert strips.rows_that_differ(one, other) == {1, 4}


class NeverPickled(np.ndarray[Any, np.dtype[np.uint8]]):
    """A picture that does not let itself be sent to another process."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise AssertionError("a picture was pickled")


def test_no_pixel_is_pickled() -> None:
    picture = noise(30, 20, 3).view(NeverPickled)
    with pytest.raises(AssertionError):
        pickle.dumps(picture)
    smoothing = partial(strips.smooth, kernel=5)
    found = strips.filter_with_processes(picture, 4, 2, smoothing, 1)
    assert np.array_equal(found, smoothing(np.asarray(picture)))


def test_processes_give_the_whole_picture_filtered(start_method: str) -> None:
    for shape, n_strips, kernel in [
        ((1, 1), 3, 7),
        ((50, 40, 3), 4, 9),
        ((5, 90), 50, 31),  # more strips than rows, a kernel larger than the picture
    ]:
        picture = noise(*shape)
        smoothing = partial(strips.smooth, kernel=kernel)
        found = strips.filter_with_processes(
            picture, n_strips, kernel // 2, smoothing, 2
        )
        assert np.array_equal(found, smoothing(picture))


def test_a_picture_without_rows_has_no_strips() -> None:
    nothing = np.empty((0, 7, 3), np.uint8)
    smoothing = partial(strips.smooth, kernel=3)
    assert strips.filter_in_strips(nothing, 4, 1, smoothing).shape == (0, 7, 3)
    found = strips.filter_with_processes(nothing, 4, 1, smoothing, 1)
    assert found.shape == (0, 7, 3)


def test_other_types_than_bytes_are_filtered_too() -> None:
    picture = noise(20, 10).astype(np.float32)
    smoothing = partial(strips.smooth, kernel=5)
    found = strips.filter_with_processes(picture, 3, 2, smoothing, 1)
    assert found.dtype == np.float32
    assert np.allclose(found, smoothing(picture), rtol=1e-5)


def to_float(picture: strips.Picture) -> strips.Picture:
    return picture / 2


def without_last_row(picture: strips.Picture) -> strips.Picture:
    return picture[:-1]


@pytest.mark.parametrize("filter_", [to_float, without_last_row])
def test_a_filter_that_makes_something_else_is_refused(filter_: strips.Filter) -> None:
    with pytest.raises(ValueError, match="the filter makes"):
        strips.filter_in_strips(noise(9, 9), 3, 1, filter_)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the names of blocks of shared memory; afterwards none may be there."""
    names: list[str] = []

    class Watched(SharedMemory):
        def __init__(
            self, name: str | None = None, create: bool = False, size: int = 0
        ) -> None:
            super().__init__(name, create, size)
            names.append(self.name)

    monkeypatch.setattr(strips, "SharedMemory", Watched)
    yield names
    assert len(names) == 2
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_blocks_are_removed_when_all_went_well(blocks: list[str]) -> None:
    smoothing = partial(strips.smooth, kernel=3)
    strips.filter_with_processes(noise(8, 8), 2, 1, smoothing, 1)


def test_a_failing_filter_is_reported_and_leaves_no_block(
    start_method: str, blocks: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArithmeticError, match=r"no such filter for \(5, 8\)"):
        strips.filter_with_processes(noise(8, 8), 2, 1, no_such_filter, 2)
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_dies_leaves_no_block(
    start_method: str, blocks: list[str]
) -> None:
    with pytest.raises(BrokenProcessPool):
        strips.filter_with_processes(noise(8, 8), 2, 1, die, 2)


@pytest.mark.usefixtures("no_collections")
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_in_the_middle_leaves_no_block(
    start_method: str,
    blocks: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    heard = tmp_path / "heard"

    def handler(*_: object) -> NoReturn:
        heard.touch()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    filter_ = partial(interrupting, parent=os.getpid(), heard=heard)
    try:
        with pytest.raises(KeyboardInterrupt):
            strips.filter_with_processes(noise(8, 8), 2, 1, filter_, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard.exists()
    assert capfd.readouterr() == ("", "")


# -- options


@pytest.mark.parametrize(
    ("module", "arguments", "what"),
    [
        (pickling, ["--tiles", "0"], "must be at least 1, not 0"),
        (pickling, ["--tiles", "101"], "must be at most 100, not 101"),
        (pickling, ["--size", "1001"], "must be at most 1000, not 1001"),
        (pickling, ["--workers", "62"], "must be at most 61, not 62"),
        (naming, ["--size", "-1"], "must be at least 1, not -1"),
        (faces, ["--collages", "0"], "must be at least 1, not 0"),
        (faces, ["--plot", "faces.jpg"], "must end in .png, .svg or .pdf"),
        (beside, ["--diameter", "26"], "must be at most 25, not 26"),
        (beside, ["--diameter", "x"], "invalid whole_number value: 'x'"),
        (strips, ["--kernel", "4"], "must be odd and in 1 … 301, not 4"),
        (strips, ["--kernel", "303"], "must be odd and in 1 … 301, not 303"),
        (strips, ["--kernel", "-1"], "must be odd and in 1 … 301, not -1"),
        (strips, ["--strips", "0"], "must be at least 1, not 0"),
        (strips, ["--workers", "62"], "must be at most 61, not 62"),
    ],
)
def test_bad_values_are_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    what: str,
    complaint: Callable[..., str],
) -> None:
    assert what in complaint(module, *arguments)
