# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""Grey is how bright a colour looks, and that is not the mean of its three parts.

Green looks brightest and blue darkest, so the channels are weighed before they are
added: Y = 0.299 R + 0.587 G + 0.114 B, the luma of ITU-R BT.601. Written out in numpy,
the formula agrees with `cv2.cvtColor` at every pixel within one level, which is
rounding: OpenCV computes in whole numbers. The plain mean is far off wherever there is
strong colour, and makes colours alike that nobody would confuse.

A grey picture is also a third of the bytes. A threshold needs one.

Source: Recommendation ITU-R BT.601-7, "Studio encoding parameters of digital television
for standard 4:3 and wide-screen 16:9 aspect ratios", 2011.

Book: Chapter 8, example2.
Try:  --plot greyscale.png
Try:  --output results

Output:
    600 x 512 pixels, from 3 channels to 1
    differences from cv2.cvtColor, in levels of 255
    luma        at  0.00 % of the pixels, at most   1
    plain mean  at 95.01 % of the pixels, at most  32

                 luma  plain mean
    pure blue      29          85
    pure green    150          85
    pure red       76          85
    the formula is OpenCV's at all 307,200 pixels, within 1 level
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from example01_read_and_look import picture_file
from generate_input import grace_hopper, write_pictures
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

WEIGHTS = (0.114, 0.587, 0.299)  # of blue, green, red
PURE = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}


def luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how bright each pixel of a picture (blue, green, red) looks."""
    weighed: NDArray[np.float64] = picture @ np.array(WEIGHTS)
    return np.rint(weighed).astype(np.uint8)


def plain_mean(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean of each pixel's three channels, to be compared with `luma`."""
    mean: NDArray[np.float64] = picture.mean(axis=2)
    return np.rint(mean).astype(np.uint8)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return by how many levels two grey pictures differ (uint8 would wrap around)."""
    levels: NDArray[np.int16] = np.abs(one.astype(np.int16) - other)
    return levels


def plot(pictures: Mapping[str, NDArray[np.uint8]], file: Path) -> None:
    """Draw the pictures beside each other; those with three channels have red first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.0), layout="constrained")
    axes = figure.subplots(1, len(pictures))
    for one, (title, picture) in zip(axes, pictures.items(), strict=True):
        one.imshow(picture, cmap="gray", vmin=0, vmax=255)
        one.set_title(title, fontsize=11)
        one.axis("off")
    figure.savefig(file, dpi=110)


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
    parser.add_argument("--input", type=picture_file, metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    coloured = grace_hopper() if options.input is None else options.input

    n_rows, n_columns, _ = coloured.shape
    print(f"{n_rows} x {n_columns} pixels, from 3 channels to 1")
    grey = np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2GRAY), np.uint8)
    ours, mean = luma(coloured), plain_mean(coloured)
    rounding, off = difference(ours, grey), difference(mean, grey)
    print("differences from cv2.cvtColor, in levels of 255")
    for name, levels in (("luma", rounding), ("plain mean", off)):
        print(
            f"{name:10}  at {100 * (levels > 0).mean():5.2f} % of the pixels, "
            f"at most {levels.max():3}"
        )
    print()
    print("             luma  plain mean")
    for name, colour in PURE.items():
        pixel = np.array([[colour]], np.uint8)
        print(f"pure {name:6}{luma(pixel)[0, 0]:6}{plain_mean(pixel)[0, 0]:12}")
    if options.output:
        results = {"grey": grey, "plain_mean": mean}
        try:
            write_pictures(options.output, results)
        except OSError as error:
            parser.error(f"--output: {error}")
    if options.plot:
        drawn = {
            "before": coloured[:, :, ::-1],
            "luma": grey,
            "plain mean": mean,
            "their difference, x 8": np.minimum(8 * off, 255).astype(np.uint8),
        }
        plot(drawn, options.plot)

    if rounding.max() > 1:
        raise SystemExit("the formula was to agree with OpenCV within one level")
    print(f"the formula is OpenCV's at all {grey.size:,} pixels, within 1 level")


if __name__ == "__main__":
    main()
