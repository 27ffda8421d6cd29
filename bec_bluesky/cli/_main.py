"""Run the command line; whatever goes wrong is one sentence on stderr, with a traceback only if asked for."""

import sys
import traceback

from bec_bluesky.errors import BecBlueskyError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; give the exit code: 0 done, 1 failed, 2 wrongly asked, 130 interrupted."""
    from bec_bluesky.cli._app import app

    given = sys.argv[1:] if arguments is None else arguments
    wants_traceback = "--debug" in given
    try:
        code: object = app(given, prog_name="bec-bluesky", standalone_mode=False)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Exception as error:  # noqa: BLE001  # here the program meets the person
        if wants_traceback:
            traceback.print_exc()
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """Say an error in one sentence, by whose it is; give the exit code."""
    if isinstance(error, BecBlueskyError):
        return _say(str(error), 1)
    # the command-line library's own errors (their class moved between versions of typer)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return 2
    explain = getattr(error, "format_message", None)
    if explain is not None:
        path = getattr(getattr(error, "ctx", None), "command_path", "bec-bluesky")
        return _say(f"{explain().rstrip('.')}: see `{path} --help`", 2)
    if type(error).__name__ == "Abort":
        return _say("interrupted", 130)
    if isinstance(error, OSError):
        return _say(str(error), 1)
    return _say(f"unexpected {type(error).__name__}: {error} (`bec-bluesky --debug …` shows where)", 1)


def _say(text: str, code: int) -> int:
    print(f"bec-bluesky: {' '.join(text.split())}", file=sys.stderr)
    return code
