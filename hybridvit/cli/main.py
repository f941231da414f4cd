"""Choose the command, carry it out, and turn every outcome into an exit code and at most one paragraph."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import hybridvit
from hybridvit.cli.command import Command, SignatureCommand
from hybridvit.cli.group import GroupCommand
from hybridvit.errors import DiskFull, HybridViTError, OutOfMemory, UsageError, nearest
from hybridvit.machine.allocator import keep_freed_memory
from hybridvit.machine.threads import let_waiting_threads_sleep
from hybridvit.stderr import remark
from hybridvit.task import COMMANDS

SIGNATURES = {
    "list": "hybridvit.cli.catalogue:list_models",
    "info": "hybridvit.cli.catalogue:info",
    "check-data": "hybridvit.cli.check_data:check_data",
    "shard": "hybridvit.cli.shard:shard",
    "index": "hybridvit.cli.shard:index",
    "evaluate": "hybridvit.cli.evaluate:evaluate",
    "corrupt": "hybridvit.cli.corrupt:corrupt",
    "predict": "hybridvit.cli.predict:predict",
    "batch": "hybridvit.cli.batch:batch",
    "explain": "hybridvit.cli.explain:explain",
    "serve": "hybridvit.cli.serve:serve",
    "fold": "hybridvit.cli.fold:fold",
    "export": "hybridvit.cli.export:export",
    "bench": "hybridvit.cli.bench:bench",
    "bench-page": "hybridvit.cli.bench_page:bench_page",
    "choose": "hybridvit.cli.choose:choose",
    "mixers": "hybridvit.cli.figures:mixers",
    "stages": "hybridvit.cli.figures:stages",
    "profile": "hybridvit.cli.profile:profile",
    "ablate": "hybridvit.cli.ablate:ablate",
    "push": "hybridvit.cli.push:push",
    "tables": "hybridvit.cli.tables:tables",
}
ORDER = (
    "list", "info", "doctor", "check-data", "shard", "index", "train", "evaluate", "corrupt", "predict", "batch",
    "explain", "serve", "fold", "export", "bench", "bench-page", "choose", "profile", "mixers", "stages", "tables",
    "ablate", "push", *COMMANDS,
)  # fmt: skip
TIMED = ("bench", "choose", "profile", "mixers", "stages", "tables")  # threads of what they time wait as in any program

OVERVIEW = """\
usage: hybridvit COMMAND [ARGUMENTS]

Fast hybrid vision models: train them, fold them, export them, measure them.

commands:
{commands}

options, anywhere on the line:
  --help     this text, or that of a command: hybridvit train --help
  --version  print the version
  --debug    show the traceback of an error

start here:
  hybridvit list                                    which models there are
  hybridvit train --recipes                         which recipes there are
  hybridvit train digits                            train one on 1,797 real images, in minutes
  hybridvit predict runs/digits/model.safetensors photo.png

exit codes: 0 done, 2 usage, 3 data, 4 loss not finite, 5 checkpoint, fold, export
            or hub, 6 out of memory, 7 disk, 8 another process lost, 9 slower than --against, 130 interrupted,
            143 terminated
"""


def command(name: str) -> Command:
    """The command of that name. Raises UsageError with the nearest names for an unknown one."""
    if name == "train":
        from hybridvit.cli.train import TrainCommand

        return TrainCommand()
    if name == "doctor":
        from hybridvit.cli.doctor import DoctorCommand

        return DoctorCommand()
    if name in COMMANDS:
        return GroupCommand(name, COMMANDS[name])
    if name not in SIGNATURES:
        raise UsageError(f"There is no command '{name}'. {nearest(name, ORDER)}. See `hybridvit --help`.")
    module, _, function = SIGNATURES[name].partition(":")
    return SignatureCommand(name, getattr(import_module(module), function))


def overview() -> str:
    """The text of `hybridvit --help`."""
    return OVERVIEW.format(commands="\n".join(f"  {name:<10}  {command(name).summary}" for name in ORDER))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hybridvit ARGUMENTS` (those of this process by default) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be Unicode
            if sys.platform == "win32":  # its pipes have an encoding in which "×" cannot be written
                stream.reconfigure(encoding="utf-8")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    return guarded(lambda: _dispatch(words), debug=debug)


def _dispatch(words: list[str]) -> int:
    if not words:
        print(overview(), end="", file=sys.stderr)
        return UsageError.exit_code
    if words[0] in ("--help", "-h", "help"):
        print(command(words[1]).help() if words[1:] else overview(), end="")
        return 0
    if words[0] == "--version":
        print(f"hybridvit {hybridvit.__version__}")
        return 0
    keep_freed_memory()
    if words[0] not in TIMED:
        let_waiting_threads_sleep()
    return command(words[0]).run(words[1:])


def guarded(run: Callable[[], int], *, debug: bool) -> int:
    """Turn every outcome of `run` into an exit code and at most one paragraph on stderr; `debug` shows tracebacks."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_output()  # the reader, such as head or less, has closed the pipe
        return 0
    except KeyboardInterrupt:
        remark("\nInterrupted.")
        return 130
    except HybridViTError as error:
        if debug:
            raise
        remark(f"Error: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        from hybridvit.machine.light import in_words

        if debug or (missing := in_words(error)) is None:
            raise
        remark(f"Error: {missing}")
        return missing.exit_code
    except MemoryError:
        if debug:
            raise
        remark("Error: This machine has too little memory for that. Use a smaller --batch or size.")
        return OutOfMemory.exit_code
    except OSError as error:
        if debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        remark(f"Error: A file or the output could not be read or written: {error.strerror}{where}.")
        _discard_output()
        return DiskFull.exit_code


def _discard_output() -> None:
    """Send the rest of stdout to nowhere, or Python reports the same error once more when it closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
