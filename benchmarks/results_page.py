"""docs/results.md and the README's table, from the lines of docs/results/few_labels.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from classical import CLASSICAL
from protocols import PROTOCOLS
from spectralmamba.evaluation import paired_difference
from spectralmamba.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"

_BEST = 10  # methods in the ranking
_COMMAND = "python benchmarks/few_labels.py"
_INTRODUCTION = (
    f"Written by `{_COMMAND}` from `docs/results/few_labels.jsonl`, which also holds every confusion matrix, split record, date, "
    "commit and machine. Mean ± sample standard deviation over the draws; OA, AA, κ, macro F1 and the expected calibration "
    "error (ECE) as fractions. Seconds are of one run; networks that trained together on a GPU have equal shares.",
    "All methods see the same draws and test the same pixels. Simple classifiers with hyper-parameters are tuned by 3-fold "
    "cross-validation on the training pixels of each draw, over the grids in `benchmarks/classical.py`. “Whitened” is the noise "
    "whitening of `docs/method.md`, learned without labels, with the ε that the networks have; three opponents also have the one "
    "that suits them best on random draws. Whitening, label propagation and self-training look at unlabelled pixels of the "
    "training side; on random draws that is the whole scene, so at the spectra of test pixels, never at their labels. “Linear "
    "discriminant (ours)” is what the settings are recommended by.",
    "Random draws put test pixels beside training pixels, which flatters every method that looks at a neighbourhood: the leaks "
    "column says for how many test pixels. “Blocks” and “regions” keep the two apart in space, by 3 pixels for every method "
    "alike, the reach of the widest patch. `enmap-potsdam/columns` is one split, where another seed changes the training of "
    "networks and random forests only; all other methods run once there, and intervals against them are against their one value. "
    "The paper's own splits are not published, so none of this is comparable to its digits.",
)
_STRONGEST = (
    "The strongest simple opponent is that of the highest mean OA on a protocol's test pixels: a choice in hindsight, which "
    "favours the opponent. Differences are paired by draw, with Student's 95 % interval. A win or a loss is one whose interval "
    "leaves out 0."
)


@dataclass(frozen=True)
class Comparison:
    """The recommended network beside the strongest simple opponent of one protocol.

    Attributes:
        protocol: Its name.
        ours: Overall accuracy of each draw.
        opponent: Name of the opponent.
        theirs: Overall accuracy of each draw.
    """

    protocol: str
    ours: dict[int, float]
    opponent: str
    theirs: dict[int, float]

    @property
    def pairs(self) -> dict[int, tuple[float, float]]:
        """Both accuracies of each draw that both have."""
        return paired(self.protocol, self.ours, self.theirs)

    @property
    def difference(self) -> dict[str, Any]:
        """Ours minus theirs, as `paired_difference` has it."""
        return paired_difference(*zip(*self.pairs.values(), strict=True))

    @property
    def verdict(self) -> str:
        """A word for it, nothing for a single pair."""
        interval = self.difference["interval"]
        if interval is None:
            return ""
        return "win" if interval[0] > 0 else "loss" if interval[1] < 0 else "draw"


def paired(protocol: str, first: dict[int, float], second: dict[int, float]) -> dict[int, tuple[float, float]]:
    """Pair accuracies by draw; where there is one split, what ran once is paired with every seed of the other."""
    once = not PROTOCOLS[protocol].seeded and len(second) == 1
    others = dict.fromkeys(first, next(iter(second.values()))) if once else second
    return {seed: (value, others[seed]) for seed, value in first.items() if seed in others}


def accuracies(lines: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Return the overall accuracies by protocol, method and seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for line in lines:
        by_method = found.setdefault(line["protocol"], {})
        by_method.setdefault(line["method"], {})[line["seed"]] = line["overall_accuracy"]
    return {name: found[name] for name in PROTOCOLS if name in found}


def means(protocol: str, by_method: dict[str, dict[int, float]]) -> dict[str, float]:
    """Return the mean accuracy of each method that has run on all the draws that any has run on."""
    most = max(map(len, by_method.values())) if PROTOCOLS[protocol].seeded else 1
    return {method: statistics.mean(found.values()) for method, found in by_method.items() if len(found) >= most}


def strongest(protocol: str, by_method: dict[str, dict[int, float]]) -> str | None:
    """Return the simple opponent of the highest mean overall accuracy."""
    opponents = {method: mean for method, mean in means(protocol, by_method).items() if method in CLASSICAL}
    return max(opponents, key=lambda method: opponents[method], default=None)


def compare(lines: list[dict[str, Any]], ours: str) -> list[Comparison]:
    """Compare a network with the strongest simple opponent of each protocol that both have run on."""
    comparisons = []
    for protocol, by_method in accuracies(lines).items():
        opponent = strongest(protocol, by_method)
        if opponent is not None and ours in by_method:
            found = Comparison(protocol, by_method[ours], opponent, by_method[opponent])
            comparisons += [found] if found.pairs else []
    return comparisons


def overall(comparisons: list[Comparison]) -> dict[str, Any] | None:
    """Return the mean over protocols of the difference in each draw, and over draws its interval; None without a common draw."""
    if not comparisons:
        return None
    seeds = sorted(set.intersection(*(set(comparison.pairs) for comparison in comparisons)))
    if not seeds:
        return None
    sides = [[statistics.mean(c.pairs[seed][side] for c in comparisons) for seed in seeds] for side in (0, 1)]
    return paired_difference(*sides)


def mean_ranks(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean over protocols of the rank by mean OA, best first, of the methods that have run on all of them."""
    by_protocol = [means(protocol, by_method) for protocol, by_method in accuracies(lines).items()]
    methods = [method for method in by_protocol[0] if all(method in found for found in by_protocol)]
    ranks = [rankdata([-found[method] for method in methods]) for found in by_protocol]
    found = {method: float(statistics.mean(of_method)) for method, *of_method in zip(methods, *ranks, strict=True)}
    return dict(sorted(found.items(), key=lambda entry: entry[1]))


