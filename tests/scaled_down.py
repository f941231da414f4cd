"""How much smaller commands and programs of the documents are when a test runs them: all of it is in these tables."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import hybridvit
from hybridvit.models.registry import VARIANTS

QUICK = ("--rounds", "8", "--seconds", "0.1")
ADDED: dict[str, tuple[str, ...]] = {  # words that make a command small; the last of equal options counts
    "check-data": ("--workers", "0"),
    "evaluate": ("--workers", "0", "--batch", "4"),
    "corrupt": ("--workers", "0", "--severities", "3"),
    "batch": ("--workers", "1"),
    "bench": (*QUICK, "--processes", "1", "--threads", "1"),
    "mixers": (*QUICK, "--processes", "1", "--threads", "1", "--image_sizes", "64"),
    "stages": ("--rounds", "8", "--threads", "1"),
    "profile": ("--rounds", "8", "--batch", "2"),
    "tables": ("--no_measuring",),
    "hand": ("--train", "4", "--eval", "2"),
    "ablate": ("--print_commands",),
}
BY_NIGHT = ("bench", "mixers", "bench-page", "tables")  # take minutes: by day their words are read
READ = ("choose",)  # would measure every model with published weights; tests/system/test_bench.py lets it choose
ONCE = ("doctor",)  # imports every package of the machine: the same words are not carried out again
LARGE = ("bench", "stages", "profile", "bench-page")  # commands whose models become the smallest of a family
SMALLER = {  # the smallest of a family
    "fastvit": "fastvit_debug",
    "fastervit": "fastervit_debug",
    "repvit_m1_1": "test_byobnet",  # timm's own for tests
    "mobileone_s3": "test_resnet",
    "convnext_tiny": "test_convnext",
}
SMALL_RUN = {  # of `hybridvit.train` in Python, which has no dry run of its own to go on from
    "model": "fastvit_debug",
    "pretrained": False,
    "reset_head": False,
    "data.image_size": 32,
    "data.total_batch": 8,
    "data.workers": 0,
    "schedule.epochs": 1,
    "schedule.warmup_epochs": 0,
    "accelerator": "cpu",
}
ELSEWHERE = (  # what a test has no network or camera for, and what takes its place
    (re.compile(r"https://example\.(com|org)"), "{site}"),
    (re.compile(r"s3://bucket/"), ""),
    (re.compile(r"^camera:0$"), "street.mp4"),
)
FOLDERS = {"IMAGENET": "imagenet", "SCRATCH": "scratch", "HOST": "127.0.0.1"}  # variables that readers set
BY_DAY = ("onnx", "openvino")  # of several targets of an export; all by night


def added(name: str, words: Sequence[str]) -> list[str]:
    """The words that make this command small, but where it says that it does less than that."""
    if name == "train":
        if {"--recipes", "--print_config"} & set(words):
            return []
        # a dry run leaves nothing to go on with; a step takes no more images than the stand-ins have
        return ["--print_config"] if "--resume" in words else ["--dry_run", "--fit", "true"]
    if name == "bench" and "--from" in words:
        return []
    if name == "bench" and "--against" in words:
        return [*ADDED[name], "--tolerance", "1000"]  # percent: how fast this machine is just now is no matter
    if name == "ablate" and "--report" in words:
        return []
    if name == "evaluate" and ("--suites" in words or "--root" in words):
        return ["--workers", "0"]
    return list(ADDED.get(name, ()))


def measured_before(name: str, words: Sequence[str]) -> list[str]:
    """The words that measure what `bench --against FILE` compares with, some time before; none for other commands."""
    if name != "bench" or "--against" not in words or "--from" in words:
        return []
    place = words.index("--against")
    rest = [*words[:place], *words[place + 2 :]]
    return [*rest[: rest.index("--tolerance")], "--json", words[place + 1]]


def smaller(word: str) -> str:
    """A model as the smallest of its family; any other word as it is."""
    if word in VARIANTS:
        return SMALLER[VARIANTS[word].family]
    return SMALLER.get(word, word)


def small_train(recipe: str, keys: Mapping[str, Any], **options: Any) -> Any:
    """`hybridvit.train`, with the keys that make a run one of seconds."""
    return hybridvit.train(recipe, {**keys, **SMALL_RUN}, **options)


def is_read_alone(name: str, words: Sequence[str], *, is_night: bool) -> bool:
    """Whether the words of a command are read, and it is not carried out."""
    takes_long = name in BY_NIGHT or (name == "export" and "int8" in words)
    return name in READ or (takes_long and not is_night and "--from" not in words)
