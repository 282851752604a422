"""The prepared folder: where its files are, and what an earlier run wrote there."""

from __future__ import annotations

import json
from pathlib import Path

from kmax.files import Json

PREPARED_BY = "kmax prepare_own"
SPLITS = ("train", "val")


def annotation_file(root: Path, split: str) -> Path:
    """The JSON of a split."""
    return root / "annotations" / f"panoptic_{split}.json"


def entries(root: Path, split: str) -> Json:
    """The entries of an earlier JSON for each image, by its path below the root; nothing if the file is damaged."""
    try:
        content = json.loads(annotation_file(root, split).read_bytes())
        annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        return {
            f"{split}/{image['file_name']}": {
                "digest": image["origin"]["digest"],
                "image": image,
                "annotation": annotations[image["id"]],
            }
            for image in content["images"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def earlier_info(root: Path) -> Json | None:
    """The `info` of an earlier result; None if there is none."""
    for split in SPLITS:
        file = annotation_file(root, split)
        if file.is_file():
            try:
                content = json.loads(file.read_bytes())
            except ValueError:
                return {}
            return dict(content.get("info") or {}) if isinstance(content, dict) else {}
    return None