def write_page(lines: list[dict[str, Any]], networks: list[str]) -> None:
    """Write docs/results.md.

    Args:
        lines: The runs.
        networks: Names of the forms of the network, the recommended one first.
    """
    if not lines:
        return
    comparisons = compare(lines, networks[0])
    parts = ["# Results", *_INTRODUCTION, "## Summary"]
    if comparisons:
        parts += [_STRONGEST, summary_table(comparisons, networks[0], 4), *overall_sentences(comparisons)]
    parts += [_ranking(lines), *prediction_sets(lines, networks[0])]
    for protocol in PROTOCOLS:
        runs = [line for line in lines if line["protocol"] == protocol]
        if runs:
            parts += [f"## {protocol}", _details(protocol, runs, networks)]
    parts.append(_provenance(lines))
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_readme(lines: list[dict[str, Any]], networks: list[str]) -> None:
    """Replace what is between the README's markers, if there is something to compare."""
    comparisons = compare(lines, networks[0])
    if not comparisons:
        return
    start, end = "<!-- results -->", "<!-- /results -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    content = [summary_table(comparisons, "SpectralMamba", 3), "", *overall_sentences(comparisons)[:1]]
    README.write_text("\n".join([before + start, *content, end + after]), encoding="utf-8")


def summary_table(comparisons: list[Comparison], ours: str, digits: int) -> str:
    """Return one row a protocol in Markdown."""
    rows = []
    for comparison in comparisons:
        first, second = (spread(list(found.values()), digits) for found in (comparison.ours, comparison.theirs))
        difference = interval(comparison.difference, digits)
        rows.append([comparison.protocol, first, f"{second}, {comparison.opponent}", difference, comparison.verdict])
    return table(["protocol", ours, "strongest simple opponent", "difference (95 %)", "verdict"], rows)


