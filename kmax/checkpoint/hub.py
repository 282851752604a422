"""Checkpoints of ours as model repositories of a hub."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
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
from kmax.files import replacing

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


def card_text(checkpoint: CheckpointDict) -> str:
    """The text of a checkpoint's model card: where converted weights come from, under which license and with which
    published numbers, or which of our experiments trained them."""
    source = checkpoint.get(SOURCE_KEY)
    if source is None:
        config = checkpoint[CONFIG_KEY]
        return (
            f"A mask transformer for panoptic segmentation, trained with kmax on {config['dataset']['name']}.\n{_USE}"
        )
    lines = [
        "A mask transformer for panoptic segmentation: published weights, converted for kmax and not trained by it.",
        "",
    ]
    lines += [f"- model: {source['model']}"]
    lines += [f"- {key}: {source[key]}" for key in ("url", "source", "file", "paper", "license") if source.get(key)]
    if source.get("published"):
        numbers = ", ".join(f"{name} {value}" for name, value in source["published"].items())
        lines += [f"- published numbers ({source['evaluated_on']}): {numbers}"]
    return "\n".join(lines) + f"\n{_USE}"


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
    """

    def __init__(self, checkpoint: CheckpointDict) -> None:
        self.checkpoint = checkpoint

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> SharedModel:
        """The content of a file of ours.

        Raises:
            FileNotFoundError, ValueError: as `read_checkpoint`.
        """
        return cls(read_checkpoint(path))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that goes into the repository's README.md."""
        data = copy.deepcopy(self._hub_mixin_info.model_card_data)
        terms = self.checkpoint.get(SOURCE_KEY, {}).get("license")
        if terms:
            data.license = "apache-2.0" if terms == "Apache-2.0" else "other"
        card: ModelCard = ModelCard.from_template(data, template_str=_TEMPLATE, text=card_text(self.checkpoint))
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
