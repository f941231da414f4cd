"""Tar shards with an index as a data set: any sample can be read alone, so all is as with a folder of images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridvit.data.decode import MAX_PIXELS
from hybridvit.data.encoded import EncodedImages, OnBadImage
from hybridvit.data.order import Blocks
from hybridvit.data.shards.cache import ShardCache
from hybridvit.data.shards.index import Column, ShardIndex
from hybridvit.data.shards.remote import Patience
from hybridvit.data.shards.store import open_store
from hybridvit.data.transforms import Transform
from hybridvit.errors import DatasetError


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
        transform: Transform,
        sizes: Sequence[int] = (),
        class_names: Sequence[str] | None = None,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        window: int = 16,
        cache: ShardCache | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._store = open_store(root.rstrip("/"), cache, patience)
        self.root = self._store.root
        self.index = index = self._store.index()
        self._store.check_room(index.shards, window)
        labels = Column(index)
        names = index.class_names
        if class_names is not None and tuple(class_names) != names:
            labels, names = matched(labels, names, class_names, self.root), tuple(class_names)
        super().__init__(
            paths=_Paths(self.root, index),
            labels=labels,
            class_names=names,
            fingerprint=index.fingerprint,
            transform=transform,
            sizes=sizes,
            training=training,
            on_bad_image=on_bad_image,
            seed=seed,
            max_pixels=max_pixels,
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


class _Paths(Sequence[str]):
    """root/<shard>/<member> of every sample, made when asked for."""

    def __init__(self, root: str, index: ShardIndex) -> None:
        self._root, self._index = root, index

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return f"{self._root}/{self._index.shards[self._index.shard_of(place)].name}/{self._index.member(place)}"

    def __len__(self) -> int:
        return len(self._index)


def matched(labels: Sequence[int], names: Sequence[str], class_names: Sequence[str], source: str) -> Column:
    """Labels of classes `names` as labels of the same classes in `class_names`.

    Raises `DatasetError` for a class that is not there, and for a label without a name.
    """
    known = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DatasetError(
            f"{source} has {len(unknown)} classes that the {len(class_names)} known ones do not include: "
            f"{', '.join(map(repr, unknown[:5]))}. The class map comes from the training data: leave "
            "these classes out, or train with them."
        )
    values = np.asarray(labels)
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise DatasetError(
            f"{source} has labels from {values.min()} to {values.max()}, but names {len(names)} classes, 0 to "
            f"{len(names) - 1}. Correct its labels or its class names."
        )
    return Column(np.array([known[name] for name in names], np.int32)[values])
