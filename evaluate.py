"""Evaluate a checkpoint: `python evaluate.py ckpt=runs/demo/checkpoints/best.ckpt`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.table import Table

from kmax.build import module_from_checkpoint
from kmax.callbacks import PredictionWriter
from kmax.config import build_datamodule, build_trainer, evaluation_config, register, resolve, run_or_explain
from kmax.metrics import PanopticQualityResult

register()


def print_table(result: PanopticQualityResult, names: tuple[str, ...]) -> None:
    """Panoptic quality of all, things, stuff and each class that occurs, in percent."""
    table = Table("", "PQ", "SQ", "RQ", "TP", "FP", "FN")
    for row in result.rows(names):
        table.add_row(row.name, *(f"{v:.2f}" for v in (row.pq, row.sq, row.rq)), *map(str, (row.tp, row.fp, row.fn)))
    Console().print(table)


def evaluate(config: Any) -> float:
    """Validate a checkpoint on its own dataset, or the one that `dataset.…` overrides; return PQ in percent."""
    output = Path(HydraConfig.get().runtime.output_dir)
    merged = evaluation_config(resolve(config))
    module = module_from_checkpoint(config.ckpt, merged)
    writer = [PredictionWriter(output / "predictions")] if config.save_predictions else []
    trainer = build_trainer(merged, callbacks=writer, logger=False, limit_val_batches=config.limit)
    trainer.validate(module, build_datamodule(merged), verbose=False)
    result = module.result
    assert result is not None, "validation leaves a result behind"
    if trainer.is_global_zero:
        print_table(result, module.categories.names)
        output.mkdir(parents=True, exist_ok=True)
        (output / "metrics.json").write_text(json.dumps({"ckpt": config.ckpt, **asdict(result)}, indent=1))
        print(f"PQ {result.all.pq:.2f} · {output / 'metrics.json'}")
    return result.all.pq


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
def main(config: Any) -> float:
    """The command line: one checkpoint in, one number out."""
    return run_or_explain(evaluate, config)


if __name__ == "__main__":
    main()
