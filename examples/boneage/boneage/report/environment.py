"""The templates of what is written to be read, with the words and figures that they share."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from boneage.report import wording

_FORMS = (
    wording.number,
    wording.signed,
    wording.percent,
    wording.interval,
    wording.age,
    wording.duration,
    wording.division,
)
_SENTENCES = (
    wording.landing,
    wording.centres,
    wording.comparison,
    wording.what_it_is,
    wording.correction,
    wording.origin,
)


def templates(package: str = "boneage.report", *, autoescape: bool) -> Environment:
    """The templates of a package; `autoescape` is for pages of HTML."""
    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for form in _FORMS:
        environment.filters[form.__name__] = form
    for sentence in _SENTENCES:
        environment.globals[sentence.__name__] = sentence
    return environment
