"""Scenes that the computational intelligence group (GIC) of the University of the Basque Country publishes."""

from __future__ import annotations

from spectralmamba.catalog import wavelengths
from spectralmamba.catalog.entry import Class, DataFile, Entry, Layout, Masks

PAGE = "https://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes"
UPLOADS = "https://www.ehu.eus/ccwintco/uploads"
COPIES = "https://raw.githubusercontent.com/mhaut/HSI-datasets/29efb503bdde94f620ba3873d3a56039fef18257/Classification"
SALINAS_A_COPIES = (
    "https://raw.githubusercontent.com/xiangyongcao/SHIP/90f3e490b042d025068007860328a35ea3cafc32/datasets"
)
"""Copies in public repositories, at a commit that cannot change."""

_TERMS = "none stated by the publisher"
_GIC = (
    "M. Graña, M. A. Veganzones, B. Ayerdi, Hyperspectral Remote Sensing Scenes, Grupo de Inteligencia Computacional, "
    "Universidad del País Vasco / Euskal Herriko Unibertsitatea"
)
_AVIRIS_RANGE = (400.0, 2500.0)
_SOURCES = (
    "GIC page, as danaroth repeats it on Hugging Face",
    "DeepHyperX datasets.py (addresses, class names)",
)
_CHECKED = "mhaut/HSI-datasets and gokriznastic/HybridSN (the same bytes in both)"


def _classes(*names: str) -> tuple[Class, ...]:
    return tuple(Class(id_, name) for id_, name in enumerate(names, start=1))


_SALINAS = _classes(
    *("Brocoli_green_weeds_1", "Brocoli_green_weeds_2", "Fallow", "Fallow_rough_plow", "Fallow_smooth", "Stubble"),
    *("Celery", "Grapes_untrained", "Soil_vinyard_develop", "Corn_senesced_green_weeds", "Lettuce_romaine_4wk"),
    *("Lettuce_romaine_5wk", "Lettuce_romaine_6wk", "Lettuce_romaine_7wk", "Vinyard_untrained"),
    "Vinyard_vertical_trellis",
)

INDIAN_PINES = Entry(
    name="indian-pines",
    title="Indian Pines",
    page=PAGE,
    terms=f"{_TERMS}; the original with all 220 bands is at https://doi.org/10.4231/R7RX991C under terms of its own",
    citation=(
        "M. F. Baumgardner, L. L. Biehl, D. A. Landgrebe, 220 Band AVIRIS Hyperspectral Image Data Set: June 12, 1992 "
        "Indian Pine Test Site 3, Purdue University Research Repository, 2015, doi:10.4231/R7RX991C"
    ),
    sensor="AVIRIS",
    shape=(145, 145),
    bands=200,
    classes=_classes(
        *("Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed"),
        *("Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods"),
        *("Buildings-Grass-Trees-Drives", "Stone-Steel-Towers"),
    ),
    layouts=(
        Layout(
            "Indian_pines_corrected.mat",
            "Indian_pines_gt.mat",
            masks=Masks("indianpines_disjoint_dset.mat"),
        ),
    ),
    files=(
        DataFile(
            "Indian_pines_corrected.mat",
            (f"{UPLOADS}/6/67/Indian_pines_corrected.mat", f"{COPIES}/indian_pines_corrected.mat"),
            git_blob="75b6d6e7df046fce91eda23e7559e274c92da711",
        ),
        DataFile(
            "Indian_pines_gt.mat",
            (f"{UPLOADS}/c/c4/Indian_pines_gt.mat", f"{COPIES}/indian_pines_corrected_gt.mat"),
            sha256="65c4687a8ab04f6da4789799bc3bc4f6e88bccac3ed6a2e6ae367e5e6b9e429c",
            size=1125,
        ),
        DataFile(
            "indianpines_disjoint_dset.mat",
            (f"{COPIES}/indianpines_disjoint_dset.mat",),
            sha256="430c37ce56a160d410378aa136e5e696e2436e2fe03e275f306c3502f622e77b",
            size=21248,
        ),
    ),
    spectral_range=_AVIRIS_RANGE,
    wavelengths=wavelengths.INDIAN_PINES,
    wavelength_source="92AV3C.spc, which comes with the original's 220 bands (spectralpython/sample-data), without those removed",
    removed_bands="104-108, 150-163 and 220 of 220 (water absorption)",
    split=(
        "spatially disjoint mask of mhaut/HSI-datasets: of its 5 689 training pixels the 5 538 with a label train, the "
        "other 4 711 labelled pixels test"
    ),
    folder="indian_pines",
    notes=("The sensor's spectrometers overlap: wavelengths do not rise from band 31 to 32.",),
    sources=(*_SOURCES, _CHECKED, "zgr6010/HSI_SSFTT (the same cube, by its Git object id)"),
)

