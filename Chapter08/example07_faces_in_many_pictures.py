# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""Faces in many pictures: each worker of the pool loads the detector once.

A Haar cascade looks through a window of every size and place whether light and dark lie
as in a face, upright and seen from the front: first with a few quick questions, which
nearly every window fails, then with more. It is read from a file, which takes longer
than to send a name, and it cannot be pickled. So it is neither sent with the tasks nor
loaded for each: the pool's initializer loads it, and `functools.cache` keeps it.

Is a face found, and nothing else? The collages are made of one portrait in several
sizes, darker, brighter, and mirrored, so it is known where the faces are. A rectangle
counts as found if it covers the place: if their intersection is at least half of their
union. There must be as many as were put in, and none in a page of writing.

(Haar cascades are quick and small, and blind to faces that are turned or half hidden;
the networks of `cv2.FaceDetectorYN` see these too.)

Source: P. Viola, M. Jones, "Rapid object detection using a boosted cascade of simple
features", CVPR 2001.

Book: Chapter 8, example7.
Try:  --collages 12
Try:  --plot faces.png

Output:
    <cores> workers look for faces
    portrait      1 put in,  1 found, overlap at least 92 %
    collage 0     1 put in,  1 found, overlap at least 78 %
    collage 1     8 put in,  8 found, overlap at least 70 %
    collage 2     3 put in,  3 found, overlap at least 81 %
    collage 3    10 put in, 10 found, overlap at least 71 %
    collage 4     5 put in,  5 found, overlap at least 71 %
    collage 5    12 put in, 12 found, overlap at least 69 %
    page 0        0 put in,  0 found
    page 1        0 put in,  0 found
    the cascade was loaded once by each worker, for 9 pictures
    0.56 s one by one, 0.31 s in the pool: 1.78x as fast
    all 40 faces found, each in its place, and nothing else
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
from example01_read_and_look import read_picture
from generate_input import grace_hopper, scene, write_picture
from numpy.typing import NDArray

try:
    import cv2
    import cv2.data
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

