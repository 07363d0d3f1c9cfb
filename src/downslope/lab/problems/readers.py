"""Inputs and targets out of whatever holds them: arrays, `.npz` files, the datasets of PyTorch and TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.builtin import PROBLEMS
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.sources import SUFFIXES

INPUTS = ("x", "inputs", "features", "images", "data")
TARGETS = ("y", "targets", "labels", "target", "label")

AT_A_TIME = 256
"""Rows of a dataset that are read at a time."""

MOST_BYTES = 2**33
"""A dataset that does not say how long it is, and holds more than this, is taken never to end."""


@dataclass(frozen=True, eq=False)
class Read:
    """Inputs and targets as they were found."""

    x: NDArray[Any]
    y: NDArray[Any]
    name: str = "arrays"
    title: str = "Your own data"
    batch_size: int | None = None
    remarks: tuple[str, ...] = ()


def read(data: object) -> Read:
    """The inputs and targets of what is no table.

    Args:
        data: A pair of arrays, a path of an `.npz` file, a dataset or a loader of PyTorch, or a `tf.data.Dataset`.

    Raises:
        DataError: It is none of these, or does not hold pairs.
    """
    if isinstance(data, (str, Path)):
        return _npz(Path(data))
    utils: Any = sys.modules.get("torch.utils.data")
    if utils is not None and isinstance(data, (utils.DataLoader, utils.Dataset)):
        with sys.modules["torch"].random.fork_rng(devices=[]):  # a loader draws a number, and so may augmentation
            return _torch(data, utils)
    tf: Any = sys.modules.get("tensorflow")
    if tf is not None and isinstance(data, tf.data.Dataset):
        return _tensorflow(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Read(_array(data[0], "inputs"), _array(data[1], "targets"))
    shown = f"a {type(data).__name__}" + (f" of {len(data)}" if isinstance(data, (tuple, list)) else "")
    raise DataError(
        f"data: {shown} holds no pairs of inputs and targets; give (inputs, targets), a Dataset or DataLoader, a "
        f"tf.data.Dataset, a data frame with target=COLUMN, or the path of an .npz file or of a table"
    )


def _array(values: object, what: str) -> NDArray[Any]:
    if callable(getattr(values, "detach", None)):
        values = values.detach().cpu()  # type: ignore[attr-defined]
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"data: the {what} are no array: {reason}; give rows of equal shape") from None


def _npz(path: Path) -> Read:
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"data: {str(path)!r} ends in none of .npz, {', '.join(SUFFIXES)}, and no problem that comes with the "
            f"package has this name ({', '.join(PROBLEMS)})"
        )
    if not path.is_file():
        raise DataError(f"data: there is no file {str(path)!r}; check the spelling and the folder")
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, KeyError, ImportError) as error:
        raise DataError(f"data: {str(path)!r} cannot be read as .npz: {' '.join(str(error).split())[:200]}") from None
    except Exception as error:  # what zipfile and zlib raise of a broken file
        raise DataError(f"data: {str(path)!r} is a broken .npz file: {type(error).__name__}") from None
    return Read(_named(arrays, INPUTS, path), _named(arrays, TARGETS, path), path.stem, path.name)


def _named(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...], path: Path) -> NDArray[Any]:
    found = [array for name, array in arrays.items() if name.lower() in names]
    if len(found) != 1:
        raise DataError(
            f"data: {path.name} holds {', '.join(arrays) or 'nothing'}; of {', '.join(names)} it needs exactly one: "
            "np.savez(path, x=inputs, y=targets)"
        )
    return found[0]


def _torch(data: Any, utils: Any) -> Read:
    """Every item once, in the order of the dataset."""
    remarks: tuple[str, ...] = ()
    batch_size, collate = None, None
    if isinstance(data, utils.DataLoader):
        _refuse_sampler(data, utils)
        data, batch_size, collate = data.dataset, data.batch_size, data.collate_fn
    name = type(data).__name__
    if not isinstance(data, utils.IterableDataset):
        if not len(data):
            raise DataError(f"data: the {name} is empty")
        first, again = (_array(_pair(data[0], name)[0], "inputs") for _ in range(2))
        if not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
            remarks = (
                f"The {name} gives another row each time it is asked for one, as augmentation does; every row was read "
                "once, and is the same in all epochs.",
            )
    loader = utils.DataLoader(data, batch_size=AT_A_TIME, shuffle=False, collate_fn=collate)
    endless = isinstance(data, utils.IterableDataset)
    x, y = _joined((_pair(batch, name) for batch in loader), name, endless=endless)
    return Read(x, y, name, f"Your own data, {name}", batch_size, remarks)


def _refuse_sampler(loader: Any, utils: Any) -> None:
    """Refuse a loader that would not give every row of its dataset once.

    Raises:
        DataError: It has a sampler of its own.
    """
    if isinstance(loader.dataset, utils.IterableDataset):
        return
    batches = loader.batch_sampler
    sampler = batches.sampler if type(batches) is utils.BatchSampler else batches
    sampler = loader.sampler if sampler is None else sampler
    plain = type(sampler) in (utils.SequentialSampler, utils.RandomSampler) and len(sampler) == len(loader.dataset)
    if not plain or getattr(sampler, "replacement", False):
        raise DataError(
            f"data: the DataLoader draws rows by a {type(sampler).__name__}, and a race draws its batches itself, from "
            "every row once an epoch; give the rows that you mean: torch.utils.data.Subset(dataset, indices), or arrays"
        )


def _tensorflow(data: Any) -> Read:
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or not all(hasattr(one, "shape") for one in spec):
        raise DataError("data: the tf.data.Dataset does not hold pairs (inputs, targets) of one tensor each")
    known, tf = int(data.cardinality()), sys.modules["tensorflow"].data
    if known == tf.INFINITE_CARDINALITY:
        raise DataError("data: the tf.data.Dataset never ends; leave out its repeat(): a race has epochs=N")
    ranks = [one.shape.rank for one in spec]
    if None in ranks:
        raise DataError(
            "data: the tf.data.Dataset does not say how many axes its tensors have, so that rows cannot be told from "
            "batches; make it with output_signature=(tf.TensorSpec(...), tf.TensorSpec(...))"
        )
    heads = [list(one.shape)[:1] for one in spec]
    # Two vectors of one known length are a row: as a batch they would be rows of a single number.
    batched = bool(heads[0]) and heads[0] == heads[1] and not (ranks == [1, 1] and heads[0] != [None])
    endless = known == tf.UNKNOWN_CARDINALITY
    x, y = _joined(data.as_numpy_iterator(), "tf.data.Dataset", batched=batched, endless=endless)
    size = next(iter(data.as_numpy_iterator()))[0].shape[0] if batched else None
    return Read(x, y, "tf.data", "Your own data, tf.data.Dataset", size)


def _pair(item: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(
            f"data: the {name} gives a {type(item).__name__}, and a race needs pairs (inputs, targets); wrap it in a "
            "Dataset whose items are such pairs"
        )
    return item[0], item[1]


def _joined(
    pairs: Iterable[tuple[Any, Any]], name: str, *, batched: bool = True, endless: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs and targets of all pairs, batches one after the other or rows stacked; nobody waits for `endless` ones."""
    found, held = [], 0
    for x, y in pairs:
        found.append((_array(x, "inputs"), _array(y, "targets")))
        held += sum(array.nbytes for array in found[-1])
        if endless and held > MOST_BYTES:
            raise DataError(
                f"data: the {name} gave {held / 1e9:.3g} GB of rows and has not ended, and a race keeps all of them in "
                "memory; leave out what repeats it, or end it: itertools.islice in PyTorch, take(n) in TensorFlow"
            )
    if not found:
        raise DataError(f"data: the {name} is empty")
    join = np.concatenate if batched else np.stack
    try:
        x, y = join([x for x, _ in found]), join([y for _, y in found])
    except ValueError as error:
        raise DataError(f"data: the rows of the {name} differ in shape ({error}); pad them to one") from None
    return x, y
