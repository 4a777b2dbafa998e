# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""The pictures of this chapter: a portrait, written pages, and tiles cut from them.

The portrait is Grace Hopper's, from matplotlib's sample data. The pages are drawn:
writing and a curve on yellowed paper, a shadow across it, and noise, as if somebody had
photographed them at a desk. The same size and seed always give the same page, and which
of its pixels are ink is known, so that what a threshold finds can be checked.

A tile is at least as wide and as high as is asked for (500 by default: tiny pictures
are not worth a process). What is left over at the right and at the bottom goes to the
last tile of each row and column, so that each pixel is in exactly one tile.

Try:  --output pictures
Try:  --tiles 20

Output:
    grace_hopper.jpg   512 x 600    108.8 KiB
    page.png          1600 x 1200  3668.2 KiB
    tile_00.png        500 x 500    506.6 KiB
    tile_01.png        500 x 500    470.7 KiB
    tile_02.png        500 x 500    487.4 KiB
    tile_03.png        500 x 500    451.9 KiB
    6 pictures, 5693.5 KiB
"""

import argparse
import math
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

TILE = 500  # pixels, the least width and height of a tile by default
LINE = 40  # pixels from one line of writing to the next
MARGIN = 30  # pixels
TEXT = (
    "lock thread process queue event barrier semaphore condition future task pool "
    "worker signal pipe cache core deadlock starvation race reduction scan merge "
    "picture pixel threshold strip tile halo shadow light ink paper"
)

PAPER = (178, 214, 228)  # blue, green, red: a yellowed sheet in full light
INK = (76, 52, 46)  # dark blue
DARKEST = 0.20  # of the full light: in the shadow, paper is darker than ink outside
NOISE = 4.0  # grey levels, standard deviation


def grace_hopper() -> NDArray[np.uint8]:
    """Return the portrait of Grace Hopper: 600 rows, 512 columns, blue, green, red."""
    from matplotlib import cbook

    file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    data = np.fromfile(str(file), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"no picture: {file}")
    return np.asarray(decoded, np.uint8)


def ink(width: int, height: int, seed: int = 0) -> NDArray[np.bool_]:
    """Tell which pixels of `scene(width, height, seed)` are ink."""
    return _writing(width, height, seed) > 127


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a written page with a shadow across it; the same `seed` gives the same one.

    Returns:
        an array of `height` rows and `width` columns of blue, green, red.

    Raises:
        ValueError: the page would have no pixel.
    """
    coverage = _writing(width, height, seed)[:, :, None] / np.float32(255)
    rng = np.random.default_rng([seed, 1])
    # A shadow with a soft edge falls across the page at an angle.
    angle, edge = rng.uniform(0.1, 0.6), rng.uniform(0.45, 0.65)
    x = np.linspace(0, 1, width, dtype=np.float32)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    depth = (math.cos(angle) * x + math.sin(angle) * y - edge) / 0.12
    light = DARKEST + (1 - DARKEST) / (1 + np.exp(depth))
    light *= 1 - 0.15 * y  # the lamp stands at the top
    noise = NOISE * rng.standard_normal((height, width), np.float32)
    paper, dark = np.array(PAPER, np.float32), np.array(INK, np.float32)
    drawn = (paper + coverage * (dark - paper)) * light[:, :, None] + noise[:, :, None]
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def _writing(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return how much of each pixel is ink: 0 none, 255 all of it."""
    if width < 1 or height < 1:
        raise ValueError(f"a page of {width} x {height} has no pixel")
    rng = np.random.default_rng([seed, 0])
    sheet = np.zeros((height, width), np.uint8)
    words, font, size, stroke = TEXT.split(), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2
    for baseline in range(MARGIN + LINE // 2, height - MARGIN // 2, LINE):
        left = MARGIN
        while True:
            word = words[rng.integers(len(words))]
            (length, _), _ = cv2.getTextSize(word, font, size, stroke)
            if left + length > width - MARGIN:
                break
            place = (left, baseline)
            cv2.putText(sheet, word, place, font, size, 255, stroke, cv2.LINE_AA)
            left += length + 16
    # Somebody has drawn a curve on it.
    x = np.linspace(0, 1, 200)
    turns, phase = rng.uniform(2, 4), rng.uniform(0, math.tau)
    y = 0.5 + 0.35 * np.sin(math.tau * turns * x + phase) * (1 - 0.5 * x)
    points = np.column_stack([x * (width - 1), y * (height - 1)]).astype(np.int32)
    cv2.polylines(sheet, [points], False, 255, 4, cv2.LINE_AA)
    return sheet


def cut_into_tiles(
    picture: NDArray[np.uint8], width: int = TILE, height: int = TILE
) -> list[NDArray[np.uint8]]:
    """Cut a picture into tiles, row by row; they are views: no pixel is copied.

    A tile is `width` x `height`, but the last of each row and column is larger by what
    is left over. A picture that is narrower or lower than that is not cut that way.

    Raises:
        ValueError: the tiles, or the picture, would have no pixel.
    """
    if width < 1 or height < 1 or not picture.size:
        raise ValueError(f"cannot cut {picture.shape} into tiles of {width} x {height}")

    def cut(length: int, tile: int) -> list[slice]:
        starts = [tile * i for i in range(max(1, length // tile))]
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]

    n_rows, n_columns = picture.shape[:2]
    columns = cut(n_columns, width)
    return [picture[rows, cols] for rows in cut(n_rows, height) for cols in columns]


def write_tiles(
    folder: Path,
    n: int,
    width: int = TILE,
    height: int = TILE,
    suffix: str = ".png",
    seed: int = 0,
) -> list[Path]:
    """Cut a page into `n` tiles, no two alike, and write them into `folder`.

    Args:
        suffix: ".png" (every pixel is kept) or ".jpg" (smaller, sooner written).

    Returns:
        the files: tile_00.png, tile_01.png, ...

    Raises:
        ValueError: `n` is less than 1.
        OSError: a file cannot be written.
    """
    if n < 1:
        raise ValueError(f"need at least 1 tile, not {n}")
    n_columns = math.isqrt(n - 1) + 1
    page = scene(n_columns * width, math.ceil(n / n_columns) * height, seed)
    files = []
    for number, tile in enumerate(cut_into_tiles(page, width, height)[:n]):
        files.append(folder / f"tile_{number:02}{suffix}")
        write_picture(files[-1], tile)
    return files


def write_picture(file: Path, picture: NDArray[np.uint8]) -> None:
    """Write `picture` to `file`, in the format that its suffix names.

    `cv2.imwrite` would return False where this raises, and on Windows it mistakes every
    letter of the name that is not ASCII.

    Raises:
        OSError: the file cannot be written.
    """
    encoded, data = cv2.imencode(file.suffix, picture)
    if not encoded:
        raise OSError(f"not a picture for this format: {file}")
    file.write_bytes(data.tobytes())


def write_pictures(folder: Path, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write each picture to a PNG file of its name in `folder`, made if need be.

    Raises:
        OSError: the folder cannot be made, or a file not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        write_picture(folder / f"{name}.png", picture)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=positive, default=4)
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    options = parser.parse_args()

    with ExitStack() as stack:
        folder = options.output or Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files = [folder / "grace_hopper.jpg", folder / "page.png"]
            write_picture(files[0], grace_hopper())
            write_picture(files[1], scene(1600, 1200))
            files += write_tiles(folder, options.tiles)
        except OSError as error:
            parser.error(f"--output: {error}")
        total = 0
        for file in files:
            picture = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
            if picture is None:
                raise SystemExit(f"cannot be read again: {file}")
            n_rows, n_columns = picture.shape[:2]
            size = file.stat().st_size
            total += size
            print(f"{file.name:16} {n_columns:5} x {n_rows:<4} {size / 1024:7.1f} KiB")
    print(f"{len(files)} pictures, {total / 1024:.1f} KiB")


if __name__ == "__main__":
    main()
