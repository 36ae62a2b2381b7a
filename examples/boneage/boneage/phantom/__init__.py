"""A seeded generator of pediatric hand radiographs with age, sex and true boxes.

Each picture is drawn from an anatomy (``anatomy``, ``ossification``) whose regions show an age of
their own (``ages``), as shapes with a thickness (``shapes``), put on a film with the accidents of
real ones (``film``, ``radiograph``), and written in the layout of the RSNA data (``dataset``).
It needs numpy and scipy, and Pillow to write files.

Four variants. ``default``: the carpals know the age best, then the metacarpals, then the forearm
and the phalanges. ``swapped``: the carpals and the metacarpals exchange their places in that
order, all else being equal, so a method that looks at the middle of the picture fails here.
``no-age``: the bones show an age that has nothing to do with the label. ``shortcut``: a bar on the
marker is as long as the child is old; in all other variants its length means nothing.

The generator is frozen. It was settled by its looks and by kernel ridge regression on true crops,
without regard to any network's results, and is not to be fitted to them. A change of this package
makes new results incomparable with old ones: change :data:`PHANTOM_VERSION` with it, and run again
whatever is to be compared. :func:`fingerprint` tells the generators apart, and belongs in every
file of metrics.

Example:
    >>> from boneage.phantom import PhantomConfig, bayes_floor, generate
    >>> phantom = generate(1, config=PhantomConfig(size=(256, 192), bits=16))
    >>> phantom.image.shape, phantom.image.dtype.name
    ((256, 192), 'uint16')
    >>> all(name in phantom.boxes for name in ("Hand", "Wrist", "Metacarpal"))
    True
    >>> round(bayes_floor(["carpal"]), 1)
    3.2
"""

from .ages import REGION_SD, VARIANTS, Variant, age_prior, bayes_floor, region_sd
from .dataset import patient_seed, write_dataset
from .ossification import FUSION, ONSET
from .radiograph import Phantom, PhantomConfig, generate
from .version import PHANTOM_VERSION, fingerprint

__all__ = [
    "FUSION",
    "ONSET",
    "PHANTOM_VERSION",
    "REGION_SD",
    "VARIANTS",
    "Phantom",
    "PhantomConfig",
    "Variant",
    "age_prior",
    "bayes_floor",
    "fingerprint",
    "generate",
    "patient_seed",
    "region_sd",
    "write_dataset",
]
