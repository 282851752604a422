"""Checkpoints of ours as model repositories of a hub."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME

from kmax.checkpoint.own import (
    CATEGORIES_KEY,
    CONFIG_KEY,
    FILE_IN_FOLDER,
    SOURCE_KEY,
    CheckpointDict,
    read_checkpoint,
    write_checkpoint,
)
from kmax.files import Json, replacing

_TEMPLATE = """---
{{ card_data }}
---

{{ text }}
"""
_USE = """
The weights carry their configuration and classes:

    python scripts/hub.py pull REPOSITORY model.safetensors
    python evaluate.py ckpt=model.safetensors

    kmax.Predictor.from_checkpoint("model.safetensors")("image.jpg")
"""


SHOWN_METRICS = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "miou": "mIoU", "ap": "AP", "boundary_pq": "boundary PQ"}
"""What a card shows of the numbers that `evaluate.py` measured, and under which names."""


@dataclass(frozen=True)
class CardInfo:
    """What a card tells that the checkpoint does not: the `license` (an identifier of the hub, e.g. apache-2.0), and
    `metrics`, the content of the metrics.json that `evaluate.py` wrote for it."""

    license: str | None = None
    metrics: Json | None = None

    def __post_init__(self) -> None:
        if self.metrics is not None and not isinstance(self.metrics.get("all"), Mapping):
            raise ValueError("The metrics of a card are the content of a metrics.json that evaluate.py wrote.")

    @property
    def measured(self) -> dict[str, float]:
        """The numbers that are shown, in percent."""
        numbers = self.metrics["all"] if self.metrics else {}
        return {title: numbers[key] for key, title in SHOWN_METRICS.items() if numbers.get(key) is not None}


def card_text(checkpoint: CheckpointDict, info: CardInfo = CardInfo()) -> str:
    """The text of a checkpoint's model card: where converted weights come from, under which license and with which
    published numbers, or which of our experiments trained them; then what was measured, the classes, and the use."""
    return "\n".join([_origin(checkpoint), *_measured(info), *_classes(checkpoint[CATEGORIES_KEY])]) + f"\n{_USE}"


def _measured(info: CardInfo) -> list[str]:
    """A table of the numbers, if there are any."""
    numbers = info.measured
    if not numbers or info.metrics is None:
        return []
    head, line = " | ".join(numbers), " | ".join("---" for _ in numbers)
    values = " | ".join(f"{value:.2f}" for value in numbers.values())
    return ["", f"Measured on {info.metrics.get('dataset')}:", "", f"| {head} |", f"| {line} |", f"| {values} |"]


def _classes(categories: Json) -> list[str]:
    """The names of things and stuff."""
    lines = [""]
    for kind, is_thing in (("things", True), ("stuff", False)):
        names = [str(c["name"]) for c in categories["classes"] if bool(c["isthing"]) == is_thing]
        if names:
            lines.append(f"- {len(names)} {kind}: {', '.join(names)}")
    return lines


def _origin(checkpoint: CheckpointDict) -> str:
    """Which of our experiments trained the weights, or where converted ones come from."""
    source = checkpoint.get(SOURCE_KEY)
    if source is None:
        config = checkpoint[CONFIG_KEY]
        return f"A mask transformer for panoptic segmentation, trained with kmax on {config['dataset']['name']}."
    lines = [
        "A mask transformer for panoptic segmentation: published weights, converted for kmax and not trained by it.",
        "",
    ]
    lines += [f"- model: {source['model']}"]
    lines += [f"- {key}: {source[key]}" for key in ("url", "source", "file", "paper", "license") if source.get(key)]
    if source.get("published"):
        numbers = ", ".join(f"{name} {value}" for name, value in source["published"].items())
        lines += [f"- published numbers ({source['evaluated_on']}): {numbers}"]
    return "\n".join(lines)


def _results(info: CardInfo) -> list[EvalResult]:
    """The numbers as the hub lists them."""
    dataset = str((info.metrics or {}).get("dataset"))
    return [
        EvalResult("image-segmentation", dataset, dataset, title.lower().replace(" ", "_"), value, metric_name=title)
        for title, value in info.measured.items()
    ]


class SharedModel(
    ModelHubMixin,
    library_name="kmax",
    tags=["panoptic-segmentation", "kmax-deeplab"],
    pipeline_tag="image-segmentation",
    paper_url="https://arxiv.org/abs/2207.04044",
    model_card_template=_TEMPLATE,
):
    """A checkpoint that goes to a hub (`push_to_hub`), comes from one (`from_pretrained`), or is a local folder
    (`save_pretrained`, `from_pretrained`). The folder itself can also be used wherever a checkpoint is expected.

    Args:
        checkpoint: `state_dict`, `kmax_config`, `kmax_categories`, as `read_checkpoint` returns them.
        info: what else the card tells.
    """

    def __init__(self, checkpoint: CheckpointDict, info: CardInfo = CardInfo()) -> None:
        self.checkpoint, self.info = checkpoint, info

    @classmethod
    def from_checkpoint(cls, path: str | Path, info: CardInfo = CardInfo()) -> SharedModel:
        """The content of a file of ours.

        Raises:
            FileNotFoundError, ValueError: as `read_checkpoint`.
        """
        return cls(read_checkpoint(path), info)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that goes into the repository's README.md."""
        data = copy.deepcopy(self._hub_mixin_info.model_card_data)
        terms = self.checkpoint.get(SOURCE_KEY, {}).get("license")
        if terms:
            data.license = "apache-2.0" if terms == "Apache-2.0" else "other"
        elif self.info.license:
            data.license = self.info.license
        if self.info.metrics is not None:
            data.model_name, data.eval_results = "kmax", _results(self.info)
        text = card_text(self.checkpoint, self.info)
        card: ModelCard = ModelCard.from_template(data, template_str=_TEMPLATE, text=text)
        return card

    def _save_pretrained(self, save_directory: Path) -> None:
        write_checkpoint(save_directory / FILE_IN_FOLDER, self.checkpoint)
        carried = {key: self.checkpoint[key] for key in (CONFIG_KEY, CATEGORIES_KEY)}
        text = json.dumps(carried, indent=1)
        with replacing(save_directory / CONFIG_NAME) as file:
            file.write_text(text, encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> SharedModel:
        if Path(model_id).is_dir():
            return cls.from_checkpoint(model_id)
        file = hf_hub_download(
            model_id,
            FILE_IN_FOLDER,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.from_checkpoint(file)
