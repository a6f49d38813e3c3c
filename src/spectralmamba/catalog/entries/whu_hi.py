"""The scenes from a drone that the RSIDEA group of Wuhan University publishes."""

from __future__ import annotations

from spectralmamba.catalog.entry import Class, DataFile, Entry, Layout, Masks

PAGE = "http://rsidea.whu.edu.cn/resource_WHUHi_sharing.htm"
COPIES = "https://huggingface.co/datasets/danaroth/whu_hi/resolve/main"

_PLACES = {
    "LongKou": ("LKtrain100", "LKtest100"),
    "HanChuan": ("Train100", "Test100"),
    "HongHu": ("HHCYtrain100", "HHCYtest100"),
}
"""Place → variables of Train100.mat and Test100.mat."""


def _entry(place: str, shape: tuple[int, int], bands: int, *names: str) -> Entry:
    train, test = _PLACES[place]
    masks = Masks("Train100.mat", "Test100.mat", train, test)
    scene = f"WHU-Hi-{place}"
    envi = tuple(f"{scene}{part}" for part in (".bsq", ".hdr", "_gt.bsq", "_gt.hdr"))
    matlab = f"WHU_Hi_{place}.mat", f"WHU_Hi_{place}_gt.mat"
    return Entry(
        name=scene.lower(),
        title=scene,
        page=PAGE,
        terms="those of the publisher's page; the copy on Hugging Face (danaroth/whu_hi) is labelled MIT by who uploaded it",
        citation=(
            "Y. Zhong et al., WHU-Hi: UAV-borne hyperspectral with high spatial resolution (H2) benchmark datasets and "
            "classifier for precise crop identification based on deep convolutional neural network with CRF, Remote Sensing "
            "of Environment 250, 112012, 2020, doi:10.1016/j.rse.2020.112012"
        ),
        sensor="Headwall Nano-Hyperspec on a drone",
        shape=shape,
        bands=bands,
        classes=tuple(Class(id_, name) for id_, name in enumerate(names, start=1)),
        layouts=(
            Layout(envi[0], envi[2], companions=(envi[1], envi[3]), masks=masks),
            Layout(*matlab, masks=masks),
        ),
        files=(
            *(DataFile(name, (f"{COPIES}/{scene}/{name}",)) for name in envi),
            *(DataFile(name) for name in matlab),
            *(DataFile(name, inside=place) for name in masks.files),
        ),
        spectral_range=(400.0, 1000.0),
        wavelength_source="the ENVI header; the MATLAB file has none",
        removed_bands="not stated",
        split="100 training pixels of each class (Train100.mat), all others test; the masks come with the publisher's archive",
        folder=scene.lower().replace("-", "_"),
        notes=("Radiance.", "The masks have no address of their own: take them from the archive, with --from-folder."),
        sources=(
            "publisher's page",
            "danaroth/whu_hi on Hugging Face (files)",
            "loaders in public repositories (variables)",
        ),
    )


ENTRIES = (
    _entry(
        *("LongKou", (550, 400), 270),
        *("Corn", "Cotton", "Sesame", "Broad-leaf soybean", "Narrow-leaf soybean", "Rice", "Water"),
        *("Roads and houses", "Mixed weed"),
    ),
    _entry(
        *("HanChuan", (1217, 303), 274),
        *("Strawberry", "Cowpea", "Soybean", "Sorghum", "Water spinach", "Watermelon", "Greens", "Trees", "Grass"),
        *("Red roof", "Gray roof", "Plastic", "Bare soil", "Road", "Bright object", "Water"),
    ),
    _entry(
        *("HongHu", (940, 475), 270),
        *("Red roof", "Road", "Bare soil", "Cotton", "Cotton firewood", "Rape", "Chinese cabbage", "Pakchoi"),
        *("Cabbage", "Tuber mustard", "Brassica parachinensis", "Brassica chinensis", "Small Brassica chinensis"),
        *("Lactuca sativa", "Celtuce", "Film covered lettuce", "Romaine lettuce", "Carrot", "White radish"),
        *("Garlic sprout", "Broad bean", "Tree"),
    ),
)
