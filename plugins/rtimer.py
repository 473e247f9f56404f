"""rtimer: routes that run at intervals, on a faked OPTIONS.

All timers run on the worker's one loop, between packets: a timer never overlaps itself, and the
runs that a slow route leaves no time for are counted (`timer_runs_missed` of the status), not
made up for.  The first run comes after one interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from homerd.api import ModParam, Outline, Plugin, Problem, RunState, Worker, hookimpl

# A shorter interval would leave the loop nothing but timers.
SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Timer:
    """`name=N;interval=SECONDS;mode=1;`, an interval of `500u` is in microseconds.

    interval: seconds, 0 when it is not said.  runners: how many run the routes each time, each with
    its own `$var`; 0 for the one runner that all such timers share.
    """

    name: str
    interval: float = 0.0
    runners: int = 0

    @staticmethod
    def from_script(value: str | int) -> Timer:
        found = _attributes(value, ("name", "interval", "mode"), "name")
        return Timer(found["name"], _seconds(found.get("interval", "0")), _number(found, "mode"))


@dataclass(frozen=True, slots=True)
class Exec:
    """`timer=N;route=R`."""

    timer: str
    route: str

    @staticmethod
    def from_script(value: str | int) -> Exec:
        found = _attributes(value, ("timer", "route"), "timer", "route")
        return Exec(found["timer"], found["route"])


class Rtimer(Plugin):
    """Runs routes at intervals."""

    name = "rtimer"

    timer = ModParam(
        Timer,
        many=True,
        help="a timer: name=N;interval=SECONDS;mode=M; an interval ending in u is in microseconds,"
        " a millisecond at least; mode is how many runners run the routes each time, each with its"
        " own $var; those of all timers with mode 0 share one",
    )
    exec = ModParam(
        Exec,
        many=True,
        reloadable=True,
        help="a route that a timer runs: timer=N;route=R; several of one timer run in the reverse"
        " order of their lines, each for itself: drop and exit end only that one",
    )
    default_interval = ModParam(int, 120, help="seconds of a timer that does not say its interval")

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Timers and routes that are not there."""
        names = [timer.name for timer in self.timer]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem(f'the timer "{name}" is defined twice', parameter="timer")
        for item in self.exec:
            if item.timer not in names:
                yield Problem(
                    f'the timer "{item.timer}" is not defined',
                    parameter="exec",
                    help=f'modparam("rtimer", "timer", "name={item.timer};interval=60;mode=1;")',
                )
            if item.route not in outline.routes:
                yield Problem(
                    f'the timer "{item.timer}" runs route[{item.route}], which is not there',
                    parameter="exec",
                    warning=True,
                )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the timers."""
        shared: RunState | None = None
        for timer in self.timer:
            if timer.runners:
                states = [worker.new_state() for _ in range(timer.runners)]
            else:
                shared = shared or worker.new_state()
                states = [shared]
            seconds = timer.interval or max(1, self.default_interval)
            worker.every(max(SHORTEST_SECONDS, seconds), self._runner(worker, timer.name, states))

    def _runner(self, worker: Worker, name: str, states: list[RunState]) -> Callable[[], None]:
        def run() -> None:
            routes = [item.route for item in reversed(self.exec) if item.timer == name]
            for state in states:
                for route in routes:
                    worker.run_route(route, state, name)

        return run


def _attributes(value: str | int, known: tuple[str, ...], *required: str) -> dict[str, str]:
    """`a=1;b=2;` as a dictionary."""
    found: dict[str, str] = {}
    for piece in filter(str.strip, str(value).split(";")):
        key, equals, text = piece.partition("=")
        if key.strip() not in known or not equals:
            raise ValueError(f'unknown attribute "{key.strip()}", expected {", ".join(known)}')
        found[key.strip()] = text.strip()
    missing = [key for key in required if not found.get(key)]
    if missing:
        raise ValueError(f'{" and ".join(missing)} missing in "{value}"')
    return found


def _number(found: dict[str, str], key: str) -> int:
    text = found.get(key, "0")
    if not text.isdecimal():
        raise ValueError(f'{key} takes a number, got "{text}"')
    return int(text)


def _seconds(text: str) -> float:
    """`60` or `500000u`."""
    digits = text[:-1] if text[-1:] in ("u", "U") else text
    if not digits.isdecimal():
        raise ValueError(f'interval takes seconds, or microseconds as in 500u, got "{text}"')
    return int(digits) / 1e6 if digits != text else float(digits)
