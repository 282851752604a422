"""Checkpoints go to a hub and come back; here the hub is a local folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from kmax.checkpoint.hub import CardInfo, SharedModel, card_text
from kmax.checkpoint.own import SOURCE_KEY, read_checkpoint, write_checkpoint
from kmax.checkpoint.published import published
from kmax.config.trained import load_trained
from scripts import hub as script


def command(*arguments: Any) -> None:
    script.run(script.parse([str(a) for a in arguments]))


@pytest.mark.long
def test_push_and_pull(tiny_checkpoint: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    command("push", tiny_checkpoint, repository)
    assert {f.name for f in repository.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((repository / "config.json").read_text())
    assert config["kmax_config"]["dataset"]["name"] == "shapes"
    assert "kmax.Predictor.from_checkpoint" in (repository / "README.md").read_text()
    trained = read_checkpoint(tiny_checkpoint)
    for name in ("pulled.ckpt", "pulled.safetensors"):
        command("pull", repository, tmp_path / name)
        pulled = read_checkpoint(tmp_path / name)
        assert pulled["kmax_config"] == trained["kmax_config"]
        assert all(torch.equal(pulled["state_dict"][key], value) for key, value in trained["state_dict"].items())
    assert load_trained(repository).categories.name == "shapes", "the folder is a checkpoint itself"
    assert SharedModel.from_pretrained(repository).checkpoint["kmax_categories"] == trained["kmax_categories"]


def test_a_real_repository_is_asked_for_by_the_hubs_client(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the transfer: the client is replaced by the folder that it would have filled."""
    command("push", tiny_checkpoint, tmp_path / "hub")
    monkeypatch.setattr("kmax.checkpoint.hub.hf_hub_download", lambda repo, file, **_: str(tmp_path / "hub" / file))
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **_: str(tmp_path / "hub/config.json"))
    command("pull", "user/name", tmp_path / "pulled.ckpt")
    assert read_checkpoint(tmp_path / "pulled.ckpt")["kmax_config"]["dataset"]["name"] == "shapes"
    uploads: list[Any] = []

    def push(self: SharedModel, *arguments: Any, **options: Any) -> str:
        uploads.append((arguments, options))
        return "https://hub/user/name"

    monkeypatch.setattr(SharedModel, "push_to_hub", push)
    command("push", tiny_checkpoint, "user/name", "--private")
    assert uploads == [(("user/name",), {"private": True})]


def test_what_goes_wrong_is_one_sentence(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host\nand more")

    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*nothing"):
        command("pull", tmp_path / "nothing", tmp_path / "x.ckpt")
    monkeypatch.setattr(SharedModel, "from_pretrained", fail)
    with pytest.raises(ValueError, match=r"^user/name cannot be pulled: no route to host$"):
        command("pull", "user/name", tmp_path / "x.ckpt")
    monkeypatch.setattr(SharedModel, "push_to_hub", fail)
    with pytest.raises(ValueError, match=r"cannot be pushed to user/name: no route to host$"):
        command("push", tiny_checkpoint, "user/name")
    assert not (tmp_path / "x.ckpt").exists()


@pytest.mark.long
def test_the_card_tells_where_converted_weights_come_from(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Not "trained with kmax", which they were not."""
    command("push", tiny_checkpoint, tmp_path / "own")
    own = (tmp_path / "own/README.md").read_text()
    assert "trained with kmax on shapes" in own
    assert "license" not in own
    entry = published()["coconut_s_convnext_large"]
    converted = {**read_checkpoint(tiny_checkpoint), SOURCE_KEY: entry.provenance()}
    for name in ("c.ckpt", "c.safetensors"):
        write_checkpoint(tmp_path / name, converted)
        assert read_checkpoint(tmp_path / name)[SOURCE_KEY] == entry.provenance()
        command("push", tmp_path / name, tmp_path / f"hub-{name}")
        card = (tmp_path / f"hub-{name}/README.md").read_text()
        for words in (entry.urls[0], entry.license, entry.paper, "PQ 55.9", "relabeled 64.4", "license: other"):
            assert words in card
        assert "trained with kmax" not in card
    converted = {**converted, SOURCE_KEY: published()["coco_resnet50"].provenance()}
    assert "license: apache-2.0" in str(SharedModel(converted).generate_model_card())
    about = {"model": "resnet50 (PyTorch)", "file": "mine.pth"}
    assert "- file: mine.pth" in card_text({**converted, SOURCE_KEY: about})


def test_the_card_tells_license_classes_and_what_was_measured(tiny_checkpoint: Path, tmp_path: Path) -> None:
    metrics = {"dataset": "shapes", "all": {"pq": 68.9, "sq": 84.25, "miou": None, "tp": 5}, "per_class": []}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    options = ("--license", "cc-by-4.0", "--metrics", tmp_path / "metrics.json")
    command("push", tiny_checkpoint, tmp_path / "own", *options)
    card = ModelCard.load(tmp_path / "own/README.md")
    assert card.data.license == "cc-by-4.0"
    assert {r.metric_name: r.metric_value for r in card.data.eval_results} == {"PQ": 68.9, "SQ": 84.25}
    assert {r.dataset_name for r in card.data.eval_results} == {"shapes"}
    assert "| PQ | SQ |" in card.text
    assert "| 68.90 | 84.25 |" in card.text
    assert re.search(r"- \d+ things: circle, square", card.text)
    assert re.search(r"- \d+ stuff: ", card.text)
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"other\.json is no metrics\.json of evaluate\.py"):
        command("push", tiny_checkpoint, tmp_path / "again", "--metrics", tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match=r"There is no .*nothing\.json"):
        command("push", tiny_checkpoint, tmp_path / "again", "--metrics", tmp_path / "nothing.json")
    assert not (tmp_path / "again").exists()
    converted = {**read_checkpoint(tiny_checkpoint), SOURCE_KEY: published()["coco_resnet50"].provenance()}
    assert "license: apache-2.0" in str(SharedModel(converted, CardInfo("mit")).generate_model_card()), "it has its own"
