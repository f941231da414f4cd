"""What there is to say of a data set whose files lie, decoded and described, in a table."""

import os
import re
import sqlite3
from collections.abc import Mapping, Sequence

from hybridvit.data.check_contents import Contents
from hybridvit.data.check_report import MOST_LISTED, Finding, Severity, count_by_class, finding
from hybridvit.data.depth import DARK, white_of
from hybridvit.data.file_kind import advice_on
from hybridvit.data.scan import fold_name, told_apart, without

EXTREME_RATIO = 5.0
_MOST_EQUAL = 20  # files of one content that are listed


def describe_findings(table: sqlite3.Connection, contents: Contents) -> list[Finding]:
    """Everything a filled table, the folders and the rest of the files give reason to say."""
    return [
        *_bad_files(table, contents.root),
        *finding("error", "unreadable-folder", "Folders that cannot be read", contents.unreadable),
        *_classes(table, contents),
        *_same_but_for_case(table, contents.names),
        *(_nested(table, contents.names) if contents.in_folders else ()),
        *_duplicates(table, tuple(contents.splits)),
        *_unlabelled(table, contents),
        *_pictures(table),
        *_others(contents.others),
    ]


def _bad_files(table: sqlite3.Connection, root: str) -> list[Finding]:
    """Undecodable files, one finding per cause: the same message but for names, numbers and quotations."""
    causes: dict[str, _Cause] = {}
    for path, message in table.execute("select path, error from files where error is not null order by path"):
        name = os.fsdecode(path)
        full = os.fsencode(os.path.join(root, name)).decode(errors="replace")
        words = re.split(r"(\d[\d,.]*\d|\d|'[^']*')", message.removeprefix(full).lstrip(": "))
        causes.setdefault("\0".join(words[::2]), _Cause(words)).add(name, words)
    ranked = sorted(causes.values(), key=lambda cause: (-cause.number, cause.text))
    return [
        Finding("error", "undecodable", f"Bad files: {cause.text.rstrip('.')}", cause.number, tuple(cause.examples))
        for cause in ranked
    ]


class _Cause:
    """Messages that are the same but for some of their numbers and quotations."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)  # those that differ stand as N or '...'
        self.number = 0
        self.examples: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.words)

    def add(self, name: str, words: Sequence[str]) -> None:
        for place, word in enumerate(words):
            if self.words[place] != word:
                self.words[place] = "'...'" if word.startswith("'") else "N"
        self.number += 1
        if self.number <= MOST_LISTED:
            self.examples.append(name)


def _classes(table: sqlite3.Connection, contents: Contents) -> list[Finding]:
    found: list[Finding] = []
    splits, counts = contents.splits, count_by_class(table, contents.sets)
    first, trained_on = next(iter(splits.items()))
    index = {name: label for label, name in enumerate(contents.names)}
    empty, spoilt, single = [], [], []
    for number, (split, classes) in enumerate(splits.items()):
        for name in classes:
            images, good = counts[number, index[name]]
            where = os.path.join(split, name)
            if not images:
                empty.append(where)
            elif not good:
                spoilt.append(where)
            elif good == 1 and split == first and contents.to_train:
                single.append(where)
    if contents.in_folders:
        found += finding("error", "empty-class", "Class folders without images", empty)
    else:
        found += finding("warning", "empty-class", "Classes that no image has", empty)
    found += finding("error", "no-good-image", "Classes of which no image can be decoded", spoilt)
    for split, classes in list(splits.items())[1:]:
        unknown, missing = without(classes, trained_on), without(trained_on, classes)
        found += finding("error", "unknown-class", f"Classes in {split} that {first} does not have", unknown)
        found += finding("warning", "missing-class", f"Classes of {first} that {split} does not have", missing)
    if len(trained_on) == 1 and contents.of_pictures and () not in contents.sets:
        found += finding("error", "one-class", "One class only, so every answer would be right", trained_on)
    return found + finding("warning", "single-image-class", "Classes with one image to learn from", single)


def _unlabelled(table: sqlite3.Connection, contents: Contents) -> list[Finding]:
    if () not in contents.sets or not contents.names:  # or none has one
        return []
    none = contents.sets.index(())
    rows = table.execute("select path from files where labels = ? order by path", (none,))
    return finding("note", "no-label", "Pictures without a label", [os.fsdecode(path) for (path,) in rows])


def _same_but_for_case(table: sqlite3.Connection, names: Sequence[str]) -> list[Finding]:
    """Names that are one and the same on a system that ignores capitals (macOS, Windows)."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(fold_name(name), []).append(name)
    classes = [" = ".join(told_apart(group)) for group in alike.values() if len(group) > 1]
    query = (
        "select group_concat(cast(path as text), char(0)) from files group by folded(path) having count(*) > 1 "
        "order by min(path)"
    )
    files = [" = ".join(told_apart(row[0].split("\0"))) for row in table.execute(query)]
    what = "that differ in capitals or accents only, so one and the same on macOS and Windows"
    return finding("warning", "case-only-class", f"Groups of class names {what}", classes) + finding(
        "warning", "case-only-file", f"Groups of file names {what}", files
    )


