"""`hybridvit train`: a recipe in, a run folder out. Its options are the keys of the recipe."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.cli.command import Command, split
from hybridvit.cli.help import HelpFormatter, described, reflow
from hybridvit.cli.recipe_keys import KeySection, other_sections, usual_sections
from hybridvit.cli.table import aligned
from hybridvit.errors import UsageError, command_line
from hybridvit.recipe.file import RECIPE, load_recipe, recipe_names, recipe_text, recipe_titles
from hybridvit.recipe.recipe import Recipe

DESCRIPTION = """\
usage: hybridvit train RECIPE [--key value]...
       hybridvit train RUN --resume
       hybridvit train --config FILE [--key value]...
       hybridvit train --recipes

Train a model as a recipe says.

A recipe is a short YAML file; one that comes with the package is given by its name (digits, finetune, fastvit_t8,
fastervit_0 ...; --recipes lists all {count}). Every key can be set on the command line. The run folder gets the
resolved recipe, metrics (CSV, TensorBoard), checkpoints to resume from, and at the end model.safetensors, the weights
of the best validation, with last.safetensors beside it. An earlier run in the same folder is moved aside. Ctrl-C saves
and ends with code 130.

Examples:
  hybridvit train digits
  hybridvit train folder --data.root photos              your own: photos/train/<class>/*, photos/val/<class>/*
  hybridvit train folder --data.root photos --data.train . --data.val_share 0.2        photos/<class>/*
  hybridvit train digits --schedule.epochs 20 --output runs/longer
  hybridvit train --config mine.yaml --data.root photos --optim.lr 5e-4
  hybridvit train --config mine.yaml --dry_run           2 steps, to see that all parts work
  hybridvit train --config mine.yaml --print_config      the resolved recipe, nothing is trained
  hybridvit train runs/digits --resume                   go on after an interruption, by the folder of the run
  hybridvit train digits --resume                        the same, by its recipe

options of the run:
  --recipes            list the recipes of the package, a line each, and end
  --config FILE        the recipe, instead of a name
  --resume [auto]      go on from the newest checkpoint; auto: start if there is none
  --batch N|auto       images one device holds at once (data.micro_batch); auto: the most that fit. The batch of a step,
                       data.total_batch, stays as it is
  --fold I/K           hold out part I of K of the training images and validate on it (data.fold)
  --allow_changes      resume although the recipe has changed
  --allow_data_change  resume although images were added, removed or changed
  --print_config       print the resolved recipe and end
"""


SHORT = {"batch": "data.micro_batch", "fold": "data.fold"}  # options that stand for keys


class TrainCommand(Command):
    """Takes the keys of a recipe as options, so its help is that of the recipe."""

    name = "train"
    summary = "Train a model as a recipe says."

    def help(self) -> str:
        """Description, examples, and every key with its meaning and default."""
        return reflow(DESCRIPTION.format(count=len(recipe_names()))) + "\n\n" + _keys_help()

    def run(self, words: Sequence[str]) -> int:
        """Read the recipe with its overrides, then train, or print it."""
        if "--help" in words or "-h" in words:
            print(self.help(), end="")
            return 0
        if "--recipes" in words:
            print(aligned([(name, title) for name, title in recipe_titles().items()], left=2))
            print("\nThe head of each file tells more: source, hardware, published figure, what is not stated.")
            return 0
        source, rest = (words[0], words[1:]) if words and not words[0].startswith("--") else (None, words)
        options, rest = split(rest, _options(), self.name)
        config = options["config"]
        if (source is None) == (config is None):
            raise UsageError(
                f"`hybridvit train` takes one recipe, {'two' if source else 'none'} given. Name one of the package "
                "(`hybridvit train --recipes` lists them) or give a file: --config FILE."
            )
        _check(options, rest)
        for option, key in SHORT.items():
            if options[option] is not None:
                rest += [f"--{key}", options[option]]
        recipe = _recipe(source or config or "", rest, resume=options["resume"])
        if options["print_config"]:
            print(recipe_text(recipe), end="")
            return 0
        if recipe.dry_run:
            if options["resume"]:
                raise UsageError("--resume goes on with a run, but a dry run leaves none. Leave one of them out.")
            from hybridvit.training.trial.dry_run import dry_run

            dry_run(recipe)
            return 0
        from lightning_fabric.utilities.rank_zero import rank_zero_only

        from hybridvit.training.train import train

        resuming = {name: options[name] for name in ("resume", "allow_changes", "allow_data_change")}
        result = train(recipe, **resuming)
        if getattr(rank_zero_only, "rank", 0):  # only the first of several processes prints the result
            return 0
        print(
            f"\nThe run is in {result.folder}: {result.headline.name} "
            f"{result.best:.{result.headline.decimals}f} ({result.weights} weights)."
        )
        print(f"See:   {result.report}")
        print(f"Next:  {command_line('hybridvit', 'predict', result.model)} IMAGES")
        print(f"       {command_line('hybridvit', 'export', result.model)}")
        return 0


def _recipe(source: str, words: Sequence[str], *, resume: bool | str) -> Recipe:
    """The recipe of that name, of that file, or of the run in that folder, which is to go on."""
    folder = Path(source).expanduser()
    if source in recipe_names() or not folder.is_dir():
        return load_recipe(source, words)
    if not (folder / RECIPE).is_file():
        raise UsageError(
            f"{source} is a folder without a {RECIPE}, so it is no run. Name the folder that the run was written to, "
            "or a recipe."
        )
    if not resume:
        raise UsageError(
            f"{source} is the folder of a run. Go on with it, hybridvit train {shlex.quote(source)} --resume, or train "
            f"anew by its recipe: --config {shlex.quote(str(folder / RECIPE))}."
        )
    return load_recipe(str(folder / RECIPE), ["--output", source, *words])  # it may have been moved


def _check(options: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise UsageError for an option that another one takes the place of, or leaves without a meaning."""
    for option, key in SHORT.items():
        if options[option] is not None and any(word.partition("=")[0] == f"--{key}" for word in keys):
            raise UsageError(f"--{option} sets the key {key}, and --{key} is given too. Give one of them.")
    for name in ("allow_changes", "allow_data_change"):
        if options[name] and not options["resume"]:
            raise UsageError(
                f"--{name} is for a run that goes on, but this one would begin anew. Add --resume, or leave it out."
            )


def _options() -> argparse.ArgumentParser:
    """The options that are no keys of the recipe."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    for option in SHORT:
        parser.add_argument(f"--{option}")
    parser.add_argument("--resume", nargs="?", default=False, const=True, choices=("auto",))
    for name in ("allow_changes", "allow_data_change", "print_config"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser


def _keys_help() -> str:
    """Every key of a recipe, with what the docstring of its field says; those of other tasks behind the usual ones."""
    parser = _help_parser()
    for section in usual_sections():
        _add_keys(parser, section)
    texts = [parser.format_help()]
    for section in other_sections():
        parser = _help_parser()
        _add_keys(parser, section)
        texts.append(parser.format_help())
    return "\n".join(texts)


def _help_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False, formatter_class=HelpFormatter)


def _add_keys(parser: argparse.ArgumentParser, section: KeySection) -> None:
    group = parser.add_argument_group(section.title)
    for key in section.keys:
        settings: dict[str, Any] = {"metavar": key.name.rpartition(".")[2].upper()}
        settings |= described(key.text, key.annotation, key.default)
        group.add_argument(f"--{key.name}", **settings)
