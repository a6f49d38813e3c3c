"""Augsburg, Samson, and a part of an EnMAP scene."""

from __future__ import annotations

from spectralmamba.catalog import wavelengths
from spectralmamba.catalog.entry import Class, DataFile, Entry, Layout, Masks

_AUGSBURG = "https://github.com/songyz2019/rs-fusion-datasets-dist/releases/download/v1.0.0/augsburg-ouc.zip"
_SAMSON = (
    "https://raw.githubusercontent.com/burknipalsson/hu_autoencoders/8fa704ef8a82cf7f03981392204fe8cd872b0ccf/Datasets/"
    "Samson.mat"
)

AUGSBURG = Entry(
    name="augsburg",
    title="Augsburg",
    page="https://github.com/danfenghong/ISPRS_S2FL",
    terms="free and open according to the publisher, who asks to be cited; no licence of the data is stated",
    citation=(
        "D. Hong, J. Hu, J. Yao, J. Chanussot, X. X. Zhu, Multimodal remote sensing benchmark datasets for land cover "
        "classification with a shared and specific feature learning model, ISPRS Journal of Photogrammetry and Remote "
        "Sensing, 2021, doi:10.1016/j.isprsjprs.2021.05.011"
    ),
    sensor="HySpex, 30 m",
    shape=(332, 485),
    bands=180,
    classes=tuple(
        Class(id_, name)
        for id_, name in enumerate(
            ("Forest", "Residential", "Industrial", "Low plants", "Soil", "Allotment", "Commercial", "Water"), start=1
        )
    ),
    layouts=(
        Layout(
            "augsburg_hsi.mat",
            "augsburg_gt.mat",
            masks=Masks("augsburg_index.mat", "augsburg_index.mat", "augsburg_train", "augsburg_test", positions=True),
        ),
        Layout("data_HS_LR.mat", masks=Masks("TrainImage.mat", "TestImage.mat"), named=False),
    ),
    files=(
        DataFile(
            "augsburg-ouc.zip",
            (_AUGSBURG,),
            sha256="4d853be609eca98a5fb23ccd711bcd0985b7db86a6e89f53f461e1643a7ab6ae",
        ),
        DataFile(
            "augsburg_hsi.mat",
            sha256="2f13839d7840b32f55e0489d6934776dcfded7f678e23a9d8c2c092573946583",
            archive="augsburg-ouc.zip",
        ),
        DataFile(
            "augsburg_gt.mat",
            sha256="065df71257f06c075ff3b37327c0fba75cc9146015a0f095a093fd12b9eaacbe",
            archive="augsburg-ouc.zip",
        ),
        DataFile(
            "augsburg_index.mat",
            sha256="8bc57037447cb42dbf3a8478d42d4bc217a53a6a0b349c2d67db8c660bef2f43",
            archive="augsburg-ouc.zip",
        ),
        *(DataFile(name, inside="Augsburg") for name in ("data_HS_LR.mat", "TrainImage.mat", "TestImage.mat")),
    ),
    spectral_range=(400.0, 2500.0),
    wavelength_source="unknown; the range is nominal",
    removed_bands="not stated",
    split="the publisher's 761 training and 77 533 test pixels",
    folder="augsburg",
    notes=(
        "The scene of the multimodal data set, without its radar and elevation layers.",
        "Class names are those of the downloaded copy (songyz2019/rs-fusion-datasets); the paper names seven, without Soil. "
        "With the publisher's own files classes have numbers only.",
    ),
    sources=("danfenghong/ISPRS_S2FL README", "songyz2019/rs-fusion-datasets (address, checksums, class names)"),
)

SAMSON = Entry(
    name="samson",
    title="Samson",
    page="https://huggingface.co/datasets/danaroth/samson",
    terms="none stated",
    citation=(
        "F. Zhu, Hyperspectral Unmixing: Ground Truth Labeling, Datasets, Benchmark Performances and Survey, "
        "arXiv:1708.05125, 2017"
    ),
    sensor="not stated",
    shape=(95, 95),
    bands=156,
    classes=(Class(1, "Soil"), Class(2, "Tree"), Class(3, "Water")),
    layouts=(Layout("Samson.mat", reader="abundances"),),
    files=(
        DataFile(
            "Samson.mat",
            (_SAMSON,),
            sha256="49530e80d0dabf6b1fb9cde2d6cf257f89a344afe9c13b2cc912eb22f344de18",
            size=3735621,
        ),
    ),
    spectral_range=(401.0, 889.0),
    wavelengths=wavelengths.evenly_spaced(401, 889, 156),
    wavelength_source="evenly spaced between 401 and 889 nm, nominal",
    folder="samson",
    notes=("A data set for unmixing: a pixel's label is its material of the largest abundance.",),
    sources=("burknipalsson/hu_autoencoders (file)", "danaroth/samson on Hugging Face (description)"),
)

ENMAP_POTSDAM = Entry(
    name="enmap-potsdam",
    title="EnMAP Potsdam (west)",
    page="https://github.com/EnMAP-Box/enmap-box",
    terms="example data of the EnMAP-Box; scene by DLR, reference from aerial images of GeoBasis-DE/LGB, dl-de/by-2-0",
    citation="EnMAP-Box 3 Example Dataset, EnMAP L2A scene of 24 July 2022 (DLR)",
    sensor="EnMAP, 30 m",
    shape=(160, 96),
    bands=224,
    classes=(),
    layouts=(Layout("enmap_potsdam_west.tif", "landcover_west.tif"),),
    files=(),
    spectral_range=(400.0, 2450.0),
    wavelength_source="the scene's file",
    removed_bands="none; 6 bands hold nodata only",
    folder="enmap_potsdam",
    notes=(
        "A mosaic of parts of the example scene, which has no address: it is read from a folder of reference data.",
    ),
    sources=("EnMAP-Box/enmap-box, exampledata/readme.txt",),
)

ENTRIES = (AUGSBURG, SAMSON, ENMAP_POTSDAM)
