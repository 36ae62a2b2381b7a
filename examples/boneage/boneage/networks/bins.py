"""The bins of the ages, from their range in the configuration."""

from ldlcam import Bins

from boneage.config import BinRange


def make_bins(config: BinRange) -> Bins:
    """Bins of so many months, both ends included."""
    return Bins(config.first, config.last, config.step, unit="months")
