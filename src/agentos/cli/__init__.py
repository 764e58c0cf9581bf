"""The command line: prints and serves events, holds no logic of agents."""

import errno
import os
import signal
import sys
from types import FrameType

import agentos
from agentos.errors import AgentOSError


def main() -> None:
    """The command `agentos`."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"agentos {agentos.__version__}\n")
        return
    signal.signal(signal.SIGTERM, _leave_on_signal)
    # stored text can hold anything, the terminal's encoding perhaps not
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.argv = [argument if os.path.exists(argument) else _decoded(argument) for argument in sys.argv]
    try:
        from agentos.cli.app import app  # typer takes 50 ms, which `--version` need not pay

        app(prog_name="agentos")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        from agentos.cli.output import complain

        complain(f"the output cannot be written: {error.strerror}; free some space or write elsewhere")
        sys.exit(1)
    except KeyboardInterrupt:  # while starting; a command under way handles its own
        sys.exit(130)
    except AgentOSError as error:
        from agentos.cli.output import complain

        complain(str(error))
        sys.exit(error.exit_code)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is closed: Ctrl-C now just ends the process
        _flush()


def _decoded(argument: str) -> str:
    """Bytes that the locale cannot decode are lone surrogates: taken as UTF-8, which they mostly are."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", "replace")
    return argument


def _leave_on_signal(number: int, _frame: FrameType | None) -> None:
    """Unwind as on Ctrl-C: what a turn did is saved, the database is closed in order."""
    sys.exit(128 + number)


def _flush() -> None:
    """Write what is left; a reader that went away (`| head`) is no error, a full disk was named already."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
