"""The paper's tables and figures: from what is missing of them to their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from boneage.config import Config
from boneage.errors import UserError
from boneage.experiments import distributions, pictures, thresholds
from boneage.experiments.attention import CLAIMS, claim_csv, claim_page, draw_claim, train_row
from boneage.experiments.figure import draw_table
from boneage.experiments.networks import Network, beside_others, localize
from boneage.experiments.page import write_csv, write_page
from boneage.experiments.results import Figures, summarize
from boneage.experiments.rows import EXPERIMENTS, Row
from boneage.networks.backbones import MissingWeights, check_backbone
from boneage.pipeline import open_folder, write_config
from boneage.run_folder import atomic_path, write_json
from boneage.stages.plan import RunStages, make_data_key, plan_keyed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How the page and the CSV file of those are written that do not compare age networks.
WRITERS: dict[str, tuple[Callable[[Figures], str], Callable[[Figures], str]]] = {
    "table-1": (thresholds.threshold_page, thresholds.threshold_csv),
    "figure-4": (distributions.learned_page, distributions.learned_csv),
    **dict.fromkeys(("figure-1", "figure-3"), (pictures.pictures_page, pictures.pictures_csv)),
    **{f"claim-{name}": (claim_page, claim_csv) for name in CLAIMS},
}
# Where only regions are found, no model is to ask for one that is not.
_NO_AGES = {
    "training.models": [{"name": "O", "regions": ["whole"]}],
    "reading.ensembles": {},
}


@dataclass(frozen=True)
class Paper:
    """Where the tables and figures of one configuration are made.

    Attributes:
        config: The configuration that rows of tables change.
        folder: Where everything is written; what one table has trained the others find there.
        console: Where progress is shown.
        command: The command that asked, for the pages.
    """

    config: Config
    folder: Path
    console: Console
    command: str

    @cached_property
    def data(self) -> Path:
        """The folder of the radiographs, once what can be checked has been."""
        data = open_folder(self.config, self.config.backbones, self.folder, self.console)
        write_config(self.config, self.folder)
        return data

    @cached_property
    def data_key(self) -> str:
        """The key of the data set, which takes a while to read."""
        return make_data_key(self.config, self.data)

    @cached_property
    def found(self) -> RunStages:
        """The stages of the configuration as it is, its regions found."""
        return self._find({})

    def _find(self, changes: Mapping[str, Any]) -> RunStages:
        config = self.config.changed({**changes, **_NO_AGES})
        stages = plan_keyed(config, beside_others(self.folder), self.data_key)
        localize(config, self.data, stages, self.folder, self.console)
        return stages

    def table(self, number: int) -> None:
        """Make Table I to V."""
        if number == 1:
            thresholds.check_boxes(self.data)
            found = {way: self._find(own) for way, own in thresholds.WAYS.items()}
            results = thresholds.threshold_table(self.config, found)
            self._write(results, thresholds.draw_thresholds)
        else:
            self._compare(f"table-{number}")

    def figure(self, number: int) -> None:
        """Make Figure 1, 3, 4 or 5."""
        if number == 4:
            results = distributions.learned(self.config, self._learned())
            self._write(results, distributions.draw_learned)
        elif number == 5:
            for part in ("figure-5a", "figure-5b"):
                self._compare(part)
        else:
            results = pictures.pictured(self.config, self.found, number)
            draw = partial(pictures.draw_pictured, self.config, self.data, self.found)
            self._write(results, draw)

    def claim(self, name: str) -> None:
        """Look into what the paper says beside its tables."""
        if name not in CLAIMS:
            self._compare(f"claim-{name}")
            return
        claim = CLAIMS[name](self.config)
        at = self.config, self.folder, self.data, self.data_key, self.console
        rows = [train_row(claim, row, *at) for row in claim.rows]
        self._write(claim.described() | {"rows": rows}, draw_claim)

    def _compare(self, name: str) -> None:
        """Train what is missing of a table of networks, and write it."""
        experiment = EXPERIMENTS[name](self.config)
        # All of them before the first is trained.
        configs = [row.config(self.config, seed=0) for row in experiment.rows]
        for backbone in {config.training.backbone for config in configs}:
            check_backbone(backbone)
        trained, missing = zip(*map(self._train, experiment.rows), strict=True)
        if not any(trained):
            raise UserError(f"{experiment.title}: nothing could be trained: {missing[0]}")
        results = summarize(experiment, trained, missing, self.config)
        self._write(results, draw_table)

    def _train(self, row: Row) -> tuple[list[Figures], str | None]:
        """The figures of a row's networks; or none, and why they cannot be trained."""
        self.console.rule(f"{row.label} {row.series}", align="left")
        try:
            seeds = self.config.experiments.seeds
            data = self._drawing(row).data
            return [self._network(row, seed).train(data, self.console) for seed in seeds], None
        except MissingWeights as error:
            self.console.print(f"[yellow]not trained:[/] {escape(str(error))}")
            return [], str(error)

    def _network(self, row: Row, seed: int) -> Network:
        return Network.of(row, seed, self.config, self.folder, self._drawing(row).data_key)

    def _drawing(self, row: Row) -> Paper:
        """This one, or for a row on a phantom of its own, one with that."""
        own = {name: value for name, value in row.changes.items() if name.startswith("phantom.")}
        config = self.config.changed(own)
        if config == self.config:
            return self
        name = "-".join(map(_in_a_name, own.values()))
        folder = self.folder / name
        return self._others.setdefault(name, replace(self, config=config, folder=folder))

    @cached_property
    def _others(self) -> dict[str, Paper]:
        return {}

    def _learned(self) -> dict[float, Network]:
        """Networks that see the hand, by the weight of the divergence, from the first seed."""
        weights = distributions.spread(self.config.experiments.lambdas)
        networks = {}
        for row in EXPERIMENTS["figure-5b"](self.config).rows:
            if row.series == "H" and row.at in weights:
                networks[row.at] = self._network(row, self.config.experiments.seeds[0])
                networks[row.at].run(self.data, self.console)
        return networks

    def _write(self, results: Figures, draw: Callable[[Figures], Figure]) -> None:
        """Write the figures as JSON, as a page, as a CSV file, and drawn."""
        results["command"] = self.command
        name = results["name"]
        page, table = WRITERS.get(name, (write_page, write_csv))
        write_json(self.folder / f"{name}.json", results)
        self._write_text(f"{name}.md", page(results))
        self._write_text(f"{name}.csv", table(results))
        path = self.folder / f"{name}.png"
        figure = draw(results)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
        self.console.print(f"figure: {escape(str(path))}")

    def _write_text(self, name: str, text: str) -> None:
        path = self.folder / name
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self.console.print(f"table: {escape(str(path))}")


def _in_a_name(value: Any) -> str:
    """A variant as it is, a size as 512x384."""
    return value if isinstance(value, str) else "x".join(map(str, value))
