"""Who trains, who tests, and how far apart they are."""

from spectralmamba.splits.disjoint import DisjointMethod, split_disjoint
from spectralmamba.splits.draws import split_folds, split_masks, split_random
from spectralmamba.splits.labelled import LabelImage, Mask, class_ids, has_wide_fields
from spectralmamba.splits.split import TEST, TRAINING, Split

__all__ = [
    "TEST",
    "TRAINING",
    "DisjointMethod",
    "LabelImage",
    "Mask",
    "Split",
    "class_ids",
    "has_wide_fields",
    "split_disjoint",
    "split_folds",
    "split_masks",
    "split_random",
]
