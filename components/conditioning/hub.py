"""Where a pretrained model lies: in a folder, or in the cache of what was downloaded by its id."""

from pathlib import Path

from components.errors import REASON_LENGTH, InputError, one_line


def find_model(
    what: str, model: str, revision: str | None = None, *, files: list[str] | None = None
) -> tuple[Path, str | None]:
    """The folder of a model, given by its path or hub id, and the commit of an id.

    what: the setting or the kind of model with its value, for errors. files: patterns of those to download;
    by default all.
    Raises InputError, one line, where there is none.
    """
    if (folder := Path(model).expanduser()).is_dir():
        return folder, None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(model, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = one_line(error, REASON_LENGTH)
        raise InputError(
            f"{what} is neither a folder nor a model of the hub ({reason}); give a folder"
        ) from error
    return snapshot, snapshot.name  # the hub's cache names a snapshot by its commit
