# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""One level for the whole picture: five kinds of threshold, and the level to choose.

A threshold compares each pixel with a level. `cv2.threshold` has five kinds, which
differ in what becomes of those above it and of the others; here each is also written
out in numpy, and is equal at every pixel. Above means above: a pixel at the level
belongs to the others.

Which level? Otsu's method takes the one that divides the histogram into the two classes
whose means are farthest apart, weighed by their sizes: the greatest variance between
classes. There are only 256 levels, so that all of them can be tried, which is done here
to check OpenCV's answer.

Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE
Transactions on Systems, Man, and Cybernetics 9 (1), 1979.

Book: Chapter 8, example3.
Try:  --plot thresholds.png
Try:  --level 60 --output results

Output:
    600 x 512 pixels, level 127
    THRESH_BINARY      differs from its definition at 0 pixels
    THRESH_BINARY_INV  differs from its definition at 0 pixels
    THRESH_TRUNC       differs from its definition at 0 pixels
    THRESH_TOZERO      differs from its definition at 0 pixels
    THRESH_TOZERO_INV  differs from its definition at 0 pixels

    Otsu's level: OpenCV 85, the best of all 256 85
    each kind is its definition at every pixel, and no level is better than Otsu's
"""

import argparse
import os
from collections.abc import Callable, Mapping
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

WHITE = 255

Threshold = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


def binary(grey: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """White above the level, black elsewhere."""
    return np.where(grey > level, np.uint8(WHITE), np.uint8(0))


def binary_inverse(grey: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Black above the level, white elsewhere."""
    return np.where(grey > level, np.uint8(0), np.uint8(WHITE))


def truncated(grey: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """The level above the level, unchanged elsewhere."""
    return np.where(grey > level, np.uint8(level), grey)


def to_zero(grey: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Unchanged above the level, black elsewhere."""
    return np.where(grey > level, grey, np.uint8(0))


def to_zero_inverse(grey: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Black above the level, unchanged elsewhere."""
    return np.where(grey > level, np.uint8(0), grey)


KINDS: Mapping[str, tuple[int, Threshold]] = {
    "THRESH_BINARY": (cv2.THRESH_BINARY, binary),
    "THRESH_BINARY_INV": (cv2.THRESH_BINARY_INV, binary_inverse),
    "THRESH_TRUNC": (cv2.THRESH_TRUNC, truncated),
    "THRESH_TOZERO": (cv2.THRESH_TOZERO, to_zero),
    "THRESH_TOZERO_INV": (cv2.THRESH_TOZERO_INV, to_zero_inverse),
}


def variances_between_classes(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return, for each level from 0 to 255, how far apart the two classes are.

    That is w0 w1 (m1 - m0)^2, where w is the share of a class in the pixels, and m its
    mean; class 0 are the pixels up to the level. With an empty class it is 0.
    """
    histogram = np.bincount(grey.ravel(), minlength=256)
    n = np.cumsum(histogram)  # pixels up to each level
    sums = np.cumsum(histogram * np.arange(256))
    rest = n[-1] - n
    both = (n > 0) & (rest > 0)
    low = sums / np.where(both, n, 1)
    high = (sums[-1] - sums) / np.where(both, rest, 1)
    variances: NDArray[np.float64] = n * rest / n[-1] ** 2 * (high - low) ** 2
    return np.where(both, variances, 0.0)


def otsu_level(grey: NDArray[np.uint8]) -> int:
    """Return the level with the greatest variance between classes, the lowest such."""
    return int(np.argmax(variances_between_classes(grey)))


def plot(
    grey: NDArray[np.uint8],
    results: Mapping[str, NDArray[np.uint8]],
    otsu: int,
    file: Path,
) -> None:
    """Draw the picture before and after, the histogram, and where Otsu cuts it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 6.0), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    panels = {"before": grey, **results}
    for one, (title, picture) in zip(axes[:-1], panels.items(), strict=True):
        one.imshow(picture, cmap="gray", vmin=0, vmax=WHITE)
        one.set_title(title, fontsize=10)
        one.axis("off")
    last = axes[-1]
    last.hist(grey.ravel(), bins=64, range=(0, 256), color="#cfd8e3", density=True)
    last.set_title("histogram and variance", fontsize=10)
    last.set_xlabel("level")
    last.set_yticks([])
    variance = last.twinx()
    variance.plot(variances_between_classes(grey), color="#1b4f8a")
    variance.axvline(otsu, color="#b3301c", linestyle="--")
    variance.set_yticks([])
    figure.savefig(file, dpi=100)


def level(text: str) -> int:
    number = int(text)
    if not 0 <= number <= WHITE:
        raise argparse.ArgumentTypeError(f"must be from 0 to {WHITE}, not {number}")
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
    parser.add_argument("--input", type=picture_file, metavar="FILE")
    parser.add_argument("--level", type=level, default=127)
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    coloured = grace_hopper() if options.input is None else options.input
    grey = np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2GRAY), np.uint8)

    print(f"{grey.shape[0]} x {grey.shape[1]} pixels, level {options.level}")
    results = {}
    for name, (kind, definition) in KINDS.items():
        _, cut = cv2.threshold(grey, options.level, WHITE, kind)
        results[name] = np.asarray(cut, np.uint8)
        different = int((cut != definition(grey, options.level)).sum())
        print(f"{name:17}  differs from its definition at {different} pixels")
        if different:
            raise SystemExit(f"{name} was to be what its definition says")

    found, cut = cv2.threshold(grey, 0, WHITE, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    results["THRESH_OTSU"] = np.asarray(cut, np.uint8)
    variances = variances_between_classes(grey)
    tried = otsu_level(grey)
    print()
    print(f"Otsu's level: OpenCV {found:.0f}, the best of all 256 {tried}")
    if options.output:
        try:
            write_pictures(options.output, results)
        except OSError as error:
            parser.error(f"--output: {error}")
    if options.plot:
        plot(grey, results, tried, options.plot)
    # Levels between which there is no pixel are equally good, but for rounding.
    if not np.isclose(variances[int(found)], variances.max(), rtol=1e-9):
        raise SystemExit("OpenCV was to find a level that is as good as any")
    print(
        "each kind is its definition at every pixel, and no level is better than Otsu's"
    )


if __name__ == "__main__":
    main()
