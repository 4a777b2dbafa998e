# /// script
# dependencies = ["apscheduler>=3.11.3,<4"]
# ///
"""When cron triggers fire: computed, not waited for, over both changes of the clock.

A trigger is a pure function: from the last time and the present one it computes the
next. So a schedule can be read, and tested, years ahead.

A cron trigger goes by the clock on the wall of its time zone. In autumn that shows an
hour twice, and what is due in that hour comes twice. In spring an hour is left out. A
job that is due once in it comes an hour later by the wall; of several times in it only
the first counts; and where it is the hour after midnight (as in America/Havana), the
job does not come at all that day. So a job that has to come once a day is given a time
that each day has once, or UTC. An interval counts real time: after the change of the
clock it comes at another time of day.

APScheduler's cron is not quite that of Unix. Weekday 1 is Tuesday, for it counts from
Monday as 0: write `mon`. And if both a day of the month and one of the week are given,
both must fit; with Unix one of them is enough.

Book: Chapter 19, example4.
Try:  --zone America/Havana

Output:
    Europe/Berlin, Sat 29 Mar 2025
      02:30       Sun 03:30  Mon 02:30  Tue 02:30
      13:00       Sat 13:00  Sun 13:00  Mon 13:00
      01:45 UTC   Sun 03:45  Mon 03:45  Tue 03:45
      each 24 h   Sat 13:00  Sun 14:00  Mon 14:00
    Europe/Berlin, Sat 25 Oct 2025
      02:30       Sun 02:30  Sun 02:30  Mon 02:30  Tue 02:30
      13:00       Sat 13:00  Sun 13:00  Mon 13:00
      01:45 UTC   Sun 02:45  Mon 02:45  Tue 02:45
      each 24 h   Sat 13:00  Sun 12:00  Mon 12:00
    0 9 * * 1     Tue 03 Jun
    0 9 * * mon   Mon 02 Jun
    0 9 13 * fri  Fri 13 Jun
    cron goes by the wall: once a day, but twice in the hour that comes twice
"""

import argparse
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import (  # type: ignore[import-untyped]
    IntervalTrigger,
)

ZONE = "Europe/Berlin"
YEAR = 2025
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def fire_times(trigger: BaseTrigger, start: datetime, end: datetime) -> list[datetime]:
    """Return all times from `start` on, and before `end`, at which a trigger fires.

    They are in UTC, so that their differences are real time.

    Raises:
        ValueError: `start` or `end` has no time zone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start and end need a time zone")
    times: list[datetime] = []
    time = trigger.get_next_fire_time(None, start)
    while time is not None and time.astimezone(UTC) < end:
        times.append(time.astimezone(UTC))
        time = trigger.get_next_fire_time(time, time)
    return times


def clock_changes(zone: tzinfo, year: int) -> dict[datetime, timedelta]:
    """Return when, in UTC, the clock of a zone is changed in a year, and by how much.

    One that does not come at a full or half hour of UTC is found up to half an hour
    late.
    """
    first, last = (datetime(y, 1, 1, tzinfo=UTC) for y in (year, year + 1))
    times = [first + n * HOUR / 2 for n in range((last - first) // (HOUR / 2))]
    offsets = [time.astimezone(zone).utcoffset() or timedelta() for time in times]
    return {
        time: new - old
        for time, old, new in zip(times[1:], offsets[:-1], offsets[1:], strict=True)
        if old != new
    }


def four_triggers(
    change: datetime, forward: bool, zone: tzinfo
) -> dict[str, BaseTrigger]:
    """Return by name triggers that a change of the clock by an hour is met with.

    The first is due in the hour that is left out (`forward`) or comes twice.
    """
    after = change.astimezone(zone)
    hour = after.hour - 1 if forward else after.hour
    return {
        f"{hour:02}:30": CronTrigger(hour=hour, minute=30, timezone=zone),
        "13:00": CronTrigger.from_crontab("0 13 * * *", zone),
        f"{change.hour:02}:45 UTC": CronTrigger(
            hour=change.hour, minute=45, timezone=UTC
        ),
        "each 24 h": IntervalTrigger(days=1, start_date=after.replace(hour=13) - DAY),
    }


def show_change(change: datetime, forward: bool, zone: tzinfo) -> None:
    """Print when four triggers fire around a change of the clock, and check it."""
    after = change.astimezone(zone)
    # Local times are added to by the wall: this is noon of the day before.
    noon = after.replace(hour=12, minute=0, fold=0) - DAY
    print(f"{zone}, {noon:%a %d %b %Y}")
    found = []
    for name, trigger in four_triggers(change, forward, zone).items():
        times = fire_times(trigger, noon, noon + 3 * DAY)
        shown = "  ".join(f"{time.astimezone(zone):%a %H:%M}" for time in times)
        print(f"  {name:10}  {shown}")
        found.append([(later - time) / HOUR for time, later in pairwise(times)])
    expected = [[23.0, 24], [23, 24]] if forward else [[1, 24, 24], [25, 24]]
    if forward and after.hour == 1:
        expected[0] = [24]  # midnight is left out, and so is the job
    if found != [*expected, [24, 24], [24, 24]]:
        raise SystemExit(f"there were to be other hours in between than {found}")


def show_days() -> None:
    """Print on which days three expressions fire first from June on, and check it."""
    june = datetime(YEAR, 6, 1, tzinfo=UTC)
    for expression, day in ("0 9 * * 1", 3), ("0 9 * * mon", 2), ("0 9 13 * fri", 13):
        trigger = CronTrigger.from_crontab(expression, UTC)
        first = fire_times(trigger, june, june + 30 * DAY)[0]
        print(f"{expression:12}  {first:%a %d %b}")
        if first.day != day:
            raise SystemExit(f"{expression} was to fire first on the {day}.")


def zone_named(text: str) -> ZoneInfo:
    try:
        zone = ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"no time zone: {text}") from None
    changes = clock_changes(zone, YEAR)
    # The hour that is left out or comes twice is to be of the same day as what follows.
    at_night = all(
        (1 if by == HOUR else 0) <= time.astimezone(zone).hour < 12
        and time.astimezone(zone).minute == 0
        for time, by in changes.items()
    )
    if {*changes.values()} != {HOUR, -HOUR} or not at_night:
        raise argparse.ArgumentTypeError(
            f"the clock of {text} is not set by one hour, at a full hour after midnight"
        )
    return zone


def main() -> None:
    try:
        ZoneInfo(ZONE)
    except ZoneInfoNotFoundError:
        print("needs the time zones: package tzdata")
        raise SystemExit(77) from None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--zone", type=zone_named, default=ZONE)
    zone = parser.parse_args().zone

    for change, by in clock_changes(zone, YEAR).items():
        show_change(change, by > timedelta(), zone)
    show_days()
    print("cron goes by the wall: once a day, but twice in the hour that comes twice")


if __name__ == "__main__":
    main()
