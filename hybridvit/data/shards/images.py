"""Tar shards with an index as a data set: any sample can be read alone, so all is as with a folder of images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from hybridvit.data.columns import Column, Names, matched
from hybridvit.data.encoded import EncodedImages, ImageOptions
from hybridvit.data.order import Blocks
from hybridvit.data.samples import Opened
from hybridvit.data.shards.cache import ShardCache
from hybridvit.data.shards.index import Labels, ShardIndex
from hybridvit.data.shards.remote import Patience, is_url
from hybridvit.data.shards.store import open_store

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig


class ShardImages(EncodedImages):
    """The images of the shards in `root`, a folder or a URL that holds index.json.

    Shards in a folder are read where they lie; those behind a URL are fetched whole into `cache`, the next window ahead
    of time. `window` shards are shuffled together (see `Blocks`). `class_names` is the map of the training set, for
    evaluation: labels are matched by name.

    Raises `DatasetError` where there is no index, the index is damaged, or it has a class that `class_names` has not;
    `UsageError` if the cache cannot hold two windows.
    """

    def __init__(
        self,
        root: str,
        *,
        class_names: Sequence[str] | None = None,
        window: int = 16,
        cache: ShardCache | None = None,
        patience: Patience | None = None,
        **options: Unpack[ImageOptions],
    ) -> None:
        self._store = open_store(root.rstrip("/"), cache, patience)
        self.root = self._store.root
        self.index = index = self._store.index()
        self._store.check_room(index.shards, window)
        labels: Column = Labels(index)
        names = index.class_names
        if class_names is not None and tuple(class_names) != names:
            labels, names = matched(labels, names, class_names, self.root), tuple(class_names)
        super().__init__(
            paths=Names(len(index), partial(_path, self.root, index)),
            labels=labels,
            class_names=names,
            fingerprint=index.fingerprint,
            **options,
        )
        self.blocks = Blocks(sizes=[shard.num_samples for shard in index.shards], window=window)
        self._ahead: _Plan | None = None
        self._expected = (-1, -1)  # epoch, window

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ahead": None, "_expected": (-1, -1)}  # another process tells its own store

    def encoded(self, epoch: int, index: int) -> bytes:
        number = self.index.shard_of(index)
        self._look_ahead(epoch, number)
        row = self.index.rows[index]
        return self._store.read(self.index.shards[number], int(row["offset"]), int(row["length"]))

    def stand_ins(self, index: int) -> range:
        """Those of the same shard: it is there."""
        number = self.index.shard_of(index)
        return range(int(self.index.starts[number]), int(self.index.starts[number + 1]))

    def _look_ahead(self, epoch: int, number: int) -> None:
        """Tell the store of the window that shard `number` is in and of the one after it, when that changes."""
        if self._ahead is None or self._ahead.epoch != epoch:
            self._ahead = self._plan(epoch)
        place = self._ahead.place_of[number] // self._ahead.window
        if self._expected != (epoch, place):
            self._expected = (epoch, place)
            first = place * self._ahead.window
            wanted = self._ahead.order[first : first + 2 * self._ahead.window]
            self._store.expect([self.index.shards[each] for each in wanted])

    def _plan(self, epoch: int) -> "_Plan":
        """Training goes on with the next epoch; evaluation reads the shards as they stand, each alone."""
        assert self.blocks is not None
        if not self.training:
            order = list(range(len(self.index.shards)))
            return _Plan(epoch, 1, order, order)
        order = self.blocks.order(self._seed, epoch)
        place_of = np.argsort(order).tolist()
        return _Plan(epoch, self.blocks.window, order + self.blocks.order(self._seed, epoch + 1), place_of)


class _Plan(NamedTuple):
    """In which order an epoch reads the shards, as far as anyone looks ahead."""

    epoch: int
    window: int
    order: list[int]
    place_of: list[int]  # by shard


def _path(root: str, index: ShardIndex, number: int) -> str:
    return f"{root}/{index.shards[index.shard_of(number)].name}/{index.member(number)}"


def open_shards(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """The shards in data.root, a folder or a URL. Raises as `ShardImages`."""
    cache = ShardCache(Path(data.cache), round(data.cache_gb * 1e9)) if is_url(data.root) else None
    root = data.root.rstrip("/")
    images = ShardImages(f"{root}/{data.train}", window=data.shuffle_shards, cache=cache, **train)
    held_out = ShardImages(f"{root}/{data.val}", class_names=images.class_names, cache=cache, window=1, **validation)
    return images, held_out
