"""An interruption at a chosen moment, as a signal makes it, for tests of runs that go on."""

from __future__ import annotations

from strategies.core.loop import Loop, Observer


class InterruptAt(Observer):
    """Interrupts a run after so many events."""

    def __init__(self, events: int) -> None:
        self.left = events

    def after_event(self, loop: Loop, event: object) -> None:
        self.left -= 1
        if self.left == 0:
            loop.interrupt()
