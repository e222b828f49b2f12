"""Signals that ask a run to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from strategies.core.loop import Loop


@contextlib.contextmanager
def interruptible(loop: Loop) -> Iterator[None]:
    """Meanwhile SIGINT, SIGTERM and SIGHUP end the loop after the event at hand; a second one acts as it usually does.

    A loop that waits for real clients ends at once. SIGHUP, which a terminal sends as it is closed, is ignored where it
    was before, as ``nohup`` asks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, usual[number])
        loop.interrupt()

    hung_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    for stopping in (signal.SIGINT, signal.SIGTERM, *hung_up):
        usual[stopping] = signal.signal(stopping, handle)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
