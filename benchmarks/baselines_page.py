"""docs/baselines.md: the networks that SpectralMamba is compared with, their sizes, and what is published of them.

python benchmarks/baselines_page.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectralmamba.errors import ModelError
from spectralmamba.models import AUTHOR_SETTINGS, create_model, list_models, list_presets, model_size

PAGE = Path(__file__).resolve().parents[1] / "docs" / "baselines.md"
BANDS, CLASSES, PATCHES = 145, 14, (1, 3, 7)
_START, _END = "<!-- {} -->", "<!-- /{} -->"


@dataclass(frozen=True)
class Published:
    """A number of parameters that a paper or public code gives.

    Attributes:
        unlisted: Parameters that the source does not count, by their names here.
    """

    name: str
    bands: int
    classes: int
    patch: int
    parameters: int
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()

    def counted(self) -> int:
        """Return what the source would count of the model here."""
        model = create_model(self.name, bands=self.bands, classes=self.classes, patch=self.patch, **self.options)
        return sum(each.numel() for name, each in model.named_parameters() if name not in self.unlisted)


_SPECTRALFORMER = "danfenghong/IEEE_TGRS_SpectralFormer"
_TABLE = "table of SpectralMamba, rounded to 10"
PUBLISHED = (
    Published("mlp", 200, 16, 1, 17_227_792, "nshaud/DeepHyperX, `nn`", {"preset": "deephyperx"}),
    Published("cnn1d", 200, 16, 1, 72_196, "nshaud/DeepHyperX, `hu`"),
    Published("cnn3d", 200, 16, 5, 115_248, "nshaud/DeepHyperX, `li`"),
    Published("cnn3d", 103, 9, 5, 43_401, "nshaud/DeepHyperX, `li`"),
    Published("hybridsn", 30, 16, 25, 5_122_176, "Roy et al. 2020; gokriznastic/HybridSN"),
    Published("gru", 200, 16, 1, 243_280, "nshaud/DeepHyperX, `mou`"),
    Published("cas_rnn", 200, 16, 1, 351_120, "RenlongHang/CasRNN, 256 of them never used"),
    Published("cas_rnn", 145, 14, 3, 353_250, _TABLE),
    Published("vit", 200, 16, 1, 103_224, _SPECTRALFORMER),
    Published("spectralformer", 200, 16, 1, 346_361, _SPECTRALFORMER),
    Published("spectralformer", 200, 16, 7, 355_577, _SPECTRALFORMER),
    Published("spectralformer", 103, 9, 7, 183_657, _SPECTRALFORMER, {"near_band": 7}),
    Published("spectralformer", 145, 14, 3, 74_030, _TABLE, {"depth": 4, "mode": "ViT"}, ("position", "class_token")),
    Published("ssftt", 30, 16, 13, 153_224, "zgr6010/HSI_SSFTT"),
    Published("mamba_hsi", 103, 9, 7, 412_239, "li-yapeng/MambaHSI"),
)

PAPERS = {
    "spectral_mamba": "Yao et al. 2024",
    "mlp": "Audebert et al. 2019",
    "cnn1d": "Hu et al. 2015",
    "cnn2d": "Hong et al. 2022",
    "cnn3d": "Li, Zhang, Shen 2017",
    "hybridsn": "Roy et al. 2020",
    "gru": "Mou et al. 2017",
    "lstm": "Mou et al. 2017",
    "cas_rnn": "Hang et al. 2019",
    "vit": "Dosovitskiy et al. 2021, Hong et al. 2022",
    "vit_pieces": "ViT over SpectralMamba's tokens",
    "spectralformer": "Hong et al. 2022",
    "ssftt": "Sun et al. 2022",
    "mamba_hsi": "Li et al. 2024",
}


def sections() -> dict[str, str]:
    """Return the page's tables."""
    return {"sizes": _sizes(), "published": _published(), "settings": _settings()}


def _sizes() -> str:
    names = [(name, preset) for name in list_models() for preset in list_presets(name)]
    rows = [
        [
            f"`{name}`" + ("" if preset == "default" else f", `{preset}`"),
            PAPERS[name],
            *(_size(name, preset, P) for P in PATCHES),
        ]
        for name, preset in names
    ]
    return _table(["model", "paper", *(f"P = {patch}" for patch in PATCHES)], rows)


def _size(name: str, preset: str, patch: int) -> str:
    try:
        model = create_model(name, bands=BANDS, classes=CLASSES, patch=patch, preset=preset)
    except ModelError:
        return "–"
    size = model_size(model, BANDS, patch)
    return f"{size.parameters:,} / {size.multiply_accumulates:,}"


def _published() -> str:
    rows = [
        [
            f"`{each.name}`" + "".join(f", `{key}={value!r}`" for key, value in each.options.items()),
            str(each.bands),
            str(each.classes),
            str(each.patch),
            f"{each.parameters:,}",
            f"{each.counted():,}",
            each.source,
        ]
        for each in PUBLISHED
    ]
    return _table(["model", "L", "K", "P", "published", "here", "source"], rows)


def _settings() -> str:
    keys = ("learning_rate", "batch_size", "weight_decay", "steps")
    rows = [[f"`{name}`", *(str(given.get(key, "–")) for key in keys)] for name, given in AUTHOR_SETTINGS.items()]
    return _table(["model", *(f"`{key}`" for key in keys)], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section_of(page: str, name: str) -> str:
    """Return what a page has between a section's markers."""
    return page.partition(_START.format(name))[2].partition(_END.format(name))[0].strip()


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in sections().items():
        before, _, rest = page.partition(_START.format(name))
        after = rest.partition(_END.format(name))[2]
        page = f"{before}{_START.format(name)}\n\n{table}\n\n{_END.format(name)}{after}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
