"""An object is published by one store, when it is complete, or others see half of it.

To publish an object is to put its reference where other threads find it. From then on
they use it, complete or not. Here another thread looks after each step of the writer,
at what is unsafe:

* `self` escapes: the `__init__` of a base class publishes the object, and that of the
  subclass has not yet filled in its part.
* The reference is stored first, and what it refers to is filled in later.
* An object that others know already is changed, field by field.

and at what is safe: make all of the object, and store its reference then. A function
that does both, in this order, is the place for it. To change it, store another one in
its place; a frozen dataclass sees to that. And who reads two fields loads the reference
once. If it is loaded twice, there may be another object the second time.

More than one object can be published by one signal. All that a thread does before
`Event.set`, `Queue.put` or the release of a lock happens before what another does after
the `wait`, `get` or acquire that was waiting for it.

Compilers and processors may put one store before the other (example06, example07). Java
and C++ say how to forbid it; the Python language reference is silent, and one has to
look at how CPython is made. With a GIL, the other thread runs after the first has
released it and it has acquired it, which orders all that they do. Without, the
reference is stored in a dict or an object with release ordering, so that who finds it
there finds the object complete (FT_ATOMIC_STORE_PTR_RELEASE in Objects/dictobject.c of
3.13).

Output:
                    another thread sees, step by step
    self escapes    nothing, half, attic C
    stored, filled  nothing, half, half, attic C
    made, stored    nothing, nothing, nothing, attic C
    changed         attic C, cellar C, cellar F
    replaced        attic C, attic C, cellar F
    replaced while it is read
      loaded twice  attic F
      loaded once   attic C
    filled in, and then
      Event.set     attic C
      Queue.put     attic C
      Lock.release  attic C
    complete before it is stored, stored once, never changed: nobody sees half
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

LIMIT = 10.0  # seconds that a thread waits for another

# Called at the end of each step, it lets a caller decide who runs then.
Step = Callable[[], object]


def go_on() -> None:
    """Let nobody else run."""


@dataclass
class Place:
    """Where threads find a device, if there is one; guarded by nothing."""

    device: Any = None


class Device:
    """A device has a name.

    Args:
        place: where it publishes itself; broken.
    """

    def __init__(self, name: str, place: Place | None = None) -> None:
        self.name = name
        if place is not None:
            place.device = self  # there is no unit yet


class Thermometer(Device):
    """A device that has a unit besides."""

    def __init__(
        self, name: str, unit: str, place: Place | None = None, step: Step = go_on
    ) -> None:
        super().__init__(name, place)
        step()
        self.unit = unit
        step()


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a thermometer has, but it never changes."""

    name: str
    unit: str


def publish_in_init(place: Place, step: Step) -> None:
    """Publish a thermometer; broken."""
    Thermometer("attic", "C", place, step)


def publish_then_fill(place: Place, step: Step) -> None:
    """Publish a thermometer; broken."""
    thermometer = Thermometer.__new__(Thermometer)
    place.device = thermometer
    step()
    thermometer.__init__("attic", "C", step=step)  # type: ignore[misc]


def make_then_publish(place: Place, step: Step) -> None:
    """Publish a thermometer."""
    thermometer = Thermometer("attic", "C", step=step)
    place.device = thermometer
    step()


def change_in_place(place: Place, step: Step) -> None:
    """Make the device another one; broken."""
    place.device.name = "cellar"
    step()
    place.device.unit = "F"
    step()


def replace_by_another(place: Place, step: Step) -> None:
    """Make the device another one."""
    sensor = replace(place.device, name="cellar", unit="F")
    step()
    place.device = sensor
    step()


def look(place: Place, step: Step = go_on) -> str:
    """Return in words what stands there, with a step between its fields."""
    device = place.device
    if device is None:
        return "nothing"
    try:
        name = device.name
        step()
        unit = device.unit
    except AttributeError:
        return "half"
    return f"{name} {unit}"


def look_twice(place: Place, step: Step) -> str:
    """The same, but the reference is loaded for each field; broken."""
    name = place.device.name
    step()
    return f"{name} {place.device.unit}"


