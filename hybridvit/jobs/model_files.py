"""The files of a model: what has to be copied to answer elsewhere, and what tells it from others."""

import hashlib
import shutil
from pathlib import Path

from hybridvit.data.shards.remote import Remote, is_url
from hybridvit.digest import sha256_of
from hybridvit.errors import CheckpointError
from hybridvit.export.targets import exporter_of
from hybridvit.hub import hub_place, local_file
from hybridvit.jobs.place import CONTROL, FolderPlace, Place
from hybridvit.loading import is_exported

MODEL = f"{CONTROL}/model"


def files_of(model: Path) -> dict[str, Path]:
    """Every file of a model by its name beside the model's own folder. Raises CheckpointError where there is none."""
    if not model.exists():
        raise CheckpointError(f"There is no file {model}. Check the path, or export one with `hybridvit export`.")
    roots = [model, *(exporter_of(model).companions(model) if is_exported(model) else ())]
    files = [file for root in roots for file in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    return {file.relative_to(model.parent).as_posix(): file for file in files if file.is_file()}


def model_digest(model: Path) -> str:
    """The SHA-256 of a file, or over all files of a model that is several. Raises CheckpointError where it is not."""
    files = files_of(model)
    if list(files.values()) == [model]:
        return sha256_of(model)
    listed = "".join(f"{name} {sha256_of(path)}\n" for name, path in files.items())
    return hashlib.sha256(listed.encode()).hexdigest()


def local_model(text: str, folder: Path) -> Path:
    """Where a model lies; one behind a URL is fetched into `folder`, one on the hub into the hub's cache.

    Raises SourceFault, or CheckpointError of the hub, where it cannot be.
    """
    if hub_place(text) is not None:
        return local_file(text)
    if not is_url(text):
        return Path(text).expanduser().absolute()
    remote, (base, _, name) = Remote(text.partition("://")[0]), text.rpartition("/")
    model = folder / name
    for path in (model, *(exporter_of(model).companions(model) if is_exported(model) else ())):
        remote.fetch(f"{base}/{path.name}", path, lambda _: "")
    return model


def copy_model(model: Path, place: Place) -> list[str]:
    """Copy a model into the job's own folder, for machines that do not have it; the names of its files."""
    files = files_of(model)
    for name, path in files.items():
        with place.writing(f"{MODEL}/{name}") as target:
            shutil.copyfile(path, target)
    return list(files)


def fetched(names: list[str], model_name: str, place: Place, folder: Path) -> Path:
    """The model that was copied there, where it lies, or fetched into `folder` from behind a URL."""
    if isinstance(place, FolderPlace):
        return Path(place.root, MODEL, model_name)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        place.fetch(f"{MODEL}/{name}", folder / name)
    return folder / model_name