def _nested(table: sqlite3.Connection, names: Sequence[str]) -> list[Finding]:
    """Class folders inside class folders, as a careless unpacking leaves them: their images get the outer label."""
    known = set(names)
    nested: dict[str, None] = {}
    for label, path in table.execute("select labels, path from files where cast(path as text) like '%/%/%'"):
        folders = os.fsdecode(path).split("/")[:-1]
        inside = folders[folders.index(names[label]) + 1 :]
        if known.intersection(inside):
            nested["/".join(folders)] = None
    what = "Folders named like a class inside a class, whose images count for the outer one"
    return finding("warning", "nested-class", what, nested)


def _duplicates(table: sqlite3.Connection, splits: Sequence[str]) -> list[Finding]:
    """Files of equal content: across classes, across splits, or merely twice in a class."""
    table.execute("create index by_content on files (digest) where digest is not null")

    def groups(kind: str, what: str, having: str) -> list[Finding]:
        alike = f"from files where digest is not null group by digest having count(*) > 1 and {having}"
        number = table.execute(f"select count(*) from (select 1 {alike})").fetchone()[0]
        first = table.execute(f"select digest {alike} order by min(path) limit {MOST_LISTED}").fetchall()
        members = "select path from files where digest = ? order by path"
        examples = [_equal([os.fsdecode(path) for (path,) in table.execute(members, each)]) for each in first]
        return finding("warning", kind, f"{what} (equal files)", examples, number)

    one_place = "count(distinct labels) = 1 and count(distinct split) = 1"
    return [
        *groups("label-conflict", "Pictures whose copies have other labels", "count(distinct labels) > 1"),
        *groups("leak", f"Pictures in more than one of {', '.join(splits)}", "count(distinct split) > 1"),
        *groups("duplicate", "Pictures more than once in a class", one_place),
    ]


def _equal(paths: Sequence[str]) -> str:
    more = len(paths) - _MOST_EQUAL
    return " = ".join(paths[:_MOST_EQUAL]) + (f" = {more:,} more" if more > 0 else "")


def _pictures(table: sqlite3.Connection) -> list[Finding]:
    """Pictures that are decoded in a way one may not expect."""

    def matching(severity: Severity, kind: str, what: str, where: str) -> list[Finding]:
        number = table.execute(f"select count(*) from files where {where}").fetchone()[0]
        rows = table.execute(f"select path, width, height from files where {where} order by path limit {MOST_LISTED}")
        examples = [f"{os.fsdecode(path)} ({width}x{height})" for path, width, height in rows]
        return finding(severity, kind, what, examples, number)

    turned = table.execute("select avg(orientation > 1) from files where orientation is not null").fetchone()[0] or 0
    longer = f"max(width, height) > {EXTREME_RATIO} * min(width, height)"
    return [
        *matching("warning", "extreme-ratio", f"Pictures more than {EXTREME_RATIO:.0f} times as long as wide", longer),
        *_dark(table),
        *matching(
            "note", "rotated", f"Pictures that are turned upright as EXIF says ({turned:.1%} of all)", "orientation > 1"
        ),
        *matching("note", "16-bit", "Pictures of more than 8 bits per channel, which are scaled to 8", "bits > 8"),
    ]


def _dark(table: sqlite3.Connection) -> list[Finding]:
    """Pictures of many levels that use the lowest alone."""
    where = f"highest < {DARK} * white"
    number, highest = table.execute(f"select count(*), max(highest) from files where {where}").fetchone()
    rows = table.execute(f"select path, highest from files where {where} order by path limit {MOST_LISTED}")
    examples = [f"{os.fsdecode(path)} (up to {level:,.0f})" for path, level in rows]
    what = "Pictures of more than 8 bits that become nearly black"
    if number:
        what += f" unless levels are given (--data.levels '[0,{white_of(highest)}]')"
    return finding("warning", "dark", what, examples, number)


def _others(others: Mapping[str, int]) -> list[Finding]:
    number = sum(others.values())
    endings = [f"{ending}: {count:,}" for ending, count in sorted(others.items(), key=lambda item: -item[1])]
    advice = "".join(sorted({advice_on(ending) for ending in others}))
    what = f"Files without the ending of an image, which are not looked at{advice}"
    return [Finding("note", "other-files", what, number, tuple(endings), len(endings))] if number else []
