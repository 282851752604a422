"""Every member of the family composes, trains, evaluates, predicts, exports, and shows its clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT
from kmax.categories import load_categories
from kmax.config.build import model_from_options
from kmax.config.compose import compose_config, run_options
from kmax.config.options import TrainOptions
from kmax.config.trained import load_trained
from kmax.data import ShapesDataset
from kmax.inference.options import InferenceOptions
from kmax.model import KMaXDeepLab, MaXDeepLab
from kmax.predict.export import export_model
from kmax.predict.predictor import Predictor
from kmax.visualization import draw_cluster_viewer
from small_run import OVERRIDES, run

MEMBERS = sorted(path.stem for path in (ROOT / "conf/family").glob("*.yaml"))
WITHOUT = ("~callbacks", "logger=none")
"""What asks Hydra for the folder of a run."""
OF_KMAX = ("model.widths", "model.dim", "model.feature_dim", "model.ffn_dim", "model.heads", "model.decoder_heads")
SMALL = tuple(o for o in OVERRIDES if not o.startswith((*OF_KMAX, "backbone.name", "loss.samples")))
TINY_MAX = ("model=max_deeplab_tiny", "model.width=0.125", "model.dim=16", "model.hidden_dim=16", "model.ffn_dim=16")


def composed(*overrides: str) -> TrainOptions:
    return run_options(compose_config(None, *WITHOUT, *overrides))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a MaX-DeepLab after a few steps."""
    folder = tmp_path_factory.mktemp("max")
    run(folder, *TINY_MAX, base=SMALL)
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.long
@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_of_the_family_trains_a_few_steps(member: str, tmp_path: Path) -> None:
    small: tuple[str, ...] = ("model.dim=16", "model.feature_dim=16", "model.ffn_dim=16", "optimizer.steps=2")
    if member == "dual_path":
        small = (*small, "model.width=0.125")
    else:
        small = (*small, "backbone.name=test_resnet", "model.widths=[16,16,16,16]", "loss.samples=64")
    assert run(tmp_path, f"family={member}", *small, base=SMALL) >= 0


