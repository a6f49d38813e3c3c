"""One family of exceptions: each is a sentence with the file, what was found, what was expected and what to do."""

from __future__ import annotations

from os import PathLike


class SpectralMambaError(Exception):
    """Something the user can put right.

    The command line prints the message and leaves with exit code 2; any other exception is a defect of this program.

    Args:
        problem: What is wrong, in a few words, without a full stop.
        file: The file or folder it is about.
        found: What is there.
        expected: What should be there.
        remedy: What to do, a whole sentence.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.file, self.found, self.expected, self.remedy = problem, file, found, expected, remedy
        parts = [problem if file is None else f"{file}: {problem}"]
        if found is not None:
            parts.append(f"found {found}")
        if expected is not None:
            parts.append(f"expected {expected}")
        message = "; ".join(parts) + "."
        super().__init__(message if remedy is None else f"{message} {remedy}")


class SceneError(SpectralMambaError):
    """A scene cannot be opened or used."""


class LabelError(SpectralMambaError):
    """Labels cannot be opened, do not fit the scene, or are not enough."""


class SampleError(SpectralMambaError, ValueError):
    """An estimator cannot learn from spectra, classes or weights, or tell what is asked; scikit-learn expects a ValueError."""


class SplitError(SpectralMambaError):
    """The labels cannot be divided as asked."""


class ModelError(SpectralMambaError):
    """A model does not exist or its shape makes no sense."""


class SettingsError(SpectralMambaError):
    """A setting is unknown or out of range."""


class ClassifierError(SpectralMambaError):
    """A classifier file is not one, is damaged, or does not fit the scene."""


class OutputError(SpectralMambaError):
    """A result cannot be written."""


class DataError(SpectralMambaError):
    """A public data set is unknown, not here, cannot be downloaded, or is not what was published."""


class PlanError(SpectralMambaError):
    """A plan of experiments cannot be read, or asks for what there is not."""


class HubError(SpectralMambaError):
    """A model repository cannot be reached, does not answer as it should, or holds no classifier."""


class ClusterError(SpectralMambaError):
    """A Dask cluster does not answer, or cannot do the work."""


class MissingPackageError(SpectralMambaError):
    """An optional package is needed for this input."""

    @classmethod
    def of(
        cls, what_needs: str, package: str, version: str, extra: str, file: str | PathLike[str] | None = None
    ) -> MissingPackageError:
        """Return the error for a package that is not installed.

        Args:
            what_needs: What cannot be done, with its verb: "tuning needs".
            package: The package.
            version: The least version that will do.
            extra: The extra of this package that brings it.
            file: The file it is about.
        """
        return cls(
            f"{what_needs} the package {package}",
            file=file,
            found=f"no {package}",
            expected=f"{package} {version} or newer",
            remedy=f'Install it with: pip install "spectralmamba[{extra}]"',
        )


class TrainingInterrupted(SpectralMambaError):
    """Training was stopped by the user; the message names the checkpoint to go on from."""