def watch(write: Callable[[Place, Step], object], device: Any) -> list[str]:
    """Return what another thread sees before and after each step of `write`.

    Args:
        device: what stands in the place before.
    """
    place = Place(device)
    seen = []

    with ThreadPoolExecutor(1) as other_thread:

        def let_look() -> None:
            seen.append(other_thread.submit(look, place).result(LIMIT))

        let_look()
        write(place, let_look)
    return seen


def replaced_meanwhile(read: Callable[[Place, Step], str]) -> str:
    """Return what `read` sees if another thread replaces the device in its midst."""
    place = Place(Sensor("attic", "C"))
    with ThreadPoolExecutor(1) as other_thread:

        def let_replace() -> None:
            other_thread.submit(replace_by_another, place, go_on).result(LIMIT)

        return read(place, let_replace)


def fill_and_tell(
    tell: Callable[[], object], wait: Callable[[], object], place: Place
) -> str:
    """Fill in a device that others have; return what a thread sees that has waited.

    Args:
        tell: called after that, in this thread.
        wait: called before that, in the other thread; it returns after `tell`.
    """

    about_to_wait = threading.Event()

    def wait_and_look() -> str:
        about_to_wait.set()
        wait()
        return look(place)

    with ThreadPoolExecutor(1) as other_thread:
        try:
            future = other_thread.submit(wait_and_look)
            about_to_wait.wait(LIMIT)
            place.device.name, place.device.unit = "attic", "C"
        finally:  # also after Ctrl-C
            tell()
        return future.result(LIMIT)


def is_refused(device: Sensor) -> bool:
    """Tell whether a change in place is refused."""
    try:
        change_in_place(Place(device), go_on)
    except FrozenInstanceError:
        return True
    return False


def check(name: str, seen: str, expected: str) -> None:
    """Print what was seen, and check it."""
    print(f"{name:16}{seen}")
    if seen != expected:
        raise SystemExit(f"{name.strip()}: {expected} was to be seen")


def demonstrate() -> None:
    """Check each claim, and print it."""
    sensor, thermometer = Sensor("attic", "C"), Thermometer("attic", "C")
    writers: list[tuple[str, Callable[[Place, Step], None], Any, str]] = [
        ("self escapes", publish_in_init, None, "nothing, half, attic C"),
        ("stored, filled", publish_then_fill, None, "nothing, half, half, attic C"),
        ("made, stored", make_then_publish, None, "nothing, nothing, nothing, attic C"),
        ("changed", change_in_place, thermometer, "attic C, cellar C, cellar F"),
        ("replaced", replace_by_another, sensor, "attic C, attic C, cellar F"),
    ]
    print(f"{'':16}another thread sees, step by step")
    for name, write, device, expected in writers:
        check(name, ", ".join(watch(write, device)), expected)
    if not is_refused(Sensor("attic", "C")):
        raise SystemExit("a frozen dataclass was to refuse the change in place")

    print("replaced while it is read")
    check("  loaded twice", replaced_meanwhile(look_twice), "attic F")
    check("  loaded once", replaced_meanwhile(look), "attic C")

    print("filled in, and then")
    event, lock = threading.Event(), threading.Lock()
    items: queue.Queue[None] = queue.Queue()
    lock.acquire()
    for name, tell, wait in (
        ("  Event.set", event.set, lambda: event.wait(LIMIT)),
        ("  Queue.put", lambda: items.put(None), lambda: items.get(timeout=LIMIT)),
        ("  Lock.release", lock.release, lambda: lock.acquire(timeout=LIMIT)),
    ):
        unfilled = Place(Thermometer.__new__(Thermometer))
        check(name, fill_and_tell(tell, wait, unfilled), "attic C")


def main() -> None:
    try:
        demonstrate()
    except TimeoutError:
        raise SystemExit(f"a thread has waited for {LIMIT:g} s") from None
    print("complete before it is stored, stored once, never changed: nobody sees half")


if __name__ == "__main__":
    main()
