"""Numbers and sentences as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

NOT_AVAILABLE = "n/a"
SPACE = "\u202f"  # narrow and unbreakable: between a number and its unit, between thousands
LONGEST_LIST = 12
_ROUNDING = 1e-9  # of shares that sum to 1
SMALL_LEAK = 0.01  # of the test pixels: even if all were right because of it, the scores move by one point


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """A whole number with its thousands apart, `10 249`."""
    return f"{round(value):,}".replace(",", SPACE) if is_number(value) else NOT_AVAILABLE


def counted(value: Any, one: str, many: str | None = None) -> str:
    """A count and its noun, `1 pixel`, `12 pixels`."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def decimal(value: Any, digits: int = 3) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else NOT_AVAILABLE


def short(value: Any) -> str:
    """A number with at most four significant digits."""
    if not is_number(value):
        return NOT_AVAILABLE
    text = count(value) if abs(value) >= 1000 and value == round(value) else f"{value:.4g}"
    return text.replace("-", "−")


def measured(value: Any, unit: str) -> str:
    """A value and its unit, `1 pixel`, `4.2 pixels`."""
    if not is_number(value):
        return NOT_AVAILABLE
    number = f"{value:.3g}" if abs(value) < 1000 else count(value)
    return f"{number}{SPACE}{'pixel' if unit == 'pixels' and value == 1 else unit}"


def percent(share: Any, digits: int = 2) -> str:
    """A share in percent; what is not quite all or nothing is never rounded to it."""
    if not is_number(share):
        return NOT_AVAILABLE
    step = 10.0**-digits
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        return f"> {100 - step:.{digits}f}{SPACE}%"
    if share > 0 and float(text) == 0:
        return f"< {step:.{digits}f}{SPACE}%"
    return f"{text.replace('-', '−')}{SPACE}%"


def percent_range(bounds: Any, digits: int = 1) -> str:
    """An interval in percent, `97.1–98.9 %`; empty if there is none."""
    if not _is_range(bounds):
        return ""
    return f"{100 * bounds[0]:.{digits}f}–{100 * bounds[1]:.{digits}f}{SPACE}%"


def decimal_range(bounds: Any, digits: int = 3) -> str:
    """An interval, `0.951–0.972`; empty if there is none."""
    if not _is_range(bounds):
        return ""
    return f"{decimal(bounds[0], digits)}–{decimal(bounds[1], digits)}"


def _is_range(bounds: Any) -> TypeGuard[Sequence[float]]:
    return isinstance(bounds, Sequence) and len(bounds) == 2 and all(is_number(bound) for bound in bounds)


def duration(seconds: Any) -> str:
    """A time span in the units a person would use."""
    if not is_number(seconds):
        return NOT_AVAILABLE
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 10 else 1}f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def memory(size: Any) -> str:
    """A number of bytes in MiB or GiB."""
    if not is_number(size):
        return NOT_AVAILABLE
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.2f}{SPACE}GiB" if mebibytes >= 1024 else f"{mebibytes:.0f}{SPACE}MiB"


def value(content: Any) -> str:
    """A setting's value; long lists are cut and say how long they are."""
    if content is None:
        return NOT_AVAILABLE
    if content in ({}, [], ()):
        return "none"
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, float):
        return f"{content:g}" if math.isfinite(content) else NOT_AVAILABLE
    if isinstance(content, (list, tuple)):
        shown = ", ".join(value(item) for item in content[:LONGEST_LIST])
        return shown if len(content) <= LONGEST_LIST else f"{shown}, … ({len(content)} values)"
    if isinstance(content, Mapping):
        return ", ".join(f"{key}: {value(item)}" for key, item in content.items())
    return str(content)


