"""A model card tells what the classifier's own card holds, and the Hub's own library reads its front matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_example import assert_refused, command_line
from spectralmamba import Classifier
from spectralmamba.errors import ClassifierError
from spectralmamba.sharing import model_card

SCORES = {"overall_accuracy": 0.91234, "average_accuracy": 0.9, "kappa": 0.88, "macro_f1": None, "test_pixels": 132}


def test_it_tells_classes_bands_scores_split_and_use(classifier: Classifier):
    card = classifier.card | {"scores": SCORES}
    text = model_card(card, repository="someone/fields")
    for entry in card["classes"]:
        counts = card["split"]["classes"][str(entry["id"])]
        row = f"| {entry['id']} | {entry['name']} | `{entry['color']}` | {counts['train']} | {counts['test']} |"
        assert row in text
    assert f"{len(card['bands']['used'])} of the 20 bands" in text
    assert f"{card['bands']['wavelength'][0]:.2f}" in text
    assert "On 132 test pixels" in text
    assert "| Overall accuracy | 0.9123 |" in text
    assert "| Macro F1 | not defined |" in text
    leaks = card["split"]["leaks"]
    assert f"Leaks: {leaks['test_near_training']} test pixels" in text
    assert "whitening" in text
    assert "steps = 6" in text
    assert "Licence: not stated" in text
    assert "spectralmamba map hub:someone/fields scene.tif" in text
    assert f"spectralmamba {card['versions']['spectralmamba']}" in text
    assert "arXiv:2404.08489" in text


def test_without_scores_or_split_it_says_so(classifier: Classifier):
    text = model_card(classifier.card | {"split": None, "scores": None})
    assert "The file holds no scores." in text
    assert "none was left to score" in text
    assert "metrics" not in text.split("---")[1]


def test_without_wavelengths_it_says_what_scenes_it_maps(classifier: Classifier):
    bands = classifier.card["bands"]
    text = model_card(classifier.card | {"bands": bands | {"wavelength": [None] * bands["count"]}})
    assert "no wavelengths, so it maps scenes with the same bands only" in text


def test_classes_without_test_pixels_are_listed(classifier: Classifier):
    split = classifier.card["split"]
    counts = split["classes"] | {"3": {"train": 4, "test": 0}}
    assert "of unknown accuracy: maize." in model_card(classifier.card | {"split": split | {"classes": counts}})


def test_the_hubs_library_reads_its_front_matter(classifier: Classifier):
    hub = pytest.importorskip("huggingface_hub")
    names = classifier.card["data"] | {"file": 'a "b": #1 | <i>.tif\x07'}
    text = model_card(classifier.card | {"scores": SCORES, "data": names}, license="cc-by-4.0")
    data = hub.ModelCard(text).data
    assert (data.license, data.library_name) == ("cc-by-4.0", "spectralmamba")
    assert {"hyperspectral", "spectral-mamba"} <= set(data.tags)
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"accuracy": 0.91234, "average_accuracy": 0.9, "kappa": 0.88}
    assert {result.dataset_split for result in data.eval_results} == {"random, 132 test pixels"}
    assert list(data.metrics) == list(found)
    assert hub.ModelCard(model_card(classifier.card)).data.license is None


def test_names_of_users_stay_text(classifier: Classifier):
    classes = [entry | {"name": "<script>|`a\nb"} for entry in classifier.card["classes"]]
    text = model_card(classifier.card | {"classes": classes})
    assert "<script>" not in text
    assert "| &lt;script>\\|'a b |" in text


@pytest.mark.parametrize("simple", ["label_propagation", "support_vectors"])
def test_a_simple_model_has_no_network_in_its_card(classifier: Classifier, simple: str):
    model = classifier.card["model"] | {"name": simple, "size": 12, "companion": None}
    text = model_card(classifier.card | {"model": model})
    assert f"It decides by {simple.replace('_', ' ')}." in text
    assert "the network" not in text


def test_a_card_of_other_form_is_an_error_and_no_defect(classifier: Classifier):
    for damaged in ({"split": {}}, {"scores": {}}, {"settings": None}, {"bands": {"used": [99], "count": 1}}):
        with pytest.raises(ClassifierError, match="lacks what a model card tells"):
            model_card(classifier.card | damaged)


def test_the_command_line_writes_it_and_over_nothing(classifier_file: Path, tmp_path: Path):
    out = tmp_path / "README.md"
    answer = command_line("card", classifier_file, "--out", out, "--license", "cc0-1.0")
    assert answer.code == 0, answer
    assert out.read_text(encoding="utf-8") == model_card(Classifier.load(classifier_file).card, license="cc0-1.0")
    assert_refused(command_line("card", classifier_file, "--out", out), "exists", "--overwrite")
    assert command_line("card", classifier_file, "--out", out, "--overwrite").code == 0
    assert "license" not in out.read_text(encoding="utf-8").split("---")[1]
    assert_refused(command_line("card", tmp_path / "none", "--out", tmp_path / "a.md"), "no such file")
