"""Classifiers in model repositories of the Hugging Face Hub: the file and its model card, nothing else and never a pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from spectralmamba import __version__
from spectralmamba.errors import HubError, MissingPackageError
from spectralmamba.sharing.card import model_card

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier

ADDRESS = "hub:"
"""What the address of a repository begins with where a file could stand: "hub:owner/name" or "hub:owner/name@revision"."""

FILE, CARD_FILE = "model.safetensors", "README.md"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


def push(
    classifier: Classifier,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    endpoint: str | None = None,
    revision: str | None = None,
    license: str | None = None,
) -> str:
    """Upload a classifier and its model card to a model repository, which is made if it is not there, in one commit.

    Args:
        classifier: From `fit` or `Classifier.load`.
        repo_id: "owner/name".
        token: Access token; the one that `hf auth login` or HF_TOKEN has left if None.
        private: Whether a repository that is made is private.
        endpoint: Address of the Hub; HF_ENDPOINT or the public one if None.
        revision: Branch to commit to; the main one if None.
        license: Licence of the classifier as the Hub calls it, such as "cc-by-4.0"; the card says that none is stated if None.

    Returns:
        The address of the commit.

    Raises:
        HubError: The Hub does not answer or refuses.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = _package()
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="spectralmamba", library_version=__version__)
    card = model_card(classifier.card, license=license, repository=repo_id)
    with _answers(repo_id), TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        classifier.save(file)
        api.create_repo(repo_id, private=private, exist_ok=True)
        files = {FILE: file, CARD_FILE: card.encode()}
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
        ]
        commit = api.create_commit(repo_id, operations, commit_message="Upload a classifier", revision=revision)
    return str(commit.commit_url)


def pull(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Download a classifier's file from a model repository, if it is not there yet; nothing else of it is read.

    Args:
        repo_id: "owner/name".
        revision: Branch, tag or commit; the main branch if None.
        token: As `push` has it.
        endpoint: As `push` has it.
        cache_dir: Where downloads are kept; huggingface_hub's own place if None.

    Returns:
        The file among the downloads.

    Raises:
        HubError: The Hub does not answer, there is no such repository or revision, or it holds no classifier.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = _package()
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="spectralmamba", library_version=__version__)
    with _answers(repo_id):
        found = api.model_info(repo_id, revision=revision)
        _check_files(repo_id, [entry.rfilename for entry in found.siblings or []])
        return Path(
            api.hf_hub_download(repo_id, FILE, revision=found.sha, cache_dir=cache_dir)  # of the files just checked
        )


def pull_address(address: str) -> Path:
    """Download what "hub:owner/name@revision" stands for; raises as `pull` does."""
    repo_id, _, revision = address.removeprefix(ADDRESS).partition("@")
    return pull(repo_id, revision=revision or None)


def _check_files(repo_id: str, names: list[str]) -> None:
    """Check that a repository holds a classifier's file.

    Raises:
        HubError: It does not; names pickles, because these may be what the user means.
    """
    if FILE in names:
        return
    pickles = [name for name in names if PurePosixPath(name).suffix.lower() in _PICKLES]
    raise HubError(
        "the repository holds only pickles, which are not opened: they may run any program"
        if pickles
        else "the repository holds no classifier",
        file=repo_id,
        found=", ".join(pickles or names) or "no files",
        expected=FILE,
        remedy="Ask its owner to upload the classifier's file with `spectralmamba push`.",
    )


def _package() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingPackageError.of("model repositories need", "huggingface_hub", "1.0", "hub") from error
    return huggingface_hub


@contextmanager
def _answers(repo_id: str) -> Iterator[None]:
    """Turn what can go wrong with the Hub into one kind of error."""
    from huggingface_hub import errors

    library: Any = errors  # whose base of what goes wrong on the way is that of its own library

    try:
        yield
    except library.HFValidationError as error:
        raise HubError(
            "this is no name of a repository", file=repo_id, found=_first_line(error), expected="owner/name"
        ) from error
    except (library.HTTPError, OSError) as error:  # without a connection it is either
        raise HubError(
            "the Hub does not give or take this",
            file=repo_id,
            found=_first_line(error),
            remedy="Check the name, the connection and the token (`hf auth login`, or HF_TOKEN).",
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
