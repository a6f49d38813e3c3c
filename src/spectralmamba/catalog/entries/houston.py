"""The scenes of the GRSS data fusion contests over Houston."""

from __future__ import annotations

from spectralmamba.catalog import wavelengths
from spectralmamba.catalog.entries.gic import COPIES
from spectralmamba.catalog.entry import Class, DataFile, Entry, Layout, Masks

_CASI = "2013_IEEE_GRSS_DF_Contest_CASI.tif"
_MASKS = Masks("houston_gt.mat", "houston_gt.mat", "houston_gt_tr", "houston_gt_te")
_OTHER_MASKS = Masks("Houston2013_gt.mat", "Houston2013_gt.mat", "train", "test")
_LIST = "songyz2019/rs-fusion-datasets (checksums, class names, wavelengths of the header)"

HOUSTON_2013 = Entry(
    name="houston2013",
    title="Houston 2013",
    page="https://machinelearning.ee.uh.edu/?page_id=459",
    terms="those of the page and of copyright.txt in the archive; to be accepted before the download",
    citation=(
        "C. Debes et al., Hyperspectral and LiDAR Data Fusion: Outcome of the 2013 GRSS Data Fusion Contest, IEEE Journal of "
        "Selected Topics in Applied Earth Observations and Remote Sensing 7(6), 2405-2418, 2014, "
        "doi:10.1109/JSTARS.2014.2305441"
    ),
    sensor="ITRES CASI-1500, 2.5 m",
    shape=(349, 1905),
    bands=144,
    classes=tuple(
        Class(id_, name)
        for id_, name in enumerate(
            (
                *("Healthy grass", "Stressed grass", "Synthetic grass", "Trees", "Soil", "Water", "Residential"),
                *("Commercial", "Road", "Highway", "Railway", "Parking Lot 1", "Parking Lot 2", "Tennis Court"),
                "Running Track",
            ),
            start=1,
        )
    ),
    layouts=(
        Layout(_CASI, masks=_MASKS),
        Layout(_CASI, masks=_OTHER_MASKS),
        Layout("Houston2013_train_spectra.mat", reader="spectra"),
    ),
    files=(
        DataFile("2013_DFTC.zip", sha256="f4d619d5cbcb09d0301038f1b8fe83def6c2d484334b7b8127740a00ecf7e245"),
        DataFile(
            _CASI, archive="2013_DFTC.zip", sha256="1440f38594e8e82cc1944c084fc138ef55a70af54122828e999c4fb438574c14"
        ),
        DataFile(
            "houston_gt.mat",
            (f"{COPIES}/houston_gt.mat",),
            sha256="ebe2438dcc6526bcbb63b5b98009f88de2b8c4a40b5d4c2b2bcd91808aa4e76f",
            size=1329968,
        ),
    ),
    spectral_range=(364.0, 1046.1),
    wavelengths=wavelengths.HOUSTON_2013,
    wavelength_source="header of 2013_IEEE_GRSS_DF_Contest_CASI, as songyz2019/rs-fusion-datasets gives it",
    split="the contest's 2 832 training and 12 197 test pixels",
    form=True,
    folder="houston2013",
    notes=("Houston2013_train_spectra.mat holds the training spectra only, without their positions.",),
    sources=(_LIST, "mhaut/HSI-datasets (masks)"),
)

HOUSTON_2018 = Entry(
    name="houston2018",
    title="Houston 2018",
    page="https://hyperspectral.ee.uh.edu/?page_id=1075",
    terms=(
        "on request by e-mail, with name and affiliation, and the promise to cite the data and to acknowledge the IEEE GRSS "
        "IADF and the Hyperspectral Image Analysis Lab at the University of Houston"
    ),
    citation=(
        "Y. Xu et al., Advanced Multi-Sensor Optical Remote Sensing for Urban Land Use and Land Cover Classification: Outcome "
        "of the 2018 IEEE GRSS Data Fusion Contest, IEEE Journal of Selected Topics in Applied Earth Observations and Remote "
        "Sensing 12(6), 1709-1724, 2019, doi:10.1109/JSTARS.2019.2911113"
    ),
    sensor="ITRES CASI-1500, 1 m",
    shape=(601, 2384),
    bands=48,
    classes=tuple(
        Class(id_, name)
        for id_, name in enumerate(
            (
                *("Healthy grass", "Stressed grass", "Artificial turf", "Evergreen trees", "Deciduous trees"),
                *("Bare earth", "Water", "Residential buildings", "Non-residential buildings", "Roads", "Sidewalks"),
                *("Crosswalks", "Major thoroughfares", "Highways", "Railways", "Paved parking lots"),
                *("Unpaved parking lots", "Cars", "Trains", "Stadium seats"),
            ),
            start=1,
        )
    ),
    layouts=(
        Layout(
            "2018_IEEE_GRSS_DFC_HSI_TR",
            "2018_IEEE_GRSS_DFC_GT_TR.tif",
            companions=("2018_IEEE_GRSS_DFC_HSI_TR.HDR",),
            bands=48,
            finer_labels=2,
        ),
    ),
    files=(
        DataFile("2018_IEEE_GRSS_DFC_HSI_TR"),
        DataFile("2018_IEEE_GRSS_DFC_HSI_TR.HDR"),
        DataFile("2018_IEEE_GRSS_DFC_GT_TR.tif"),
    ),
    spectral_range=(374.4, 1047.1),
    wavelengths=wavelengths.HOUSTON_2018,
    wavelength_source="header of the contest's scene, as songyz2019/rs-fusion-datasets gives it",
    removed_bands="none; the file's bands 49 and 50, which are no measurements, are left out on opening",
    form=True,
    folder="houston2018",
    notes=(
        "The training part of the contest. Labels have pixels of 0.5 m: a pixel of the scene is labelled where its four "
        "labels agree.",
    ),
    sources=(_LIST, "DeepHyperX README (files, terms)", "duanyl07/subHouston (sensor, size)"),
)

ENTRIES = (HOUSTON_2013, HOUSTON_2018)
