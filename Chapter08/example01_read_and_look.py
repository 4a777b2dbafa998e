# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""What a picture is to a program, and how to read one without being deceived.

To OpenCV a picture is a numpy array: rows, columns, and for each pixel blue, green and
red, in this order, from 0 to 255. Most other packages (matplotlib, Pillow) take red
first; who forgets to turn the order round gets blue faces.

`cv2.imread` raises nothing. For a file that is missing, empty or no picture it returns
None, which only the next line complains of. For a JPEG file that breaks off it returns
a picture whose rest is grey; a C library says so on stderr, where no Python code sees
it. `read_picture` raises one clear error, which names the file. It lets Python read the
bytes (on Windows, `imread` mistakes names that are not ASCII), and looks for the end of
a JPEG or PNG file before it lets OpenCV decode it.

Book: Chapter 8, example1.
Try:  --plot looks.png

Output:
    600 rows, 512 columns, 3 channels, uint8: 921,600 bytes
    blue     0 to 255, mean  86.4
    green    0 to 255, mean  72.4
    red      0 to 255, mean  82.5

    file         cv2.imread   read_picture
    missing.png  None         FileNotFoundError: No such file or directory
    empty.png    None         ValueError: empty
    letter.png   None         ValueError: no picture that OpenCV can read
    half.png     None         ValueError: truncated or damaged
    half.jpg     a picture    ValueError: truncated or damaged
    whole.jpg    a picture    600 rows
    of half.jpg, stderr had "Premature end of JPEG file", and imread nothing to say
"""

import argparse
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from generate_input import grace_hopper, scene, write_picture
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how their files begin
# A marker that a segment follows: no stuffed zero, no restart within a scan.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
JPEG_END = b"\xd9"
GREY = 128  # what the JPEG decoder puts where the data have ended


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Read a picture as rows x columns x (blue, green, red).

    Transparency is dropped, 16 bits become 8, and the picture is turned as a camera has
    noted in it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, no picture, or not all of one.

    Each of them names the file.
    """
    data = file.read_bytes()
    if not data:
        raise ValueError(f"{file}: empty")
    if (data.startswith(JPEG) and not is_whole_jpeg(data)) or (
        data.startswith(PNG) and not is_whole_png(data)
    ):
        raise ValueError(f"{file}: truncated or damaged")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # more than 2**30 pixels, for one
        raise ValueError(f"{file}: OpenCV refuses it: {error.err}") from error
    if decoded is None:
        raise ValueError(f"{file}: no picture that OpenCV can read")
    return np.asarray(decoded, np.uint8)


def is_whole_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG file has an end. (It has no checksum that could tell more.)

    From marker to marker, because a small picture in a segment has an end of its own.

    Source: ITU-T T.81 (1992), annex B.
    """
    at = len(JPEG) - 1
    while marker := JPEG_MARKER.search(data, at):
        if marker[1] == JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    return False


def is_whole_png(data: bytes) -> bool:
    """Tell whether all chunks of a PNG file are there, each with the right checksum.

    Source: Portable Network Graphics, ISO/IEC 15948, section 5.3.
    """
    at = len(PNG)
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if zlib.crc32(data[at + 4 : end]).to_bytes(4) != data[end : end + 4]:
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False


def picture_file(text: str) -> NDArray[np.uint8]:
    """Read the picture that an option names."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return read_picture(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def stderr_in(file: Path) -> Iterator[None]:
    """Let all that is written to stderr, by C code as well, go to `file` meanwhile."""
    before = os.dup(2)
    try:
        with file.open("wb") as out:
            os.dup2(out.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def troublesome_files(folder: Path) -> dict[str, Path]:
    """Write files of which `read_picture` should read only the last."""
    names = ["missing.png", "empty.png", "letter.png", "half.png", "half.jpg"]
    files = {name: folder / name for name in [*names, "whole.jpg"]}
    files["empty.png"].touch()
    files["letter.png"].write_text("Dear reader, this is no picture.")
    for name, picture in (("half.png", scene(300, 300)), ("half.jpg", grace_hopper())):
        write_picture(files[name], picture)
        data = files[name].read_bytes()
        files[name].write_bytes(data[: len(data) // 2])
    write_picture(files["whole.jpg"], grace_hopper())
    return files


def plot(pictures: Mapping[str, NDArray[np.uint8]], file: Path) -> None:
    """Draw the pictures, whose pixels are red, green, blue, beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.05), layout="constrained")
    axes = figure.subplots(1, len(pictures))
    for one, (title, picture) in zip(axes, pictures.items(), strict=True):
        one.imshow(picture)
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
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    portrait = grace_hopper() if options.input is None else options.input

    n_rows, n_columns, n_channels = portrait.shape
    print(
        f"{n_rows} rows, {n_columns} columns, {n_channels} channels, "
        f"{portrait.dtype}: {portrait.nbytes:,} bytes"
    )
    for channel, name in enumerate(("blue", "green", "red")):
        values = portrait[:, :, channel]
        print(
            f"{name:6} {values.min():3} to {values.max():3}, mean {values.mean():5.1f}"
        )
    red_first = portrait[:, :, ::-1]  # a view: nothing is copied
    if (red_first != cv2.cvtColor(portrait, cv2.COLOR_BGR2RGB)).any():
        raise SystemExit("red, green, blue was to be the same in reverse order")

    print()
    print("file         cv2.imread   read_picture")
    complaints = 0
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder, "stderr")
        for name, file in troublesome_files(Path(folder)).items():
            with stderr_in(messages):
                seen = cv2.imread(str(file))
            if name == "half.jpg":
                half, said = seen, messages.read_text().strip()
            try:
                outcome = f"{read_picture(file).shape[0]} rows"
            except (OSError, ValueError) as error:
                what = error.strerror if isinstance(error, OSError) else str(error)
                what = str(what).removeprefix(f"{file}: ")
                outcome = f"{type(error).__name__}: {what}"
                complaints += 1
            print(f"{name:12} {'None' if seen is None else 'a picture':12} {outcome}")
    if half is None or not (half[-100:] == GREY).all():
        raise SystemExit("imread was to return half a picture and the rest grey")
    if complaints != 5:
        raise SystemExit("read_picture was to complain of all files but one")
    if options.plot:
        drawn = {
            "red first, for matplotlib": red_first,
            "blue first: the wrong order": portrait,
            "imread of half a JPEG file": np.asarray(half[:, :, ::-1], np.uint8),
        }
        plot(drawn, options.plot)
    print(f'of half.jpg, stderr had "{said}", and imread nothing to say')


if __name__ == "__main__":
    main()