WIDTH, HEIGHT = 800, 600  # pixels of a collage and of a page
CELL = 200  # pixels, width and height; a cell of the collage holds one face at most
N_CELLS = (WIDTH // CELL) * (HEIGHT // CELL)
N_PAGES = 2
SMALLEST, LARGEST = 40, 250  # pixels, width of a face
SCALE, NEIGHBOURS = 1.2, 5  # step from size to size; windows that must agree
COVERED = 0.5  # least intersection over union of a face that is found
MAX_WORKERS = 61  # of a process pool on Windows
MAX_COLLAGES = 100

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A rectangle in a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def overlap(self, other: "Box") -> float:
        """Return intersection over union: 0 if they are apart, 1 if the same."""
        bottom = min(self.top + self.height, other.top + other.height)
        right = min(self.left + self.width, other.left + other.width)
        high = bottom - max(self.top, other.top)
        wide = right - max(self.left, other.left)
        if high <= 0 or wide <= 0:
            return 0.0
        both = high * wide
        return both / (self.height * self.width + other.height * other.width - both)


# In the portrait, marked by hand: the head with its cap, and the face, brim to chin.
HEAD = Box(top=15, left=70, height=390, width=390)
FACE = Box(top=118, left=163, height=205, width=205)


@cache
def face_cascade() -> cv2.CascadeClassifier:
    """Load the detector of faces seen from the front, once in each process.

    It keeps notes while it works: threads need one each.
    """
    name = "haarcascade_frontalface_default.xml"
    return cv2.CascadeClassifier(str(Path(cv2.data.haarcascades, name)))


def faces_in(picture: Picture) -> list[Box]:
    """Return where the cascade finds faces, from top to bottom."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    found = face_cascade().detectMultiScale(
        grey, SCALE, NEIGHBOURS, 0, (SMALLEST, SMALLEST), (LARGEST, LARGEST)
    )
    return sorted(
        Box(int(top), int(left), int(height), int(width))
        for left, top, width, height in found
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker returns.

    Attributes:
        worker: the id of the process.
        loaded: how often it has loaded the cascade so far.
    """

    faces: list[Box]
    worker: int
    loaded: int


def faces_in_file(file: Path) -> Answer:
    """Read a picture and find its faces; this is what a worker does.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no picture.
    """
    faces = faces_in(read_picture(file))
    return Answer(faces, os.getpid(), face_cascade.cache_info().misses)


def get_ready() -> None:
    """Leave Ctrl-C to the parent and other cores to others; load the cascade."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    face_cascade()


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def detector_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that have loaded the cascade.

    They leave Ctrl-C to this process. It has to wait while they start and while they
    end: in the midst of that, a pool cannot be ended in order.
    """

    def end() -> None:
        with ctrl_c_later():
            pool.shutdown()

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, initializer=get_ready)
            stack.callback(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


def collage(portrait: Picture, n_faces: int, seed: int) -> tuple[Picture, list[Box]]:
    """Put the head of `portrait` on a background `n_faces` times; tell where.

    Each in another cell of a grid, in another size, light and place, half of them
    mirrored. The same `seed` gives the same collage.

    Returns:
        the picture and the places of the faces, from top to bottom.

    Raises:
        ValueError: there are more faces than cells.
    """
    rng = np.random.default_rng(seed)
    clouds = rng.integers(60, 200, (4, 6, 3), np.uint8)
    picture = np.asarray(
        cv2.resize(clouds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8
    )
    head = portrait[HEAD.top :, HEAD.left :][: HEAD.height, : HEAD.width]
    places = []
    for cell in rng.choice(N_CELLS, n_faces, replace=False).tolist():
        side = int(rng.integers(CELL // 2, CELL + 1))
        light, mirrored = rng.uniform(0.5, 1.3), rng.random() < 0.5
        row, column = divmod(cell, WIDTH // CELL)
        y, x = (int(n * CELL + rng.integers(0, CELL - side + 1)) for n in (row, column))
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        small = cv2.convertScaleAbs(small, alpha=light)
        left = FACE.left - HEAD.left
        if mirrored:
            small = cv2.flip(small, 1)
            left = HEAD.width - left - FACE.width
        picture[y : y + side, x : x + side] = small
        scale = side / HEAD.width
        places.append(
            Box(
                round(y + scale * (FACE.top - HEAD.top)),
                round(x + scale * left),
                round(scale * FACE.height),
                round(scale * FACE.width),
            )
        )
    return picture, sorted(places)


def covered(put_in: Sequence[Box], found: Sequence[Box]) -> float | None:
    """Return the least overlap of a face and what was found there, at least COVERED.

    None: the faces found are not those that were put in. The latter lie apart, so each
    rectangle found can cover no more than one of them.
    """
    overlaps = [
        max((face.overlap(box) for box in found), default=0.0) for face in put_in
    ]
    least = min(overlaps, default=1.0)
    return least if len(found) == len(put_in) and least >= COVERED else None


def plot(pictures: Mapping[str, tuple[Picture, list[Box]]], file: Path) -> None:
    """Draw pictures with the faces that were found in them."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    widths = [picture.shape[1] / picture.shape[0] for picture, _ in pictures.values()]
    all_axes = figure.subplots(1, len(pictures), width_ratios=widths)
    for axes, (title, (picture, boxes)) in zip(all_axes, pictures.items(), strict=True):
        axes.imshow(picture[:, :, ::-1])
        for box in boxes:
            corner = (box.left, box.top)
            axes.add_patch(
                Rectangle(
                    corner, box.width, box.height, fill=False, color="#ffd23f", lw=2.5
                )
            )
        axes.set_title(title, fontweight="bold")
        axes.axis("off")
    figure.savefig(file, dpi=80)


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def at_most(limit: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in 1 … `limit`."""

    def whole_number(text: str) -> int:
        number = positive(text)
        if number > limit:
            raise argparse.ArgumentTypeError(f"must be at most {limit}, not {number}")
        return number

    return whole_number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--collages", type=at_most(MAX_COLLAGES), default=6)
    parser.add_argument(
        "--workers", type=at_most(MAX_WORKERS), default=min(usable_cores(), MAX_WORKERS)
    )
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    print(f"{options.workers} workers look for faces")
    cv2.setNumThreads(1)  # before its threads start: a fork would leave them behind

    portrait = grace_hopper()
    pictures = {"portrait": (portrait, [FACE])}
    for n in range(options.collages):
        pictures[f"collage {n}"] = collage(portrait, 1 + n * 7 % N_CELLS, seed=n)
    for n in range(N_PAGES):
        pictures[f"page {n}"] = (scene(WIDTH, HEIGHT, seed=n), [])

    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{name}.png") for name in pictures}
        for name, (drawn, _) in pictures.items():
            write_picture(files[name], drawn)
        with detector_pool(options.workers) as pool:
            began = time.perf_counter()
            answers = list(pool.map(faces_in_file, files.values()))
            with_pool = time.perf_counter() - began
        began = time.perf_counter()
        sequential = [faces_in_file(file).faces for file in files.values()]
        one_by_one = time.perf_counter() - began
    found = dict(zip(files, (answer.faces for answer in answers), strict=True))
    if list(found.values()) != sequential:
        raise SystemExit("the workers found other faces than one process")

    for name, (_, put_in) in pictures.items():
        least = covered(put_in, found[name])
        if least is None:
            raise SystemExit(f"{name}: {put_in} put in, {found[name]} found")
        line = f"{name:12} {len(put_in):2} put in, {len(found[name]):2} found"
        print(line + (f", overlap at least {100 * least:.0f} %" if put_in else ""))
    if any(answer.loaded != 1 for answer in answers):
        raise SystemExit("a worker was to load the cascade once")
    print(f"the cascade was loaded once by each worker, for {len(files)} pictures")
    print(
        f"{one_by_one:.2f} s one by one, {with_pool:.2f} s in the pool: "
        f"{one_by_one / with_pool:.2f}x as fast"
    )
    n_faces = sum(len(put_in) for _, put_in in pictures.values())
    print(f"all {n_faces} faces found, each in its place, and nothing else")
    if options.plot:
        most = max(pictures, key=lambda name: len(found[name]))
        shown = {"the portrait": "portrait", "the fullest collage": most}
        plot({t: (pictures[k][0], found[k]) for t, k in shown.items()}, options.plot)


if __name__ == "__main__":
    main()
