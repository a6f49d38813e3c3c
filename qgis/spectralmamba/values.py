"""From the tables to QGIS's parameters, and from what the user chose in QGIS to what the command takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProviderRegistry,
)

from .tables import Algorithm, Parameter
from .words import split_texts

_VECTOR_FORMATS = ["gpkg", "geojson", "shp", "fgb"]  # that the command opens; other layers are written to the first


def definition(parameter: Parameter) -> QgsProcessingParameterDefinition:
    """Return QGIS's parameter of a line of a table."""
    made = _made(parameter)
    if parameter.advanced:
        made.setFlags(made.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
    return made


def _made(parameter: Parameter) -> QgsProcessingParameterDefinition:
    named = (parameter.name, parameter.label)
    optional = not parameter.needed
    kind = parameter.kind
    if kind == "raster":
        return QgsProcessingParameterRasterLayer(*named, optional=optional)
    if kind == "vector":
        return QgsProcessingParameterFeatureSource(
            *named, types=[QgsProcessing.TypeVectorPoint, QgsProcessing.TypeVectorPolygon], optional=optional
        )
    if kind == "field":
        return QgsProcessingParameterField(*named, parentLayerParameterName=parameter.of, optional=optional)
    if kind == "file":
        return QgsProcessingParameterFile(*named, optional=optional, fileFilter=parameter.files)
    if kind == "folder":
        return QgsProcessingParameterFile(*named, behavior=QgsProcessingParameterFile.Folder, optional=optional)
    if kind in ("choice", "choices"):
        return QgsProcessingParameterEnum(
            *named,
            options=list(parameter.choices),
            allowMultiple=kind == "choices",
            defaultValue=parameter.default,
            optional=optional,
            usesStaticStrings=True,
        )
    if kind in ("number", "whole number"):
        bounds = {"minValue": parameter.least, "maxValue": parameter.most}
        number = QgsProcessingParameterNumber
        return number(
            *named,
            type=number.Integer if kind == "whole number" else number.Double,
            defaultValue=parameter.default,
            optional=optional,
            **{name: bound for name, bound in bounds.items() if bound is not None},
        )
    if kind in ("text", "texts"):
        return QgsProcessingParameterString(*named, defaultValue=parameter.default, optional=optional)
    if kind == "flag":
        return QgsProcessingParameterBoolean(*named, defaultValue=parameter.default, optional=optional)
    if kind == "raster to write":
        return QgsProcessingParameterRasterDestination(*named, optional=optional)
    if kind == "polygons to write":
        return QgsProcessingParameterVectorDestination(
            *named, type=QgsProcessing.TypeVectorPolygon, optional=optional, createByDefault=not optional
        )
    if kind == "file to write":
        return QgsProcessingParameterFileDestination(*named, fileFilter=parameter.files, optional=optional)
    assert kind == "folder to write", kind
    return QgsProcessingParameterFolderDestination(*named, optional=optional)


def read_values(
    algorithm: QgsProcessingAlgorithm,
    table: Algorithm,
    parameters: dict[str, Any],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> dict[str, Any]:
    """Return what the user chose as the command takes it, by name of the parameter; layers as files.

    Raises:
        QgsProcessingException: A layer is no file.
    """
    values = {}
    for each in table.parameters:
        if each.kind == "vector" and parameters.get(each.name) is not None:
            values[each.name], layer = _vector(algorithm, each.name, parameters, context, feedback)
            if layer:
                parameters = parameters | {"LABEL_LAYER": parameters.get("LABEL_LAYER") or layer}
        else:
            values[each.name] = _value(algorithm, each, parameters, context)
    return values


def _value(
    algorithm: QgsProcessingAlgorithm, parameter: Parameter, parameters: dict[str, Any], context: QgsProcessingContext
) -> Any:
    name, kind = parameter.name, parameter.kind
    if kind == "flag":
        return algorithm.parameterAsBool(parameters, name, context)
    if parameters.get(name) in (None, ""):
        return parameter.default
    if kind == "raster":
        return _file_of(algorithm.parameterAsRasterLayer(parameters, name, context))
    if kind == "field":
        return algorithm.parameterAsFields(parameters, name, context)[0]
    if kind == "choice":
        return algorithm.parameterAsEnumString(parameters, name, context)
    if kind == "choices":
        return algorithm.parameterAsEnumStrings(parameters, name, context)
    if kind == "whole number":
        return algorithm.parameterAsInt(parameters, name, context)
    if kind == "number":
        return algorithm.parameterAsDouble(parameters, name, context)
    if kind in ("raster to write", "polygons to write"):
        return str(Path(algorithm.parameterAsOutputLayer(parameters, name, context)).absolute())
    if kind == "file to write":
        return str(Path(algorithm.parameterAsFileOutput(parameters, name, context)).absolute())
    text = algorithm.parameterAsString(parameters, name, context)
    if kind == "texts":
        return split_texts(text)
    return text if kind == "text" else str(Path(text).absolute())


def _file_of(layer: QgsMapLayer | None) -> str:
    """Return the file of a raster layer, of a subdataset the file that holds it.

    Raises:
        QgsProcessingException: The layer is not from a file.
    """
    parts = {} if layer is None else QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
    subdataset = re.match(r'\w+:"?(.+?)"?:', str(parts.get("path")))
    for path in (parts.get("path"), subdataset and subdataset[1]):
        if path and Path(path).exists():
            return str(Path(path).absolute())
    raise QgsProcessingException(
        f"The layer {'' if layer is None else layer.name()} is not from a file on this computer. Save it as GeoTIFF first."
    )


def _vector(
    algorithm: QgsProcessingAlgorithm,
    name: str,
    parameters: dict[str, Any],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> tuple[str, str]:
    """Return the file of a vector layer, and its layer's name if the file has several.

    A filtered layer, one with selected features only, and one that is no file is written to a temporary GeoPackage.
    """
    path, layer = algorithm.parameterAsCompatibleSourceLayerPathAndLayerName(
        parameters, name, context, _VECTOR_FORMATS, _VECTOR_FORMATS[0], feedback
    )
    if not path:
        raise QgsProcessingException(f"The layer of {name} cannot be read.")
    layers = [each.name() for each in QgsProviderRegistry.instance().querySublayers(path)]
    return str(Path(path).absolute()), layer if len(layers) > 1 else ""