def facts(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values of a nested table, `training.epochs` and `200`."""
    found = []
    for key, item in content.items():
        if isinstance(item, Mapping) and item:
            found += facts(item, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value(item)))
    return found


def square(width: Any) -> str:
    """The size of a square, `3 × 3`."""
    return f"{width}{SPACE}×{SPACE}{width}"


def neighbourhood(patch: Any) -> str:
    """The neighbourhood of a patch width, `3 × 3 neighbourhood`."""
    return f"{square(patch)} neighbourhood" if is_number(patch) else "neighbourhood"


def every(step: int) -> str:
    """Which of many, `every third`, `every 12th`."""
    ordinals = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth"}
    ending = "th" if step % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(step % 10, "th")
    return f"every {ordinals.get(step) or f'{step}{ending}'}"


def networks(number: int) -> str:
    """Why the curve of a training has humps; empty if one network was trained."""
    if number < 2:
        return ""
    return (
        f"Training goes through {number} networks, {counted(number - 1, 'teacher')} and then the classifier: "
        "each starts anew, and only the last is kept."
    )


def novelty(found: Mapping[str, Any]) -> str:
    """How much of what is tested is unlike all that trained; empty if that was not measured.

    Args:
        found: `level` and `share_of_test` of the scores.
    """
    level, share = found.get("level"), found.get("share_of_test")
    if not is_number(level) or not is_number(share):
        return ""
    return (
        f"{percent(share, 1)} of the test pixels are less like any class than {percent(level, 0)} of the training side's pixels; "
        f"{percent(1 - level, 0)} would be if they were alike."
    )


def prediction_sets(found: Mapping[str, Any]) -> str:
    """How often prediction sets hold the reference class, how large they are, and what they promise; empty if there are none.

    Args:
        found: `prediction_sets` of the scores.
    """
    wanted, labels, threshold = found.get("coverage"), found.get("labels"), found.get("threshold")
    if not is_number(wanted) or not is_number(threshold):
        return ""
    share = percent(wanted, 0)
    if threshold == 0:
        return (
            f"{share} prediction sets: no threshold keeps the classes of {share} of {counted(labels, 'label')} left out in turn, "
            "so each set holds every class."
        )
    said = [_held_sentence(found.get("of_test") or {}, wanted, labels), _sizes_sentence(found.get("of_map") or {})]
    if not any(said):
        return ""
    how, like, apart = _LEFT_OUT.get(str(found.get("left_out")), ("", "the labelled ones", ""))
    said += [
        f"They hold the classes of a probability of {threshold:.2g} or more by label propagation, a threshold from "
        f"{counted(labels, 'training label')} left out in turn{how}.",
        f"The {share} are meant for pixels like {like}, all classes together; not for each class, {apart}for other scenes or for "
        "classes without labels.",
    ]
    return " ".join(sentence for sentence in said if sentence)


_LEFT_OUT = {
    "neighbouring labels together": (", neighbours together", "those of the labelled areas", ""),
    "labels at random": (", at random", "the labelled ones", "for areas apart, "),
}


def _held_sentence(of_test: Mapping[str, Any], wanted: float, labels: Any) -> str:
    held, interval, size = of_test.get("held"), of_test.get("interval"), of_test.get("mean_size")
    if not is_number(held) or not _is_range(interval):
        return ""
    # What a threshold from so many labels covers has about this standard deviation (Vovk 2012, arXiv 1209.2673).
    chance = 2 * math.sqrt(wanted * (1 - wanted) / labels) if is_number(labels) and labels > 0 else 0.0
    judged = ""
    if interval[1] < wanted - chance:
        judged = ", fewer than meant"
    elif interval[0] > wanted + chance:
        judged = ", more than meant"
    between = f"{100 * interval[0]:.1f} to {percent(interval[1], 1)}{judged}"
    classes = f" and {decimal(size, 1)} classes on average" if is_number(size) else ""
    hold = f"{percent(wanted, 0)} prediction sets hold the reference class of {percent(held, 1)} of the test pixels"
    return f"{hold} ({between}){classes}."


def _sizes_sentence(of_map: Mapping[str, Any]) -> str:
    empty, single = of_map.get("share_empty"), of_map.get("share_single")
    if not is_number(empty) or not is_number(single):
        return ""
    several = max(0.0, 1 - empty - single)
    rest = f", {percent(several, 0)} several" if several > _ROUNDING else ""
    rest += f", {percent(empty, 0)} none: no class is probable enough" if empty else ""
    return f"On the map {percent(single, 0)} of the prediction sets hold exactly one class{rest}."


def independence(record: Mapping[str, Any]) -> str:
    """How far the test pixels lie from the training pixels, and what that means for the scores.

    Args:
        record: The split's record.
    """
    return " ".join(part for part in (_leak_sentence(record), _distance_sentence(record)) if part)


def _leak_sentence(record: Mapping[str, Any]) -> str:
    leaks, patch = record.get("leaks") or {}, record.get("patch")
    near, test = leaks.get("test_near_training"), record.get("test_pixels")
    if not is_number(near):
        return "The split's record does not say how many test pixels lie near training pixels."
    if near > 0:
        share = leaks.get("share_of_test")
        effect = (
            "which flatters the scores a little" if is_number(share) and share < SMALL_LEAK else "so the scores flatter"
        )
        return (
            f"{percent(share, 1)} of the test pixels ({count(near)} of {count(test)}) {'has' if near == 1 else 'have'} "
            f"a training pixel inside their {neighbourhood(patch)}, {effect}: "
            "part of what is tested was seen in training."
        )
    if patch == 1:
        sentence = "The classifier looks at single pixels, so no test pixel shares its input with a training pixel."
    else:
        sentence = (
            f"No test pixel has a training pixel inside its {neighbourhood(patch)}: the split is clean in this sense."
        )
        minimum = (record.get("distance") or {}).get("minimum")
        if is_number(minimum) and is_number(patch) and minimum < patch:
            sentence += f" Neighbourhoods still share pixels where the two lie fewer than {patch} pixels apart."
    if str(record.get("method", "")).startswith("random"):
        sentence += (
            " Test pixels still come from the same areas as training pixels, which makes them easier than a new area."
        )
    return sentence


def _distance_sentence(record: Mapping[str, Any]) -> str:
    distance = record.get("distance") or {}
    minimum, median = distance.get("minimum"), distance.get("median")
    if not is_number(minimum) or not is_number(median):
        return ""
    unit = str(distance.get("unit", "pixels"))
    return (
        f"Half of the test pixels lie within {measured(median, unit)} of a training pixel; "
        f"the nearest lies {measured(minimum, unit)} away."
    )
