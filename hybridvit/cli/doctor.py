"""`hybridvit doctor`: what works on this machine, and whether a recipe fits on it."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.cli.command import Command, split
from hybridvit.cli.table import pairs
from hybridvit.errors import UsageError
from hybridvit.machine.threads import POLICY
from hybridvit.recipe.file import load_recipe, recipe_names

if TYPE_CHECKING:
    from hybridvit.machine.limits import Limits
    from hybridvit.machine.packages import PackageState
    from hybridvit.recipe.recipe import Recipe
    from hybridvit.training.trial.check_devices import DeviceState
    from hybridvit.training.trial.memory_estimate import MemoryEstimate

GIB = 2**30
SHARED_MEMORY_PER_WORKER = 64 * 2**20  # room for a few batches of images of 256 px
DESCRIPTION = """\
usage: hybridvit doctor [RECIPE] [--key value]...

Tell what works on this machine, and whether a recipe fits on it.

Looks at the machine and what a container leaves of it, at every package (imported in a process of its own), and has
every device do one step of a debug model. With a recipe it also estimates the memory of each device at the peak of a
step, and names the largest micro-batch that fits. The estimate follows the recipe's step on tensors without data, so a
machine without GPUs can tell whether a recipe fits on those of another. Kernels and allocators take more, which is why
only 90 % of a memory, less 350 MiB, count as usable.

Examples:
  hybridvit doctor
  hybridvit doctor fastvit_sa12 --data.total_batch 256
  hybridvit doctor fastervit_4 --devices 8 --num_nodes 4 --memory 80       would it fit on 32 GPUs of 80 GiB?
  hybridvit doctor --json

options:
  --memory GIB         memory of each device; by default what is free on those of this machine
  --classes N          classes of the images; by default those of data.root, or 1,000
  --json               one JSON object
  --key value          any key of the recipe, as for `hybridvit train`

Where PyTorch and timm are not installed on purpose (docs/light.md), only what runs exported files is required.

