"""Training: `fit`, and `fit_seeds` for several seeds at once.

`fitting` makes the tasks and drives the steps, which `single` does one after the other on any device, and `together` for
several seeds at once on a GPU. `draws` has the random numbers, `schedule` and `augmentation` what they decide.
"""

from spectralmamba.training.fitting import fit, fit_seeds
from spectralmamba.training.recommend import Recommendation, recommend_settings
from spectralmamba.training.schedule import one_cycle
from spectralmamba.training.state import Progress
from spectralmamba.training.task import statistics_area

__all__ = [
    "Progress",
    "Recommendation",
    "fit",
    "fit_seeds",
    "one_cycle",
    "recommend_settings",
    "statistics_area",
]