PAVIA_UNIVERSITY = Entry(
    name="pavia-university",
    title="Pavia University",
    page=PAGE,
    terms=_TERMS,
    citation=f"P. Gamba, Telecommunications and Remote Sensing Laboratory, Pavia University; {_GIC}",
    sensor="ROSIS, 1.3 m",
    shape=(610, 340),
    bands=103,
    classes=_classes(
        *("Asphalt", "Meadows", "Gravel", "Trees", "Painted metal sheets", "Bare Soil", "Bitumen"),
        *("Self-Blocking Bricks", "Shadows"),
    ),
    layouts=(
        Layout(
            "PaviaU.mat",
            "PaviaU_gt.mat",
            masks=Masks("TRpavia_fixed.mat", "TSpavia_fixed.mat", add_labels=True),
        ),
    ),
    files=(
        DataFile(
            "PaviaU.mat",
            (f"{UPLOADS}/e/ee/PaviaU.mat", f"{COPIES}/paviaU.mat"),
            git_blob="6eecc933bedec1130bb046483dd12e25cf091b24",
        ),
        DataFile(
            "PaviaU_gt.mat",
            (f"{UPLOADS}/5/50/PaviaU_gt.mat", f"{COPIES}/paviaU_gt.mat"),
            sha256="23f6a426928f9b32984adffe659e29f554f9fb6c93b5a107528d308d5087a829",
            size=11005,
        ),
        DataFile(
            "TRpavia_fixed.mat",
            (f"{COPIES}/TRpavia_fixed.mat",),
            sha256="9eb125761f65b562f4b33c48af45131c9bdf26cb5eaa50cecf744873033a063b",
            size=2379,
        ),
        DataFile(
            "TSpavia_fixed.mat",
            (f"{COPIES}/TSpavia_fixed.mat",),
            sha256="da9aa60e63079f2743fe9c435e00ed88a7fb2d7171c8cce7a18a6d2faab12e4e",
            size=11167,
        ),
    ),
    spectral_range=(430.0, 860.0),
    wavelengths=wavelengths.evenly_spaced(430, 860, 103),
    wavelength_source="evenly spaced between 430 and 860 nm, nominal",
    removed_bands="not stated",
    split=(
        "spatially disjoint masks of mhaut/HSI-datasets, 3 921 training and 40 002 test pixels; 1 147 of the training "
        "pixels are labelled in the mask alone"
    ),
    folder="pavia_university",
    sources=(*_SOURCES, _CHECKED),
)

PAVIA_CENTRE = Entry(
    name="pavia-centre",
    title="Pavia Centre",
    page=PAGE,
    terms=_TERMS,
    citation=PAVIA_UNIVERSITY.citation,
    sensor="ROSIS, 1.3 m",
    shape=(1096, 715),
    bands=102,
    classes=_classes(
        *("Water", "Trees", "Asphalt", "Self-Blocking Bricks", "Bitumen", "Tiles", "Shadows", "Meadows", "Bare Soil")
    ),
    layouts=(Layout("Pavia.mat", "Pavia_gt.mat"),),
    files=(
        DataFile("Pavia.mat", (f"{UPLOADS}/e/e3/Pavia.mat",)),
        DataFile(
            "Pavia_gt.mat",
            (f"{UPLOADS}/5/53/Pavia_gt.mat", f"{COPIES}/paviaC_gt.mat"),
            sha256="7eb54ab81b404dd3ae572e6d0ec211595029e5a847bec2cfb8f9e72d07066b69",
            size=34887,
        ),
    ),
    spectral_range=(430.0, 860.0),
    wavelengths=wavelengths.evenly_spaced(430, 860, 102),
    wavelength_source="evenly spaced between 430 and 860 nm, nominal",
    removed_bands="not stated",
    folder="pavia_centre",
    sources=(*_SOURCES, "mhaut/HSI-datasets (ground truth)"),
)

SALINAS = Entry(
    name="salinas",
    title="Salinas",
    page=PAGE,
    terms=_TERMS,
    citation=_GIC,
    sensor="AVIRIS, 3.7 m",
    shape=(512, 217),
    bands=204,
    classes=_SALINAS,
    layouts=(Layout("Salinas_corrected.mat", "Salinas_gt.mat"),),
    files=(
        DataFile(
            "Salinas_corrected.mat",
            (f"{UPLOADS}/a/a3/Salinas_corrected.mat", f"{COPIES}/salinas_corrected.mat"),
            git_blob="2a745377a77369bd5a9d430c722f0bf5e0d0ffc1",
        ),
        DataFile(
            "Salinas_gt.mat",
            (f"{UPLOADS}/f/fa/Salinas_gt.mat", f"{COPIES}/salinas_gt.mat"),
            sha256="ecfab4d31ef5553f097943235d8ea502038eb4a2067b2ad10b33e37c949955e2",
            size=4277,
        ),
    ),
    spectral_range=_AVIRIS_RANGE,
    wavelength_source="unknown; the sensor's range is nominal",
    removed_bands="108-112, 154-167 and 224 of 224 (water absorption)",
    folder="salinas",
    notes=("At-sensor radiance.",),
    sources=(*_SOURCES, _CHECKED),
)

