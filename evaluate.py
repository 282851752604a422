"""Evaluate a checkpoint: `python evaluate.py ckpt=runs/demo/checkpoints/best.ckpt`, or one of the model zoo by its name
(`ckpt=coco_resnet50`)."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.utils.data import Subset

from kmax.callbacks import Gallery, PredictionWriter, Progress
from kmax.categories import Categories
from kmax.config.build import build_datamodule, build_metrics, build_trainer
from kmax.config.compose import command_line, read_options, register
from kmax.config.evaluation import evaluation_options
from kmax.config.explain import run_or_explain
from kmax.config.folder import shown
from kmax.config.options import EvaluateOptions
from kmax.config.trained import load_trained
from kmax.console import plain
from kmax.data.datamodule import PanopticDataModule
from kmax.files import Json, replacing
from kmax.metrics import Report
from kmax.module import KMaXModule
from kmax.options import to_plain
from kmax.results.submission import write_submission
from kmax.visualization import draw_bars, draw_confusion, legible_names

register()

TITLES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_pq": "boundary PQ"}
ONLY_OVERALL = ("pixel_accuracy", "ap75", "ap_small", "ap_medium", "ap_large")  # a line of their own under the table
ONLY_IN_FILES = ("boundary_sq", "boundary_rq", "boundary_tp", "boundary_fp", "boundary_fn")


def title(name: str) -> str:
    """The name of a number in a table."""
    return TITLES.get(name, name.upper() if "_" not in name else "AP " + name.removeprefix("ap_"))


def cell(value: object) -> str:
    """A number in a table: counts as integers, qualities with two digits, missing values as a dash."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, (int, str)) else f"{value:.2f}"


def print_table(report: Report) -> None:
    """All classes, things, stuff and each class that occurs; qualities in percent."""
    columns = [name for name in report.columns() if name not in (*ONLY_OVERALL, *ONLY_IN_FILES)]
    table = Table("", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(title(name), justify="right")
    for row in report.rows():
        table.add_row(Text(plain(row["name"])), *(cell(row[name]) if name in row else "" for name in columns))
    needed = Console(width=1000).measure(table).maximum  # a narrow terminal wraps lines instead of losing numbers
    Console(width=max(Console().width, needed)).print(table)
    further = [f"{title(name)} {cell(report.all[name])}" for name in ONLY_OVERALL if name in report.all]
    if further:
        print(" · ".join(further))


def save(report: Report, folder: Path, about: Json) -> Path:
    """Write metrics.json, with `about` on top, and metrics.csv, each completely or not at all."""
    target = folder / "metrics.json"
    for final, write in ((target, _write_json), (folder / "metrics.csv", _write_csv)):
        with replacing(final) as path:
            write(report, path, about)
    return target


def _write_json(report: Report, path: Path, about: Json) -> None:
    text = json.dumps({**about, **report.to_dict()}, indent=1, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def _write_csv(report: Report, path: Path, about: Json) -> None:
    groups = [{"name": name, **getattr(report, name)} for name in ("all", "things", "stuff")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", *report.columns()])
        writer.writeheader()
        writer.writerows(groups + report.per_class)


def has_ground_truth(row: dict[str, Any]) -> bool:
    """Whether a class occurs in the ground truth; a row without counts of segments has no number where it does not."""
    return "tp" not in row or row["tp"] + row["fn"] > 0


def save_charts(report: Report, name: str, categories: Categories, folder: Path) -> None:
    """Draw the metric `name` of each class, and the confusion matrix of the classes, as PNG, if they are available."""
    names = legible_names(categories)
    named = zip(names, report.per_class, strict=True)
    values = {label: row[name] for label, row in named if row.get(name) is not None and has_ground_truth(row)}
    colors = dict(zip(names, (category.color for category in categories.classes), strict=True))
    charts = {"classes": draw_bars(values, f"{title(name)} by class, in percent", colors)} if values else {}
    if report.confusion is not None and report.confusion.any():
        true = report.confusion.sum(1).nonzero()[0]  # a class that is predicted alone has a column, but no row
        found = np.union1d(true, report.confusion.sum(0).nonzero()[0])
        rows, columns = ([names[label] for label in labels] for labels in (true, found))
        counts = report.confusion[np.ix_(true, found)]
        charts["confusion"] = draw_confusion(counts, rows, "Pixels of each true class, in percent", None, columns)
    for chart, image in charts.items():
        with replacing(folder / f"{chart}.png") as path:
            Image.fromarray(image).save(path)


def use_first_images(datamodule: PanopticDataModule, limit: int) -> None:
    """Evaluate on the first `limit` images, on any number of devices."""
    make = datamodule.val

    def first() -> Any:
        dataset: Any = make()
        return Subset(dataset, range(min(limit, len(dataset))))

    datamodule.val = first


def submit(predictions: Path, name: str, output: Path) -> Path:
    """Make the zip for an evaluation server from saved predictions; returns it."""
    annotations = json.loads((predictions / "panoptic.json").read_bytes())["annotations"]
    return write_submission(annotations, predictions / "panoptic", name, output)


def evaluate(config: DictConfig) -> float:
    """Validate a checkpoint on its own dataset, or the one that `dataset.…` overrides; return PQ in percent, or the
    first number measured if PQ is not."""
    output = Path(HydraConfig.get().runtime.output_dir)
    wanted = read_options(EvaluateOptions, config)
    trained = load_trained(wanted.ckpt)
    options = evaluation_options(trained.options, wanted)
    categories = trained.categories
    module = KMaXModule(trained.model, categories, options.inference, metrics=build_metrics(options, categories))
    writer = [PredictionWriter(output / "predictions")] if wanted.save_predictions else []
    heading = f"{plain(wanted.ckpt)} on {plain(options.dataset.name)}"
    gallery = [Gallery(output / "gallery.html", wanted.gallery_images, heading)] if wanted.gallery else []
    progress = [Progress()] if options.trainer.enable_progress_bar else []
    trainer = build_trainer(options, callbacks=[*writer, *gallery, *progress], logger=False)
    datamodule = build_datamodule(options, categories)
    if wanted.limit is not None:
        use_first_images(datamodule, wanted.limit)
    rank_zero_only(print)(f"checkpoint {heading}", flush=True)
    trainer.validate(module.eval(), datamodule, verbose=False)
    report = module.result
    assert report is not None, "validation sets a result"
    name = "pq" if "pq" in report.all else next(iter(report.all))
    if trainer.is_global_zero:
        about = {"ckpt": wanted.ckpt, "dataset": options.dataset.name, "inference": to_plain(options.inference)}
        path = save(report, output, about)
        save_charts(report, name, categories, output)
        print_table(report)
        if wanted.submission is not None:
            print(shown(submit(output / "predictions", wanted.submission, output)))
        print(f"{title(name)} {cell(report.all[name])} · {shown(path)}")
        for page in gallery:
            print(f"worst images · {shown(page.path)}")
    return float(report.all[name] or 0.0)


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(config: DictConfig) -> float:
    """The command line: one checkpoint in, one number out."""
    return run_or_explain(evaluate, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "evaluate", __doc__ or "")
    main()