@pytest.mark.long
def test_the_sweep_runs_every_member_with_three_seeds() -> None:
    sweep = yaml.safe_load((ROOT / "conf/sweep/family.yaml").read_text())
    params = sweep["hydra"]["sweeper"]["params"]
    assert set(params["family"].split(",")) == set(MEMBERS)
    assert len(params["seed"].split(",")) == 3
    options = {member: composed("sweep=family", f"family={member}") for member in MEMBERS}
    assert len({(o.optimizer.steps, o.dataset.batch_size, o.dataset.size) for o in options.values()}) == 1
    for member, one in options.items():
        with torch.device("meta"):
            network = model_from_options(one.backbone, one.model, 5)
        assert isinstance(network, MaXDeepLab if member == "dual_path" else KMaXDeepLab)
    cells = -(-options["kmeans"].dataset.size[0] // 8)
    assert options["kmeans"].model.layers == (0, 0, 3)
    assert cells * cells > 1000  # what a layer sees


@pytest.mark.long
@pytest.mark.parametrize("dataset", ["coco", "cityscapes", "ade20k", "shapes", "coco_format"])
@pytest.mark.parametrize("model", ["max_deeplab_s", "max_deeplab_l"])
def test_max_deeplab_composes_on_every_dataset(dataset: str, model: str) -> None:
    own = ("dataset.root=data/own", "dataset.categories=coco") if dataset == "coco_format" else ()
    options = composed(f"dataset={dataset}", f"model={model}", *own)
    classes = load_categories(options.dataset.categories).num_classes
    with torch.device("meta"):
        network = model_from_options(options.backbone, options.model, classes)
        output = network.train()(torch.zeros(2, 3, 65, 97))
    assert output.predictions[0].class_logits.shape == (2, options.model.num_queries, classes + 1)
    assert output.semantic_logits is not None
    assert output.semantic_logits.shape[1] == classes + 1
    assert options.inference.method == "pixel_wise"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size", "lr", "areas"),
    [
        ("coco_max_deeplab_s_641", 641, 1e-3, (100, 1600)),
        ("coco_max_deeplab_s_1025", 1025, 1e-3, (256, 4096)),
        ("coco_max_deeplab_l_1025", 1025, 3e-4, (256, 4096)),
    ],
)
def test_the_recipes_are_the_published_ones(name: str, size: int, lr: float, areas: tuple[int, int]) -> None:
    options = run_options(compose_config(name, *WITHOUT))
    dataset, optimizer, inference = options.dataset, options.optimizer, options.inference
    large = name.startswith("coco_max_deeplab_l")
    assert (dataset.size, dataset.scale, dataset.scale_step) == ((size, size), (0.5, 1.5), 0.1)
    assert (dataset.random_offset, dataset.color_jitter, dataset.copy_paste, dataset.label_crowd) == (1, 0, 0, 1)
    assert (dataset.color_operations, dataset.small_thing_weight) == (large, 3.0 if large else 1.0)
    assert (optimizer.lr, optimizer.steps, optimizer.weight_decay, optimizer.eps) == (lr, 100000, 0.0, 1e-7)
    assert (optimizer.warmup_steps, optimizer.warmup_start, optimizer.backbone_multiplier) == (5000, 0.0, 0.1)
    assert dataset.batch_size == 64
    assert (inference.thing_area, inference.stuff_area) == areas
    assert (inference.thing_threshold, inference.stuff_threshold, inference.pixel_threshold) == (0.7, 0.7, 0.4)
    assert options.model.drop_path == 0.2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("model.attention=softmax", "model.recurrence=3"), "recurrence=3 belongs to attention=kmeans"),
        (("inference.thing_area=100",), "thing_area=100 belongs to method=pixel_wise"),
        (("model=max_deeplab_s", "backbone.name=resnet50"), "does not go with backbone.name=resnet50"),
        (("backbone.name=max_deeplab_s",), "come together, by model=max_deeplab_s or model=max_deeplab_l"),
        (("model=max_deeplab_s", "model.attention=cmt"), "attention=cmt belongs to architecture=kmax_deeplab"),
        (("model=max_deeplab_s", "model.remax=true"), "remax=True belongs to architecture=kmax_deeplab"),
        (("model.width=0.5",), "width=0.5 belongs to architecture=max_deeplab"),
        (("model=max_deeplab_s", "backbone.drop_path=0.1"), "set model.drop_path"),
        (("model=max_deeplab_s", "backbone.pretrained=true"), "the path of deeplab2's TensorFlow checkpoint"),
        (("model=max_deeplab_s", "backbone.freeze=all"), "have no effect in MaX-DeepLab"),
        (("loss.instance_loss=prototypes",), "set it to pixels, or choose model=max_deeplab_s"),
        (("dataset.random_offset=true", "dataset.copy_paste=true"), "does not go with copy_paste=true"),
    ],
)
def test_what_does_not_belong_together_is_refused_at_composition(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        composed(*overrides)


@pytest.mark.long
def test_a_trained_max_deeplab_predicts_and_shows_its_slots(trained: Path) -> None:
    predictor = Predictor.from_checkpoint(trained, device="cpu")
    assert predictor.inference.method == "pixel_wise"
    image = ShapesDataset(1, seed=3)[0].image
    assert predictor(image).segment_map.shape == image.shape[:2]
    loose = {"thing_threshold": 0.0, "stuff_threshold": 0.0, "pixel_threshold": 0.0}
    everything = predictor(image, thresholds=loose)
    assert (everything.segment_map > 0).all()  # every pixel has a slot
    result = predictor.batch([image], ("panoptic", "semantic", "instances"), all_stages=True)[0]
    assert result.raw is not None
    stages = result.raw.content
    assert len(stages) == 5  # four dual-path blocks of S, then the final masks
    names = predictor.stage_names
    assert names == (*(f"block {i} · 1/16" for i in range(1, 5)), "final")
    picture = draw_cluster_viewer(image, stages, predictor.categories, names)
    assert picture.ndim == 3
    assert picture.dtype == np.uint8


@pytest.mark.long
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_a_trained_max_deeplab_exports(trained: Path, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    module = load_trained(trained)
    loose = InferenceOptions(method="pixel_wise", thing_threshold=0.0, stuff_threshold=0.0, pixel_threshold=0.1)
    module = replace(module, options=replace(module.options, inference=loose))
    pictures = [ShapesDataset(3, seed=4)[i].image for i in range(3)]
    parity = export_model(module, tmp_path / f"model.{format}", format, (65, 65), "dynamic", pictures)
    assert parity.images == 3
    assert parity.deviation < 1e-4
    assert parity.identical >= 2