SALINAS_A = Entry(
    name="salinas-a",
    title="Salinas-A",
    page=PAGE,
    terms=_TERMS,
    citation=_GIC,
    sensor="AVIRIS, 3.7 m",
    shape=(83, 86),
    bands=224,
    classes=tuple(entry for entry in _SALINAS if entry.id in (1, 10, 11, 12, 13, 14)),
    layouts=(Layout("SalinasA.mat", "SalinasA_gt.mat"), Layout("SalinasA_corrected.mat", "SalinasA_gt.mat")),
    files=(
        DataFile(
            "SalinasA.mat",
            (f"{UPLOADS}/d/df/SalinasA.mat", f"{SALINAS_A_COPIES}/salinasA.mat"),
            sha256="9ee47a5fa61948bc5ec5e5754e9ab0976850f12f80ace2bf68449d7671e0935b",
            size=1599885,
        ),
        DataFile("SalinasA_corrected.mat", (f"{UPLOADS}/1/1a/SalinasA_corrected.mat",)),
        DataFile("SalinasA_gt.mat", (f"{UPLOADS}/a/aa/SalinasA_gt.mat",)),
    ),
    spectral_range=_AVIRIS_RANGE,
    wavelength_source="unknown; the sensor's range is nominal",
    folder="salinas_a",
    notes=(
        "Part of Salinas, lines 158-240 and samples 591-676; at-sensor radiance.",
        "Copies whose ids are 1 to 6 go around; their classes are named in the same order.",
        "All 224 bands: those that SalinasA_corrected.mat leaves out (108-112, 154-167, 224, water absorption) are in it.",
    ),
    sources=(*_SOURCES, "xiangyongcao/SHIP"),
)

BOTSWANA = Entry(
    name="botswana",
    title="Botswana",
    page=PAGE,
    terms=_TERMS,
    citation=_GIC,
    sensor="EO-1 Hyperion, 30 m",
    shape=(1476, 256),
    bands=145,
    classes=_classes(
        *("Water", "Hippo grass", "Floodplain grasses 1", "Floodplain grasses 2", "Reeds", "Riparian", "Firescar"),
        *("Island interior", "Acacia woodlands", "Acacia shrublands", "Acacia grasslands", "Short mopane"),
        *("Mixed mopane", "Exposed soils"),
    ),
    layouts=(Layout("Botswana.mat", "Botswana_gt.mat"), Layout("Botswana_pixels.mat", reader="pixels")),
    files=(
        DataFile(
            "Botswana.mat",
            (f"{UPLOADS}/7/72/Botswana.mat", f"{COPIES}/Botswana.mat"),
            git_blob="814248225b1210f46017a2420c3410d7fe2cf8e6",
        ),
        DataFile(
            "Botswana_gt.mat",
            (f"{UPLOADS}/5/58/Botswana_gt.mat", f"{COPIES}/Botswana_gt.mat"),
            sha256="668394905e10e629c16584bfd02b0f533b96d6ba18a63274a94ff3a77126a887",
            size=4039,
        ),
    ),
    spectral_range=_AVIRIS_RANGE,
    wavelength_source="unknown; the sensor's range is nominal",
    removed_bands="all but 10-55, 82-97, 102-119, 134-164 and 187-220 of 242 (uncalibrated, noisy, water absorption)",
    folder="botswana",
    notes=("Botswana_pixels.mat holds the 3 248 labelled pixels only; with it all other pixels are nodata.",),
    sources=(*_SOURCES, "mhaut/HSI-datasets"),
)

KSC = Entry(
    name="ksc",
    title="Kennedy Space Center",
    page=PAGE,
    terms=_TERMS,
    citation=_GIC,
    sensor="AVIRIS, 18 m",
    shape=(512, 614),
    bands=176,
    classes=_classes(
        *("Scrub", "Willow swamp", "Cabbage palm hammock", "Cabbage palm/oak hammock", "Slash pine"),
        *("Oak/broadleaf hammock", "Hardwood swamp", "Graminoid marsh", "Spartina marsh", "Cattail marsh"),
        *("Salt marsh", "Mud flats", "Water"),
    ),
    layouts=(Layout("KSC.mat", "KSC_gt.mat"),),
    files=(
        DataFile("KSC.mat", (f"{UPLOADS}/2/26/KSC.mat",)),
        DataFile(
            "KSC_gt.mat",
            (f"{UPLOADS}/a/a6/KSC_gt.mat", f"{COPIES}/KSC_gt.mat"),
            sha256="a1d6ab9293691006bd4d9742d1a1e1c141b1aaa5fbc5fa128b33c1d09038510b",
            size=3240,
        ),
    ),
    spectral_range=_AVIRIS_RANGE,
    wavelength_source="unknown; the sensor's range is nominal",
    removed_bands="48 of 224 (water absorption, low signal-to-noise ratio); which ones is not stated",
    folder="ksc",
    sources=(*_SOURCES, "mhaut/HSI-datasets (ground truth)"),
)

ENTRIES = (BOTSWANA, INDIAN_PINES, KSC, PAVIA_CENTRE, PAVIA_UNIVERSITY, SALINAS, SALINAS_A)
