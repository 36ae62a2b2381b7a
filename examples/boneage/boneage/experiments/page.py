"""A table's figures as a page of Markdown and as a CSV file."""

from __future__ import annotations

from typing import Any

from boneage.experiments.writing import csv_text, heading, markdown_row, picture
from boneage.report.wording import FOUND, NOTHING, duration, interval, number, percent

_COLUMNS = (
    *("label", "series", "published", "mae", "floor", "constant", "rmse", "cs6", "cs12", "crps"),
    *("sd", "coverage90", "width90", "validation_mae", "seconds"),
)
_GAINS = ("gain_on_first", "gain_on_partner", "gain_on_varied")
_ENDS = ("", "_low", "_high")
_NONE: dict[str, Any] = {"gain": None, "interval": (None, None)}


def write_csv(results: dict[str, Any]) -> str:
    """One line a row: its figures, the errors of its seeds, and its gain on the first row."""
    header = (*_COLUMNS, "seeds_mae", *(f"{name}{end}" for name in _GAINS for end in _ENDS))
    return csv_text(header, map(_csv_row, results["rows"]))


def _csv_row(row: dict[str, Any]) -> tuple[Any, ...]:
    seeds = " ".join(f"{error:.3f}" for error in row.get("seeds_mae", ()))
    gains = [row.get(name) or _NONE for name in _GAINS]
    told = [end for gain in gains for end in (gain["gain"], *gain["interval"])]
    return (*map(row.get, _COLUMNS), seeds, *told)


def write_page(results: dict[str, Any]) -> str:
    """The page: where the figures come from, the paper's beside ours, and the figure."""
    data = results["data"]
    used = ", ".join(f"{part} {data['parts'][part]}" for part in ("train", "validation", "test"))
    lines = [
        *heading(results),
        f"{data['name']}, {data['images']} images ({used}); age networks from "
        f"{_seeds(results['seeds'])}, on regions that were found once, by networks "
        f"from seed {results['seed']}. Mean absolute errors of the test images in months, means "
        f"over the seeds; {_constant(results['rows'])}. What the paper has published was measured "
        "on other data: 500 radiographs of RSNA's training set, at full size.",
        "",
        *_table(results["rows"]),
        "",
        picture(results),
        "",
        *([results["said"], ""] if results["said"] else []),
        *_choice(results),
        *_not_found(results),
        "Gain: how many months less a row errs than the first row of the same data; in its row, "
        "than the same label in the first series; as a variation, than the row of the same series "
        "that is named. Differences are paired over the images, with 95% bootstrap intervals, "
        "which say how much the images decide, not how much the seeds do. In brackets behind the "
        "share of 90% intervals that hold the age: their mean width in months. The validation "
        "images choose epochs, and fit what corrects.",
    ]
    reasons = sorted({row["missing"] for row in results["rows"] if row["missing"]})
    lines += ["", *(f"Not trained: {reason}." for reason in reasons)] if reasons else []
    return "\n".join(lines) + "\n"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _constant(rows: list[dict[str, Any]]) -> str:
    """What one age for all comes to, on each data set."""
    errors = sorted({round(row["constant"], 1) for row in rows if row.get("constant")})
    told = " to ".join(number(error, 1) for error in errors[:: max(1, len(errors) - 1)])
    return f"one age for all, the median of the training images, errs by {told}"


def _choice(results: dict[str, Any]) -> list[str]:
    """What the row that the validation images have chosen saves of the first one's error."""
    if results.get("chosen") is None:
        return []
    first = results["rows"][0]
    best = next(row for row in results["rows"] if row["label"] == results["chosen"])
    gain = best["gain_on_first"]
    told = f"The validation images find {best['label']} best"
    if gain is None:
        return [f"{told}.", ""]
    saved, low, high = (value / first["mae"] for value in (gain["gain"], *gain["interval"]))
    return [
        f"{told}: on the test images it saves {percent(saved)} of the error of {first['label']} "
        f"({percent(low)} to {percent(high)}).",
        "",
    ]


def _not_found(results: dict[str, Any]) -> list[str]:
    """Of which regions a row has not seen all, but the whole image in their place."""
    lines = []
    for row in results["rows"]:
        counts = row.get("whole_image_instead", {})
        told = [f"{FOUND[name]} in {count}" for name, count in counts.items()]
        if told:
            series = f" ({row['series']})" if row["series"] else ""
            lines.append(f"{row['label']}{series}: {', '.join(told)}")
    if not lines:
        return []
    total = results["data"]["images"]
    return [
        f"Where a region was not found, the whole image stands for it; of {total} images: "
        f"{'; '.join(lines)}.",
        "",
    ]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    series = list(dict.fromkeys(row["series"] for row in rows))
    paired = any(row.get("gain_on_partner") for row in rows)
    varied = any(row.get("gain_on_varied") for row in rows)
    published = any(row["published"] for row in rows)
    words = ["", *(["series"] if any(series) else [])]
    floor = any(row.get("floor") for row in rows)
    numbers = [*(["paper"] if published else []), "MAE", *(["floor"] if floor else [])]
    numbers += [
        "of each seed",
        "within 12",
        "CRPS",
        "sd",
        "90% hold (width)",
        "gain",
        *(["in its row"] if paired else []),
        *(["as a variation"] if varied else []),
        "training time",
    ]
    lines = [
        markdown_row(*words, *numbers),
        "|---" * len(words) + "|---:" * len(numbers) + "|",
    ]
    for row in rows:
        cells = [row["label"], *([row["series"]] if any(series) else [])]
        cells += [number(row["published"])] if published else []
        cells += ["not trained"] if row["missing"] else _measured(row, floor, paired, varied)
        cells += [NOTHING] * (len(words) + len(numbers) - len(cells))
        lines.append(markdown_row(*cells))
    return lines


def _measured(row: dict[str, Any], floor: bool, paired: bool, varied: bool) -> list[str]:
    return [
        f"**{number(row['mae'], 2)}**",
        *([number(row["floor"], 1)] if floor else []),
        ", ".join(number(error, 2) for error in row["seeds_mae"]),
        percent(row["cs12"]),
        number(row["crps"], 2),
        number(row["sd"], 1),
        _intervals(row),
        _gain(row["gain_on_first"]),
        *([_gain(row["gain_on_partner"])] if paired else []),
        *([_gain(row["gain_on_varied"], row["varies"])] if varied else []),
        duration(row["seconds"]),
    ]


def _intervals(row: dict[str, Any]) -> str:
    """How many of the 90% intervals hold the age, and how wide they are in months."""
    if row["coverage90"] is None:
        return NOTHING
    return f"{percent(row['coverage90'])} ({number(row['width90'], 0)})"


def _gain(gain: dict[str, Any] | None, on: str = "") -> str:
    if gain is None:
        return NOTHING
    told = f"{number(gain['gain'], 2)} ({interval(gain['interval'], 2)})"
    return f"{told} on {on}" if on else told
