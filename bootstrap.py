#!/usr/bin/env python3
"""Set up this checkout and use it, on a machine that has Python 3.11 or newer and a network, and nothing else.

    python3 bootstrap.py demo [--keep]      set up, then run the demo
    python3 bootstrap.py test [ARGS…]       set up, then check and test everything (with ARGS: `pytest ARGS`)
    python3 bootstrap.py run ARGS…          set up, then `bec-bluesky ARGS`
    python3 bootstrap.py setup              set up only

Everything is installed into `.venv` beside this file; a second call installs nothing unless `pyproject.toml` or
`constraints.txt` changed.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
OLDEST = (3, 11)


def main(arguments: list[str]) -> int:
    """Do what was asked; give the exit code."""
    if sys.version_info < OLDEST:
        return fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed, this is {sys.version.split()[0]}")
    verbs = {"demo": "demo", "run": "demo", "setup": "test", "test": "test"}
    verb = arguments[0] if arguments else ""
    if verb not in verbs:
        print((__doc__ or "").strip())
        return 2
    try:
        set_up(verbs[verb])
    except subprocess.CalledProcessError as error:
        return fail(f"setting up failed with code {error.returncode}: {' '.join(map(str, error.cmd))}")
    rest = arguments[1:]
    if verb == "setup":
        return 0
    if verb == "test":
        return test(rest)
    command = [str(PYTHON), "-m", "bec_bluesky", *(["demo", *rest] if verb == "demo" else rest)]
    return run(command)


def set_up(extra: str) -> None:
    """Make the environment and install into it, unless that was done for these very files."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    wanted = hashlib.sha256(b"\0".join(path.read_bytes() for path in files) + sys.version.encode()).hexdigest()
    # what serves the tests serves the demo too
    stamps = [VENV / f"installed-{name}" for name in dict.fromkeys((extra, "test"))]
    if PYTHON.exists() and any(stamp.exists() and stamp.read_text() == wanted for stamp in stamps):
        return
    if not works(PYTHON):
        make_environment()
    print("Installing into .venv (a minute or two the first time) …", flush=True)
    install("--editable", f"{ROOT}[{extra}]", "--constraint", str(ROOT / "constraints.txt"))
    stamps[0].write_text(wanted)


def works(python: Path) -> bool:
    """Tell whether the environment's Python runs and is the version that runs this file."""
    if not python.exists():
        return False
    said = subprocess.run([python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False)
    return said.returncode == 0 and said.stdout.strip() == sys.version.strip()


def make_environment() -> None:
    """Make `.venv`; where Python came without ensurepip, its own pip installs into it."""
    if VENV.exists():
        shutil.rmtree(VENV)
    has_pip_inside = importlib.util.find_spec("ensurepip") is not None
    if not has_pip_inside and importlib.util.find_spec("pip") is None:
        sys.exit(fail("this Python has neither ensurepip nor pip: install them (Debian: python3-venv) and try again"))
    options = [] if has_pip_inside else ["--without-pip"]
    made = subprocess.run([sys.executable, "-m", "venv", *options, str(VENV)], check=False)
    if made.returncode != 0 or not PYTHON.exists():
        sys.exit(fail("no virtual environment could be made: on Debian and Ubuntu install python3-venv and try again"))


def install(*what: str) -> None:
    """Call pip for the environment."""
    inside = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    pip = [str(PYTHON), "-m", "pip"] if inside else [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", *what], check=True, cwd=ROOT)


def test(arguments: list[str]) -> int:
    """Check style, types and layers, then run the tests; with arguments, only pytest with them."""
    if not arguments:
        for name, command in (
            ("style", ["ruff", "check", "--quiet"]),
            ("format", ["ruff", "format", "--check", "--quiet"]),
            ("layers", ["lint-imports", "--no-cache"]),
            ("types", ["pyright", "--warnings"]),
        ):
            print(f"── {name}: {' '.join(command)}", flush=True)
            code = run([str(BIN / command[0]), *command[1:]])
            if code:
                return code
        workers = min(4, 1 + (os.cpu_count() or 1))  # they wait about half of their time
        arguments = ["-n", str(workers), "--dist", "loadscope", "--no-loadscope-reorder", "--max-worker-restart", "0"]
        print(f"── tests: pytest {' '.join(arguments)}", flush=True)
    return run([str(PYTHON), "-m", "pytest", *arguments])


def run(command: list[str]) -> int:
    """Run a command in the checkout; Ctrl-C is the command's to handle."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def fail(text: str) -> int:
    """Say it in one sentence."""
    print(f"bootstrap: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
