"""Whether an ONNX file says what the predictor says that it was made from."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
from ldlcam import Bins

from boneage.data.contrast import even_contrast
from boneage.data.dicom import Film
from boneage.errors import UserError
from boneage.phantom import PhantomConfig, generate
from boneage.predictor import SIGNS, Predictor

Answer = dict[str, np.ndarray]
"""What is said of one image, by the names of the outputs."""
Covariates = tuple[float, ...]
"""What is told of one patient beside the sex, NaN for unknown; empty if nothing is known."""

# Portrait and landscape, and the sex that each one is read with. They have 16 bits: of 8, whole
# areas can lie midway between two of the networks' greys and fall to either by the last rounding.
_DRAWN = (((640, 480), True), ((333, 517), False), ((1000, 850), None))
# A few times what roundings come to: a box that lies a thousandth of a pixel elsewhere turns the
# rounding of one in a hundred greys of its crop. Months are a part of the bins' range.
_MOST = {"months": 2e-3, "interval": 1e-2, "probabilities": 2e-3, "boxes": 0.5, "valid": 0}
_IN_MONTHS = ("months", "interval")
# In deviations from the mean; of each drawing, and of each covariate, another.
_COVARIATES = (1.0, -1.0, math.nan)


class Session:
    """A file, asked by onnxruntime."""

    def __init__(self, file: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.runtime = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )

    def answer(
        self, name: str, pixels: np.ndarray, male: bool | None, covariates: Covariates = ()
    ) -> Answer:
        """What the file says of an image (H, W), float32 in [0, 1]."""
        feeds = {
            "image": pixels,
            "sex": np.array(SIGNS[male], dtype=np.float32),
            "seed": np.array(zlib.crc32(name.encode())),
        }
        if covariates:
            feeds["covariates"] = np.array(covariates, dtype=np.float32)
        names = [output.name for output in self.runtime.get_outputs()]
        return dict(zip(names, self.runtime.run(names, feeds), strict=True))


def answer(
    predictor: Predictor,
    name: str,
    pixels: np.ndarray,
    male: bool | None,
    covariates: Covariates = (),
) -> Answer:
    """What the predictor says of an image (H, W), float32 in [0, 1]."""
    film = Film(even_contrast(pixels, predictor.config.contrast), male)
    (reading,) = predictor.read([name], [film], [covariates])
    said = {
        "months": np.array(reading.months),
        "interval": np.array([reading.low, reading.high]),
        "boxes": np.array(list(reading.boxes.values())),
        "valid": np.array(list(reading.found.values())),
    }
    if reading.distribution is not None:
        said["probabilities"] = reading.distribution.probs.numpy()
    return said


def compare(file: Path, predictor: Predictor, bins: Bins) -> dict[str, float]:
    """Ask a file and the predictor that it was made from about drawn radiographs.

    Args:
        file: The ONNX file.
        predictor: The predictor.
        bins: The ages that can be told, which say what a large difference is.

    Returns:
        The largest difference of each output: pixels, months, probabilities.

    Raises:
        UserError: If one is larger than roundings make it.
    """
    session = Session(file)
    largest: dict[str, float] = {}
    for seed, (size, male) in enumerate(_DRAWN):
        pixels = generate(seed, config=PhantomConfig(size, bits=16)).image / np.float32(65535)
        asked = str(seed), pixels, male, _covariates(predictor, seed)
        said = session.answer(*asked)
        for output, expected in answer(predictor, *asked).items():
            gap = _difference(said[output], expected)
            largest[output] = max(gap, largest.get(output, 0.0))
    for output, gap in largest.items():
        most = _MOST[output] * (bins.last - bins.first if output in _IN_MONTHS else 1)
        if gap > most:
            raise UserError(
                f"{output}: the graph's differ from the predictor's by {gap:.3g}, where "
                f"roundings come to {most:.3g} at most; no file was written"
            )
    return largest


def _covariates(predictor: Predictor, seed: int) -> Covariates:
    """What is told of a drawing: numbers like those of training, and some that are unknown."""
    network = next(iter(predictor.networks.values()))
    known = zip(network.standardize.mean, network.standardize.deviation, strict=True)
    return tuple(
        (mean + _COVARIATES[(seed + place) % len(_COVARIATES)] * deviation).item()
        for place, (mean, deviation) in enumerate(known)
    )


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest; what neither knows (NaN) is no difference."""
    unknown = np.isnan(one), np.isnan(other)
    if not np.array_equal(*unknown):
        return math.inf
    gaps = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(gaps[~unknown[0]].max(initial=0))
