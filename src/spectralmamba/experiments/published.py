"""What the authors of SpectralMamba report (Yao, Hong, Li, Chanussot 2024, arXiv 2404.08489), and what is not known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectralmamba.experiments.plan import ModelSpec, SplitSpec

BATCH = 64  # pixels that the published multiply-accumulates are of
_UNKNOWN = "their widths, learning rate and epochs are not published"
_STANDARD = ("houston2013",)  # data whose split they use is known


@dataclass(frozen=True)
class Published:
    """A row of their tables.

    Attributes:
        name: Of the model in its form; a plan names it by `published`.
        data: Name of the data set in the catalogue.
        overall_accuracy: As a fraction.
        average_accuracy: As a fraction; None if not published.
        kappa: None if not published.
        parameters: None if not published.
        multiply_accumulates: Of one pixel; None if not published.
    """

    name: str
    data: str
    overall_accuracy: float
    average_accuracy: float | None = None
    kappa: float | None = None
    parameters: int | None = None
    multiply_accumulates: int | None = None

    def differs(self, split: SplitSpec) -> str:
        """Say what is known to differ between their protocol and ours."""
        if self.data not in _STANDARD:
            return f"their split is not published; {_UNKNOWN}"
        return _UNKNOWN if split.method == "standard" else f"another split than theirs; {_UNKNOWN}"


PUBLISHED = (
    Published("spectral_mamba, patchwise", "botswana", 0.9766, 0.9806, 0.9747, 34_960, round(36.25e6 / BATCH)),
    Published("spectral_mamba, pixelwise", "botswana", 0.9188, 0.9270, 0.9119, 12_330, round(23.39e6 / BATCH)),
    Published("cas_rnn, patchwise", "botswana", 0.9719, 0.9759, 0.9695, 353_250, round(572.31e6 / BATCH)),
    Published("spectralformer, patchwise", "botswana", 0.9455, 0.9532, 0.9409, 74_030, round(685.89e6 / BATCH)),
    Published("spectral_mamba, patchwise", "houston2013", 0.8952, 0.9050, 0.8864),
    Published("base", "houston2013", 0.8462),
    Published("base + GSSM", "houston2013", 0.8559),
    Published("base + PSS", "houston2013", 0.8674),
    Published("base + Mamba", "houston2013", 0.8573),
)


def names() -> list[str]:
    """Return the names that a plan may give."""
    return list(dict.fromkeys(row.name for row in PUBLISHED))


def published_of(model: ModelSpec, data: str) -> Published | None:
    """Return the published row to stand beside a model on a data set; None if there is none."""
    name = _usual_name(model) if model.published is None else model.published
    return next((row for row in PUBLISHED if (row.name, row.data) == (name, data)), None)


def _usual_name(model: ModelSpec) -> str:
    """Name the form of a network that they have: single pixels or 3 × 3, SpectralMamba in its published size without options."""
    if model.settings is None or model.settings.patch not in (1, 3) or model.settings.model_options:
        return ""
    if model.settings.model == "spectral_mamba" and model.settings.preset != "paper":
        return ""
    return f"{model.settings.model}, {'pixelwise' if model.settings.patch == 1 else 'patchwise'}"
