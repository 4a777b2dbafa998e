"""A program checks a file and opens another: an attacker has swapped in a link.

Between the check of a name and the use of it the name can get another meaning, in every
folder where others may write. A program with more rights than they have then writes
where they may not (CWE-367, time of check to time of use). Here the attacker is called
at that moment; in which process makes no difference to the file system. The file is
replaced by a symbolic link or a hard link to another, or its folder by a link.

A name is looked up anew in each call; a descriptor stays with what was opened. So:

* O_NOFOLLOW: open() fails if the name is a symbolic link. It looks at the last part of
  the path only, and a hard link is no link to it.
* First open, then check: `os.fstat` says what the descriptor has, and must agree with
  what `os.lstat` said before. Such an open must do no harm: no O_TRUNC, no waiting for
  the other end of a FIFO.
* Open the folder first, and the file relative to it (`dir_fd`): where the folder's name
  leads now does not matter any more. With fstat, and O_NOFOLLOW.
* A new file: O_EXCL, which takes a link for a file that exists. The functions of
  `tempfile` do so, with names that nobody can guess (`mktemp` does not).

Source: Bishop and Dilger, "Checking for Race Conditions in File Accesses", 1996.

Output:
    swapped in:           symlink   hard link  folder
    is_symlink(), open    fooled    fooled     fooled
    O_NOFOLLOW            refused   fooled     fooled
    lstat, open, fstat    refused   refused    refused
    dir_fd, fstat         refused   refused    right file
    new file, exists()    fooled
    new file, O_EXCL      refused
    check what you have opened, not what you are going to open
"""

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LINE = b"a line of the program\n"

Between = Callable[[], object]
Open = Callable[[Path, Between], int]
Attack = Callable[[Path, Path], None]


def open_broken(path: Path, between: Between = lambda: None) -> int:
    """Open a file to append to it, unless it is a link; broken: it may be one by then.

    Args:
        between: called after what is known of the name, and before it is opened. It
            lets a caller decide who runs meanwhile.

    Returns:
        A descriptor, for the caller to close, as of all functions here.

    Raises:
        PermissionError: it is a symbolic link.
    """
    if path.is_symlink():
        raise PermissionError(f"{path.name} is a symbolic link")
    between()
    return os.open(path, os.O_WRONLY | os.O_APPEND)


def open_no_follow(path: Path, between: Between = lambda: None) -> int:
    """Open a file to append to it, unless it is a symbolic link.

    Raises:
        OSError: it is one.
    """
    between()
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)


def open_same(path: Path, between: Between = lambda: None) -> int:
    """Open a file to append to it, unless it is another than a moment ago.

    One made since then may pass: it can get the number of one that was deleted.

    Raises:
        PermissionError: it is another, or no regular file.
    """
    checked = os.lstat(path)
    between()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    opened = os.fstat(descriptor)
    if stat.S_ISREG(checked.st_mode) and os.path.samestat(checked, opened):
        return descriptor
    os.close(descriptor)
    raise PermissionError(f"{path.name} is not what was checked")


def open_in_folder(path: Path, between: Between = lambda: None) -> int:
    """Open a file to append to it, in the folder that its path leads to at first.

    Raises:
        OSError: the file or its folder is a symbolic link.
        PermissionError: the file is no regular one, or has further names.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        between()
        descriptor = os.open(path.name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    opened = os.fstat(descriptor)
    if stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise PermissionError(f"{path.name} is no file with a single name")


def create_broken(path: Path, between: Between = lambda: None) -> int:
    """Create a file; broken: one elsewhere, if the name becomes a link meanwhile.

    Raises:
        FileExistsError: there is one.
    """
    if path.exists():
        raise FileExistsError(f"{path.name} is there")
    between()
    return os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)


def create_exclusively(path: Path, between: Between = lambda: None) -> int:
    """Create a file.

    Raises:
        FileExistsError: there is one, or a link, wherever that leads.
    """
    between()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def swap_in_symlink(path: Path, secret: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(secret)


def swap_in_hard_link(path: Path, secret: Path) -> None:
    path.unlink()
    path.hardlink_to(secret)


def swap_folder(path: Path, secret: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(secret.parent, target_is_directory=True)


def attacked(open_: Open, attack: Attack, folder: Path, new: bool = False) -> str:
    """Let a program write a line while it is attacked; return what has come of it.

    Args:
        folder: an empty one, where all this happens.
        new: neither file is there before.

    Returns:
        "fooled" if the line is in the file that is nobody's business, "refused" if
        opening failed, "right file" if it is where it was meant to be.
    """
    path, secret = folder / "shared" / "log", folder / "secret" / "log"
    for file in (path, secret):
        file.parent.mkdir(parents=True)
        if not new:
            file.touch()
    try:
        descriptor = open_(path, lambda: attack(path, secret))
    except OSError:
        refused = True
    else:
        refused = False
        with os.fdopen(descriptor, "wb") as log:
            log.write(LINE)
    if secret.exists() and secret.read_bytes():
        return "fooled"
    if refused:
        return "refused"
    found = [file for file in folder.glob("*/log") if file.read_bytes() == LINE]
    return "right file" if found else "lost"


def demonstrate(folder: Path) -> None:
    """Check each claim, and print it."""
    attacks = (swap_in_symlink, swap_in_hard_link, swap_folder)
    ways: tuple[tuple[str, Open, list[str]], ...] = (
        ("is_symlink(), open", open_broken, ["fooled", "fooled", "fooled"]),
        ("O_NOFOLLOW", open_no_follow, ["refused", "fooled", "fooled"]),
        ("lstat, open, fstat", open_same, ["refused", "refused", "refused"]),
        ("dir_fd, fstat", open_in_folder, ["refused", "refused", "right file"]),
    )
    print(f"{'swapped in:':22}{'symlink':10}{'hard link':11}folder")
    for name, open_, expected in ways:
        results = [
            attacked(open_, attack, folder / open_.__name__ / attack.__name__)
            for attack in attacks
        ]
        print(f"{name:22}{results[0]:10}{results[1]:11}{results[2]}")
        if results != expected:
            raise SystemExit(f"{name}: was to be {', '.join(expected)}")

    for name, create, result in (
        ("new file, exists()", create_broken, "fooled"),
        ("new file, O_EXCL", create_exclusively, "refused"),
    ):
        seen = attacked(create, swap_in_symlink, folder / create.__name__, new=True)
        print(f"{name:22}{seen}")
        if seen != result:
            raise SystemExit(f"{name}: was to be {result}")
    print("check what you have opened, not what you are going to open")


def main() -> None:
    if sys.platform == "win32":
        print("needs O_NOFOLLOW and dir_fd, which Windows lacks")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        demonstrate(Path(folder))


if __name__ == "__main__":
    main()