Ends with code 0 if everything that is required works, 2 if something does not or the recipe does not fit.
"""


class DoctorCommand(Command):
    """Takes the keys of a recipe as options."""

    name = "doctor"
    summary = "Tell what works on this machine, and whether a recipe fits on it."

    def help(self) -> str:
        """What is looked at, with examples."""
        return DESCRIPTION

    def run(self, words: Sequence[str]) -> int:
        """Examine, print, and return 0 if all that is required works."""
        if "--help" in words or "-h" in words:
            print(self.help(), end="")
            return 0
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--json", action="store_true")
        for option in ("--memory", "--classes"):
            parser.add_argument(option, nargs="?", const="")
        options, rest = split(words, parser, self.name)
        memory_gib, classes = (_above_0(f"--{name}", options[name]) for name in ("memory", "classes"))
        source = rest.pop(0) if rest and not rest[0].startswith("--") else None
        if source is None and (rest or memory_gib or classes):
            raise UsageError(
                f"`hybridvit doctor` takes '{' '.join(rest) or '--memory or --classes'}' only with a recipe. Name one "
                f"first: {', '.join(list(recipe_names())[:3])} ..., or a file."
            )
        # In a dry run data.root may be empty.
        recipe = load_recipe(source, [*rest, "--dry_run=true"]) if source is not None else None
        findings = examine(Path(recipe.output if recipe is not None else "."))
        if recipe is not None:
            findings |= fit(recipe, findings, memory_gib=memory_gib, classes=None if classes is None else int(classes))
        print(json.dumps(_plain(findings)) if options["json"] else text(findings))
        return 0 if not findings["broken"] and findings.get("fits", True) else 2


def examine(output: Path) -> dict[str, Any]:
    """Everything that can be found out without a recipe; "broken" lists the required parts that do not work."""
    from hybridvit.machine.light import PACKAGES, is_light
    from hybridvit.machine.limits import limits
    from hybridvit.machine.packages import required_and_optional, states_of

    required, optional = required_and_optional()
    light = is_light()
    left_out = [name for name in required if light and name not in PACKAGES]
    required = [name for name in required if name not in left_out]
    packages = states_of([*required, *(name for names in optional.values() for name in names)])
    broken = [f"{name}: {_fault(packages[name])}" for name in required if packages[name].state != "works"]
    known = limits(output)
    findings: dict[str, Any] = {"limits": known, "required": required, "optional": optional, "packages": packages}
    findings["left_out"] = left_out
    if light or packages["torch"].state != "works" or packages["timm"].state != "works":
        return findings | {"machine": [], "devices": [], "backends": {}, "broken": broken, "warnings": []}
    import torch

    from hybridvit.machine.facts import machine_card
    from hybridvit.training.trial.check_devices import device_states

    devices = device_states()
    broken += [f"{device.name}: {device.problem}" for device in devices if device.problem]
    backends = {
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "nccl": torch.distributed.is_available() and torch.distributed.is_nccl_available(),
    }
    findings |= {"machine": machine_card().lines(), "devices": devices, "backends": backends, "broken": broken}
    return findings | {"warnings": warnings_of(known, devices, backends, built_for_cuda=torch.version.cuda)}


def warnings_of(
    known: "Limits", devices: "Sequence[DeviceState]", backends: dict[str, bool], *, built_for_cuda: str | None
) -> list[str]:
    """What works, but slowly or only in part, each with the advice what to do about it."""
    found = []
    if known.core_share is not None and known.core_share < known.cores:
        found.append(
            f"The container may use {known.core_share:g} cores' worth of time, but sees {known.cores}: set "
            f"OMP_NUM_THREADS={max(1, int(known.core_share))}, or threads wait for each other."
        )
    if known.shared_memory is not None and known.shared_memory < 2 * SHARED_MEMORY_PER_WORKER:
        found.append(
            f"/dev/shm has {_size(known.shared_memory)} free, and loader processes pass images through it: start the "
            "container with --shm-size 8g, or train with --data.workers 0."
        )
    if known.disk_free is not None and known.disk_free < GIB:
        found.append(f"The disk of the output has {_size(known.disk_free)} free: checkpoints may not fit.")
    gpus = [device for device in devices if device.name.startswith("cuda")]
    if built_for_cuda and not gpus:
        found.append(
            f"PyTorch is built for CUDA {built_for_cuda}, but finds no GPU: there is none, or its driver is too old or "
            "not visible in this container (nvidia-smi tells)."
        )
    if len(gpus) > 1 and not backends["nccl"]:
        found.append(f"There are {len(gpus)} GPUs, but PyTorch has no NCCL to train on them together.")
    for device in gpus:
        if not device.bfloat16:
            found.append(f"{device.name} does not compute in bfloat16: train with --precision 16-mixed or 32-true.")
    if len({device.description for device in gpus}) > 1:
        found.append("The GPUs differ: in a run on all of them the slowest sets the pace.")
    if os.environ.get(POLICY, "").upper() == "ACTIVE":
        found.append(
            f"{POLICY} is ACTIVE: threads that wait by spinning slow each other down on a shared machine; "
            "leave it unset."
        )
    return found


def fit(recipe: "Recipe", findings: dict[str, Any], *, memory_gib: float | None, classes: int | None) -> dict[str, Any]:
    """The memory that a recipe takes on each device, beside what there is, and what would fit."""
    from hybridvit.training.trial.memory_estimate import estimate_memory, fitting_micro_batch, usable

    kind, devices, available = _place(recipe, findings)
    if memory_gib is not None:
        available = int(memory_gib * GIB)
    num_classes = classes or _classes_of(recipe) or 1000
    estimate = estimate_memory(recipe, devices=devices, num_classes=num_classes)
    fits = available is None or estimate.total <= usable(available)
    suggestion = 0
    if not fits and available is not None:
        suggestion = fitting_micro_batch(recipe, devices=devices, num_classes=num_classes, memory=available)
    return {
        "recipe": recipe,
        "num_classes": num_classes,
        "device_kind": kind,
        "estimate": estimate,
        "available": available,
        "fits": fits,
        "micro_batch_that_fits": suggestion,
    }


def _place(recipe: "Recipe", findings: dict[str, Any]) -> tuple[str, int, int | None]:
    """The kind of device, how many there will be over all machines, and the free memory of one."""
    gpus = [device for device in findings["devices"] if device.name.startswith("cuda")]
    on_gpu = bool(gpus) and recipe.accelerator in ("auto", "cuda")
    count = recipe.devices if isinstance(recipe.devices, int) else len(recipe.gpu_numbers)
    count = count or (len(gpus) if on_gpu else 1)
    if on_gpu:
        return "GPU", count * recipe.num_nodes, min((gpu.memory_free or 0 for gpu in gpus), default=None)
    usable = findings["limits"].memory_usable
    return "CPU process", count * recipe.num_nodes, None if usable is None else usable // count


def _classes_of(recipe: "Recipe") -> int:
    """Classes in the training folder; 0 if there is none to look at."""
    folder = Path(recipe.data.root).expanduser() / recipe.data.train
    if not recipe.data.root or not folder.is_dir():
        return 0
    return sum(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())


def text(findings: dict[str, Any]) -> str:
    """The findings for a person: parts under titles, what is broken or slow last."""
    packages: dict[str, PackageState] = findings["packages"]
    known: Limits = findings["limits"]
    parts = [
        "Machine\n" + pairs([*findings["machine"], *_limit_lines(known)]),
        "Packages\n" + pairs(_package_lines(findings["required"], findings["optional"], packages)),
    ]
    if findings["devices"]:
        parts.append("Devices\n" + pairs([(device.name, _device_line(device)) for device in findings["devices"]]))
        backends = [f"{name} {'there' if there else 'not there'}" for name, there in findings["backends"].items()]
        parts[-1] += "\n" + pairs([("processes", f"talk through {', '.join(backends)}")])
    if "estimate" in findings:
        parts.append(_fit_text(findings))
    parts += [f"Warning: {warning}" for warning in findings["warnings"]]
    parts += [f"Broken: {line}" for line in findings["broken"]]
    if findings["left_out"]:
        parts.append(
            f"Exported files run here, and nothing else: {', '.join(findings['left_out'])} are not installed. For the "
            "whole library: pip install hybridvit"
        )
    if not findings["broken"]:
        parts.append("All that is required works.")
    return "\n\n".join(parts)


def _limit_lines(known: "Limits") -> list[tuple[str, str]]:
    share = "" if known.core_share is None else f", {known.core_share:g} cores' worth of time"
    limit = "" if known.memory_limit is None else f", {_size(known.memory_limit)} left of the container's limit"
    return [
        ("Cores", f"{known.cores} usable{share}"),
        ("Memory", f"{_size(known.memory_free)} free of {_size(known.memory_total)}{limit}"),
        ("Shared memory", f"{_size(known.shared_memory)} free (/dev/shm)"),
        ("Disk", f"{_size(known.disk_free)} free where the run is written"),
    ]


def _package_lines(
    required: list[str], optional: dict[str, list[str]], packages: "dict[str, PackageState]"
) -> list[tuple[str, str]]:
    works = [f"{name} {packages[name].version}" for name in required if packages[name].state == "works"]
    lines = [("required", f"{len(works)} of {len(required)} work: {', '.join(works)}")]
    for extra, names in optional.items():
        faults = [f"{name} {_fault(packages[name])}" for name in names if packages[name].state != "works"]
        if not faults:
            lines.append((extra, "works: " + ", ".join(f"{name} {packages[name].version}" for name in names)))
        else:
            lines.append((extra, f'{"; ".join(faults)}. pip install "hybridvit[{extra}]"'))
    return lines


def _fault(package: "PackageState") -> str:
    return "is not installed" if package.state == "missing" else f"{package.version} is broken: {package.reason}"


def _device_line(device: "DeviceState") -> str:
    memory = "" if device.memory is None else f", {_size(device.memory_free)} free of {_size(device.memory)}"
    precision = ", bfloat16" if device.bfloat16 else ""
    return f"{device.description}{memory}{precision}: {'trains' if not device.problem else 'does not train'}"


def _fit_text(findings: dict[str, Any]) -> str:
    estimate: MemoryEstimate = findings["estimate"]
    recipe = findings["recipe"]
    many = f"each of {estimate.devices} {findings['device_kind']}{'es' if findings['device_kind'] != 'GPU' else 's'}"
    where = many if estimate.devices > 1 else f"one {findings['device_kind']}"
    lines = [(title, _size(size)) for title, size in estimate.lines()]
    lines.append(("together", f"{_size(estimate.total)} on {where}, of {_size(findings['available'])}"))
    steps = f", {estimate.accumulate} micro-batches a step" if estimate.accumulate > 1 else ""
    title = (
        f"Memory of {recipe.model} at {recipe.data.image_size} px, {recipe.data.total_batch} images a step{steps}, "
        f"{findings['num_classes']:,} classes (estimated; kernels and allocators take some more)"
    )
    if findings["fits"]:
        verdict = "It fits."
    elif findings["micro_batch_that_fits"]:
        verdict = (
            f"It does not fit. It would with --data.micro_batch {findings['micro_batch_that_fits']}: a step still sees "
            f"{recipe.data.total_batch} images."
        )
    else:
        verdict = (
            "It does not fit with any micro-batch. Use --grad_checkpointing, more devices with --strategy fsdp, a "
            "smaller model or smaller images."
        )
    return f"{title}\n{pairs(lines)}\n{verdict}"


def _size(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def _plain(findings: dict[str, Any]) -> dict[str, Any]:
    """The findings as what JSON knows."""
    import dataclasses

    from hybridvit.recipe.file import as_plain

    plain = dict(findings)
    plain["limits"] = findings["limits"].to_dict()
    plain["packages"] = [dataclasses.asdict(package) for package in findings["packages"].values()]
    plain["machine"] = dict(findings["machine"])
    plain["devices"] = [device.to_dict() for device in findings["devices"]]
    if "estimate" in findings:
        plain["recipe"] = as_plain(findings["recipe"])
        plain["estimate"] = dataclasses.asdict(findings["estimate"]) | {"total": findings["estimate"].total}
    return plain


def _above_0(option: str, text: str | None) -> float | None:
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = 0.0
    if number is not None and not number > 0:
        raise UsageError(f"{option} is '{text}', but it must be a number above 0. See `hybridvit doctor --help`.")
    return number
