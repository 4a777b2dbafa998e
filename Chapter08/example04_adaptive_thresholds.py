# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""No level suits a page with a shadow; a level for each pixel does.

In the shadow, paper is darker than ink is in the light. So whatever level is chosen for
the whole page, it loses the writing in the shadow or in the light. An adaptive
threshold takes for each pixel the mean of a block around it, less a constant that keeps
noise out; the Gaussian kind gives near pixels more weight. Light hardly changes within
a block, and the writing stands out.

The page is drawn, so it is known which pixels are ink, and the wrong ones are counted:
for Otsu's level, and for the level that is best of all, which only somebody who knows
the truth can find.

The mean of any block takes four numbers from an integral image, the sums of all pixels
above and to the left, however large the block. Written out like that, the mean method
is OpenCV's at every pixel. (Beyond the edges, the outermost pixels are repeated.)

Block and constant have to suit the writing. In a block no wider than a stroke all is
ink, and the stroke becomes hollow; without the constant, plain paper becomes snow.

Source: F. C. Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984.

Book: Chapter 8, example4.
Try:  --plot adaptive.png
Try:  --block 3
Try:  --less 0

Output:
    a page of 1200 x 900 pixels, blocks of 35 x 35

                       ink lost  paper blackened  pixels wrong
    otsu_level           0.90 %          61.13 %       51.17 %
    best_level          42.40 %           0.70 %        7.60 %
    adaptive_mean        1.24 %           1.50 %        1.46 %
    adaptive_gaussian    4.95 %           0.64 %        1.35 %

    mean method with an integral image: differs at 0 pixels
    wrong with a level for each pixel 1.46 %, for all 7.60 %
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from generate_input import ink, scene, write_pictures
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

WIDTH, HEIGHT = 1200, 900  # pixels
WHITE = 255
LARGEST_BLOCK = 999  # pixels


def mean_threshold(grey: NDArray[np.uint8], block: int, less: int) -> NDArray[np.uint8]:
    """Return white where a pixel is above the mean of its block less `less`.

    The same as `cv2.adaptiveThreshold` with ADAPTIVE_THRESH_MEAN_C and THRESH_BINARY,
    written out: the means are rounded, and beyond the edges the outermost pixels are
    repeated.

    Args:
        block: rows and columns of the block, odd, so that the pixel is in its middle.
    """
    beyond = block // 2
    padded = np.pad(grey, beyond, mode="edge").astype(np.int64)
    # integral[y, x] is the sum of all above row y and to the left of column x.
    integral = np.pad(padded.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    low, high = slice(None, -block), slice(block, None)
    sums = (
        integral[high, high]
        - integral[low, high]
        - integral[high, low]
        + integral[low, low]
    )
    size = block * block
    means = (sums + size // 2) // size  # rounded: an odd size has no halves
    return np.where(grey > means - less, np.uint8(WHITE), np.uint8(0))


def best_level(grey: NDArray[np.uint8], is_ink: NDArray[np.bool_]) -> int:
    """Return the level that takes the fewest pixels of a page for what they are not."""
    n_ink = np.bincount(grey[is_ink], minlength=256)
    n_paper = np.bincount(grey[~is_ink], minlength=256)
    # Of paper, all up to the level is wrong; of ink, all above.
    wrong = np.cumsum(n_paper) + n_ink.sum() - np.cumsum(n_ink)
    return int(np.argmin(wrong))


def share_of(wrong: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """Return how many of the pixels `among` are `wrong`, in percent."""
    return 100 * float((wrong & among).sum()) / float(among.sum())


def plot(pictures: Mapping[str, NDArray[np.uint8]], file: Path) -> None:
    """Draw the page before and after each threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 5.5), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for one, (title, picture) in zip(axes, pictures.items(), strict=True):
        one.imshow(picture, cmap="gray", vmin=0, vmax=WHITE)
        one.set_title(title.replace("_", " "), fontsize=12)
        one.axis("off")
    figure.savefig(file, dpi=100)


def block_size(text: str) -> int:
    number = int(text)
    if not 3 <= number <= LARGEST_BLOCK or number % 2 == 0:
        raise argparse.ArgumentTypeError(
            f"must be odd, from 3 to {LARGEST_BLOCK}, not {number}"
        )
    return number


def levels(text: str) -> int:
    number = int(text)
    if not -WHITE <= number <= WHITE:
        raise argparse.ArgumentTypeError(
            f"must be from {-WHITE} to {WHITE}, not {number}"
        )
    return number


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
    parser.add_argument("--block", type=block_size, default=35, help="pixels")
    parser.add_argument("--less", type=levels, default=10, help="levels of 255")
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    block, less = options.block, options.less

    print(f"a page of {WIDTH} x {HEIGHT} pixels, blocks of {block} x {block}")
    page, is_ink = scene(WIDTH, HEIGHT), ink(WIDTH, HEIGHT)
    grey = np.asarray(cv2.cvtColor(page, cv2.COLOR_BGR2GRAY), np.uint8)
    results = {}
    best = best_level(grey, is_ink)
    for name, kind in (("otsu_level", cv2.THRESH_OTSU), ("best_level", 0)):
        _, cut = cv2.threshold(grey, best, WHITE, cv2.THRESH_BINARY | kind)
        results[name] = np.asarray(cut, np.uint8)
    for name, method in (
        ("adaptive_mean", cv2.ADAPTIVE_THRESH_MEAN_C),
        ("adaptive_gaussian", cv2.ADAPTIVE_THRESH_GAUSSIAN_C),
    ):
        cut = cv2.adaptiveThreshold(grey, WHITE, method, cv2.THRESH_BINARY, block, less)
        results[name] = np.asarray(cut, np.uint8)

    wrong = {}
    print()
    print("                   ink lost  paper blackened  pixels wrong")
    for name, cut in results.items():
        mistaken = (cut == 0) != is_ink
        wrong[name] = 100 * float(mistaken.mean())
        lost, black = share_of(mistaken, is_ink), share_of(mistaken, ~is_ink)
        print(f"{name:17} {lost:7.2f} %  {black:13.2f} %  {wrong[name]:10.2f} %")
    if options.output:
        try:
            write_pictures(options.output, results)
        except OSError as error:
            parser.error(f"--output: {error}")
    if options.plot:
        drawn = {"before": grey, **results}
        del drawn["best_level"]
        plot(drawn, options.plot)

    by_hand = mean_threshold(grey, block, less)
    different = int((by_hand != results["adaptive_mean"]).sum())
    print()
    print(f"mean method with an integral image: differs at {different} pixels")
    if different:
        raise SystemExit("the mean method was to be what its definition says")
    one_level = min(wrong["otsu_level"], wrong["best_level"])
    adaptive = max(wrong["adaptive_mean"], wrong["adaptive_gaussian"])
    if adaptive >= one_level:
        raise SystemExit(
            "block and constant do not suit this page: one level is better"
        )
    print(
        f"wrong with a level for each pixel {adaptive:.2f} %, for all {one_level:.2f} %"
    )


if __name__ == "__main__":
    main()
