"""`hybridvit NAME WORD`: the commands that a task adds, found by the rows of `hybridvit.task.COMMANDS`."""

from collections.abc import Sequence
from importlib import import_module

from hybridvit.cli.command import Command, SignatureCommand
from hybridvit.errors import UsageError, nearest
from hybridvit.task import CommandGroup


class GroupCommand(Command):
    """One word after `hybridvit` that others follow."""

    def __init__(self, name: str, group: CommandGroup) -> None:
        self.name = name
        self.summary = group.summary
        self._group = group

    def help(self) -> str:
        """Its commands, a line each."""
        lines = [f"  {word:<10}  {self.part(word).summary}" for word in self._group.functions]
        return "\n".join([
            *(f"usage: hybridvit {self.name} COMMAND [ARGUMENTS]", "", self.summary, "", "commands:", *lines, ""),
            *("Examples:", *(f"  {example}" for example in self._group.examples), ""),
            f"See `hybridvit {self.name} COMMAND --help`.\n",
        ])  # fmt: skip

    def run(self, words: Sequence[str]) -> int:
        """Carry out the command that the first word names."""
        if not words or words[0] in ("--help", "-h"):
            print(self.help(), end="")
            return 0 if words else UsageError.exit_code
        return self.part(words[0]).run(words[1:])

    def part(self, word: str) -> SignatureCommand:
        """The command of that second word. Raises UsageError with the nearest for an unknown one."""
        if word not in self._group.functions:
            raise UsageError(
                f"`hybridvit {self.name}` has no command '{word}'. {nearest(word, self._group.functions)}. See "
                f"`hybridvit {self.name} --help`."
            )
        module, _, function = self._group.functions[word].partition(":")
        return SignatureCommand(f"{self.name} {word}", getattr(import_module(module), function))
