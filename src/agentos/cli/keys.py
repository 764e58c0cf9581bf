"""Ctrl-C while an agent runs."""

import asyncio
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Cancellable(Protocol):
    """What runs turns and can be told to stop."""

    def cancel(self) -> None:
        """Stop the turn that runs."""
        ...


@contextmanager
def cancelling(agent: Cancellable) -> Iterator[None]:
    """Ctrl-C cancels the turn and keeps what was saved; a second one leaves."""
    loop, times = asyncio.get_running_loop(), 0
    before = signal.getsignal(signal.SIGINT)
    task = asyncio.current_task()

    def interrupt() -> None:
        nonlocal times
        times += 1
        agent.cancel()
        if times > 1 and task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if times > 1:
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)  # asyncio's own: it cancels what runs, and raises nothing inside the loop


@contextmanager
def turn_keys(agent: Cancellable) -> Iterator[None]:
    """During a turn Ctrl-C cancels it, and what is typed is not echoed into the reply."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(keyboard, termios.TCSADRAIN, silent)
    try:
        with cancelling(agent):
            yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
