"""Writing a trained model as one ONNX file, which is checked before it stands."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.export import Dim

from boneage.config import Hardware
from boneage.extras import check_extra
from boneage.model_folder import TrainedModel, open_model
from boneage.onnx.check import compare
from boneage.onnx.graph import PredictorGraph
from boneage.onnx.operators import OnnxOperators
from boneage.predictor import Predictor
from boneage.run_folder import atomic_path
from boneage.stages.evaluate import versions

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 18
_LEAST_SIDE = 8
_ABOUT = (
    "Bone age from a radiograph of a left hand. Not for clinical use: research and teaching "
    "software, no medical device; nothing it says may guide a diagnosis or a treatment."
)
_MEANINGS = {
    "image": "grey values (H, W) in [0, 1] of the full scale: / 255 of 8 bits, / 65535 of 16",
    "sex": "1 male, -1 female, 0 unknown",
    "seed": "CRC-32 of the image's name, which chooses the grey of erased regions",
    "covariates": "what the metadata's covariates name, in this order; NaN where unknown",
    "months": "age",
    "interval": "ends of the 90% interval in months; NaN where the model knows none",
    "probabilities": "of the ages that the metadata's bins list",
    "boxes": "x1, y1, x2, y2 of each region in pixels; the whole image where none was found",
    "valid": "whether each region was found",
}


def export_onnx(run: Path, file: Path, name: str | None = None) -> dict[str, float]:
    """Write a trained model as one ONNX file, and compare it with the predictor.

    Args:
        run: The folder of a finished run, or a model folder.
        file: The file to write; one that is there is replaced.
        name: Which model or ensemble of a run (default: the last one).

    Returns:
        How far the file's answers are from the predictor's, by the names of the outputs.

    Raises:
        UserError: If there is no such model, a package is missing, or the file cannot be written
            or answers otherwise than the predictor. No new file is left then.
    """
    check_extra("onnx", ("onnx", "onnxscript", "onnxruntime"), "to write ONNX")
    import onnx

    model = open_model(run, name)
    on_cpu = model.config.model_copy(update={"hardware": Hardware(accelerator="cpu")})
    predictor = Predictor(replace(model, config=on_cpu))
    with atomic_path(file) as temporary:
        graph = PredictorGraph(predictor)
        written = _convert(graph)
        _describe(written, graph, model)
        onnx.save(written, temporary)
        return compare(temporary, predictor, graph.bins)


def _convert(graph: PredictorGraph) -> ModelProto:
    """The module as a graph for one image of any size."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    example = {
        "image": torch.zeros(850, 610),
        "sex": torch.tensor(0.0),
        "seed": torch.tensor(0),
    }
    if graph.covariates:
        example["covariates"] = torch.zeros(len(graph.covariates))
    sides = {0: Dim("height", min=_LEAST_SIDE), 1: Dim("width", min=_LEAST_SIDE)}
    with OnnxOperators():
        program = torch.export.export(
            graph,
            (),
            example,
            dynamic_shapes=dict.fromkeys(example) | {"image": sides},
            strict=False,
        )
    converted = torch.onnx.export(
        program,
        opset_version=_OPSET,
        input_names=list(example),
        output_names=list(graph.outputs),
        dynamic_shapes=dict.fromkeys(example) | {"image": {0: "height", 1: "width"}},
        verbose=False,
        # Rewriting takes longer than all else, and runtimes do it when they load the file.
        optimize=False,
    )
    assert converted is not None
    model = converted.model
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    common.CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)
    # What each node was made from, down to the lines of the source.
    common.ClearMetadataAndDocStringPass()(model)
    for node in model.graph.all_nodes():
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                value.metadata_props.clear()
    return converted.model_proto


def _describe(written: ModelProto, graph: PredictorGraph, model: TrainedModel) -> None:
    """Put into the file what it takes to use it."""
    import numpy as np
    from onnx import helper, numpy_helper

    written.doc_string = _ABOUT
    written.graph.name = "boneage"
    for port in (*written.graph.input, *written.graph.output):
        port.doc_string = _MEANINGS[port.name]
    # An input with a value of its own need not be given.
    own = {"seed": np.array(0)}
    if graph.covariates:
        own["covariates"] = np.full(len(graph.covariates), np.nan, dtype=np.float32)
    for name, value in own.items():
        written.graph.initializer.append(numpy_helper.from_array(value, name))
    bins, packages = graph.bins, ("onnx", "onnxscript")
    about = {
        "about": _ABOUT,
        "model": model.name,
        "bins": {
            "first": bins.first,
            "last": bins.last,
            "step": (bins.last - bins.first) / (len(bins) - 1),
            "count": len(bins),
            "unit": bins.unit,
        },
        "regions": model.config.localization.found,
        "thresholds": model.thresholds,
        "contrast": model.config.contrast,
        "covariates": graph.covariates,
        "versions": versions() | {package: metadata.version(package) for package in packages},
    }
    texts = {
        name: said if isinstance(said, str) else json.dumps(said) for name, said in about.items()
    }
    helper.set_model_props(written, texts)