def overall_sentences(comparisons: list[Comparison]) -> list[str]:
    """Say the mean difference over protocols, how it is reckoned, and that of random and of apart draws alone."""
    seeded = [comparison for comparison in comparisons if PROTOCOLS[comparison.protocol].seeded]
    found = overall(seeded)
    if found is None:
        return []
    apart = [comparison for comparison in seeded if PROTOCOLS[comparison.protocol].apart]
    near = [comparison for comparison in seeded if comparison not in apart]
    kinds = {"on random draws": overall(near), "on those apart in space": overall(apart)}
    parts = [f"{interval(part, 4)} {kind}" for kind, part in kinds.items() if part is not None]
    return [
        f"Mean difference to the strongest opponent of each protocol: {interval(found, 4)}, over {len(seeded)} protocols of "
        f"several draws; {', '.join(parts)}.",
        f"In each of the {found['n']} draws the differences are averaged over protocols first, since protocols of one scene have "
        "pixels in common, and the interval is that of the averages. Protocols of one split are left out.",
    ]


def _ranking(lines: list[dict[str, Any]]) -> str:
    ranks = mean_ranks(lines)
    rows = [[method, f"{rank:.1f}"] for method, rank in list(ranks.items())[:_BEST]]
    among = f"among the {len(ranks)} methods that ran on all of them; the best {_BEST}"
    words = f"Mean rank by mean OA over {len(accuracies(lines))} protocols, {among}:"
    return f"{words}\n\n{table(['method', 'mean rank'], rows)}"


def prediction_sets(lines: list[dict[str, Any]], ours: str) -> list[str]:
    """Return heading, words and a table of one row a protocol on the sets of a network; nothing if no line tells of them."""
    rows = []
    for protocol in PROTOCOLS:
        of_network = (line for line in lines if (line["protocol"], line["method"]) == (protocol, ours))
        found = [line["prediction_sets"] for line in of_network if line.get("prediction_sets") is not None]
        if found:
            columns = (("held", 3), ("mean_size", 2), ("share_single", 3))
            spreads = (spread([sets[key] for sets in found], digits) for key, digits in columns)
            rows.append([protocol, *spreads, str(len(found))])
    if not rows:
        return []
    wanted = Settings().set_coverage
    words = (
        f"Sets of classes that {ours} gives each test pixel: the share of them that hold the reference class, {wanted:g} wanted; "
        "how many classes they hold, below 1 where many hold none; and the share that hold exactly one. Mean ± sample standard "
        "deviation over the draws."
    )
    head = ["protocol", f"coverage ({wanted:g} wanted)", "mean size", "share of one class", "seeds"]
    return ["## Prediction sets", words, table(head, rows)]


def _details(protocol: str, runs: list[dict[str, Any]], networks: list[str]) -> str:
    by_method = accuracies(runs)[protocol]
    opponent = strongest(protocol, by_method)
    rows = []
    for method in (*networks, *CLASSICAL):
        found = [run for run in runs if run["method"] == method]
        if not found:
            continue
        pairs = paired(protocol, by_method[method], by_method[opponent]) if opponent and method in networks else {}
        errors = [run["calibration"]["expected_calibration_error"] for run in found if "calibration" in run]
        scores = ("overall_accuracy", "average_accuracy", "kappa", "macro_f1")
        rows.append(
            [
                f"{method}{' (strongest)' if method == opponent else ''}",
                *(spread([run[key] for run in found]) for key in scores),
                spread(errors, 3) if errors else "",
                str(len(found)),
                f"{statistics.mean(run['split']['leaks']['share_of_test'] for run in found):.3f}",
                interval(paired_difference(*zip(*pairs.values(), strict=True)), 4) if pairs else "",
                f"{statistics.mean(run['seconds'] for run in found):.1f}",
            ]
        )
    head = ["method", "OA", "AA", "κ", "macro F1", "ECE", "seeds", "leaks, share of test pixels"]
    return table([*head, "OA minus strongest simple opponent (95 %)", "s a run"], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def interval(found: dict[str, Any], digits: int) -> str:
    """Say a difference with its interval; the mean alone of a single pair."""
    values = (found["mean"], *(found["interval"] or ()))
    mean, *limits = (f"{value:+.{digits}f}" for value in values)
    return f"{mean} ({' to '.join(limits)})" if limits else mean


def spread(values: list[float], digits: int = 4) -> str:
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _provenance(lines: list[dict[str, Any]]) -> str:
    seen = sorted({(line["date"], line["commit"], line["machine"]) for line in lines})
    return "\n".join(["Run on:", "", *(f"- {date}, commit {commit}, {machine}" for date, commit, machine in seen)])
