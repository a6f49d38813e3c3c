"""What all algorithms share: parameters by their table, the command's run, and layers that are loaded with their style."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingOutputDefinition,
)
from qgis.PyQt import sip
from qgis.PyQt.QtGui import QIcon

from .command import COMMAND_SETTING, Cancelled, CommandError, check_version, find_command, run_command
from .tables import Algorithm
from .values import definition, read_values
from .words import check_values, command_words

_ICON = Path(__file__).parent / "icon.svg"
_LAYERS = {"confidence": "Confidence", "novelty": "Novelty", "set_size": "Set size"}


class _OwnStyle(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the style beside its file, which QGIS does not take for results by itself."""

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        layer.loadDefaultStyle()
        layer.triggerRepaint()


_own_styles: list[
    _OwnStyle
] = []  # QGIS deletes each with its context, but does not keep its Python half alive until then


class CommandAlgorithm(QgsProcessingAlgorithm):
    """A command as an algorithm. One that derives from it has a table, and says what the command has written."""

    table: ClassVar[Algorithm]
    outputs: ClassVar[tuple[tuple[type[QgsProcessingOutputDefinition], str, str], ...]] = ()
    """Class, name and description of what the command writes besides what parameters name."""

    def results(
        self, values: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Return the outputs of a finished run by their names, and have layers loaded."""
        raise NotImplementedError

    def name(self) -> str:
        """Return the second half of the algorithm's id."""
        return self.table.command

    def displayName(self) -> str:
        """Return what the toolbox shows."""
        return self.table.title

    def shortHelpString(self) -> str:
        """Return what the dialog shows."""
        return self.table.help

    def icon(self) -> QIcon:
        """Return the plugin's icon."""
        return QIcon(str(_ICON))

    def createInstance(self) -> CommandAlgorithm:
        """Return another one; QGIS runs each in its own."""
        return type(self)()

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Add the table's parameters and the outputs."""
        for parameter in self.table.parameters:
            self.addParameter(definition(parameter))
        for kind, name, description in self.outputs:
            self.addOutput(kind(name, description))

    def canExecute(self) -> tuple[bool, str]:
        """Say whether the command is there and new enough, or what to do."""
        try:
            _command()
        except CommandError as error:
            return False, str(error)
        return True, ""

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Say whether QGIS takes the values, and each argument is given once."""
        taken, why = super().checkParameterValues(parameters, context)
        problem = None if not taken else check_values(self.table, parameters)
        return taken and problem is None, problem or why

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the command.

        Raises:
            QgsProcessingException: The command is missing or too old, or said no.
        """
        values = read_values(self, self.table, parameters, context, feedback)
        words = command_words(self.table, values)
        out = Path(values["OUT"]) if values.get("OUT") else None
        stage = ""

        def show(done: float, of: str) -> None:
            nonlocal stage
            if of != stage:
                stage = of
                feedback.setProgressText(f"{of} …")
            feedback.setProgress(100 * done)

        try:
            command = _command()
            feedback.pushCommandInfo(" ".join([str(command), *words]))
            run_command(
                command,
                words,
                say=feedback.pushConsoleInfo,
                complain=feedback.pushWarning,
                progress=show,
                cancelled=feedback.isCanceled,
                folder=out if out is None or out.is_dir() else out.parent,
            )
        except CommandError as error:
            raise QgsProcessingException(str(error)) from error
        except Cancelled:
            self.clean_up(values, feedback)
            return {}
        return self.results(values, context, feedback)

    def clean_up(self, values: dict[str, Any], feedback: QgsProcessingFeedback) -> None:
        """Remove what a cancelled run keeps to go on from, where the user does not want it."""


class TrainingAlgorithm(CommandAlgorithm):
    """`train` and `run`: a cancelled training keeps its checkpoint, and says so."""

    def clean_up(self, values: dict[str, Any], feedback: QgsProcessingFeedback) -> None:
        """Say what is there to go on from; remove the folder if nothing is in it."""
        folder = Path(values["OUT"])
        if (folder / "checkpoint.safetensors").is_file() or (folder / "model.safetensors").is_file():
            feedback.pushWarning(
                f"What is done so far is in {folder}. To go on, run the same again with RESUME (advanced parameters)."
            )
        elif folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def load_layer(file: Path, title: str, output: str, context: QgsProcessingContext) -> None:
    """Have a file loaded as layer, with its style, when the algorithm has ended."""
    if context.project() is None or not file.is_file():
        return
    context.addLayerToLoadOnCompletion(str(file), QgsProcessingContext.LayerDetails(title, context.project(), output))
    with_own_style(str(file), context)


def load_layers(map_file: Path, context: QgsProcessingContext) -> None:
    """Have the layers beside a map loaded."""
    for name, title in _LAYERS.items():
        load_layer(map_file.with_name(f"{map_file.stem}_{name}.tif"), title, name.upper(), context)


def with_own_style(file: str | None, context: QgsProcessingContext) -> None:
    """Have a result take the style beside its file, if it is loaded."""
    if file is not None and context.willLoadLayerOnCompletion(file):
        _own_styles[:] = [each for each in _own_styles if not sip.isdeleted(each)]
        _own_styles.append(_OwnStyle())
        context.layerToLoadOnCompletionDetails(file).setPostProcessor(_own_styles[-1])


def remove_unfinished(map_file: Path) -> None:
    """Remove what a stopped map keeps to go on from."""
    shutil.rmtree(map_file.with_name(f".{map_file.name}.unfinished"), ignore_errors=True)


def _command() -> Path:
    command = find_command(ProcessingConfig.getSetting(COMMAND_SETTING))
    check_version(command)
    return command
