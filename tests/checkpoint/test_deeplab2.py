"""TensorFlow's variables ↔ our names: a bijection, there and back byte for byte, classes in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import golden_tools
from kmax.categories import load_categories
from kmax.checkpoint.deeplab2 import Variables, class_order, from_deeplab2, to_deeplab2


def seeded(name: str) -> dict[str, np.ndarray]:
    return {key: golden_tools.recipe_tf.seeded_tensor_tf(key, shape) for key, shape in golden_tools.variables(name)}


@pytest.mark.long
@pytest.mark.parametrize("name", golden_tools.TENSORFLOW)
def test_variables_and_entries_are_a_bijection(name: str) -> None:
    shapes = dict(golden_tools.variables(name))
    is_thing = load_categories(golden_tools.TENSORFLOW[name][1]).is_thing
    variables = {key: torch.empty(shape) for key, shape in shapes.items()}
    ours = {key: value.shape for key, value in golden_tools.tensorflow_model(name, "meta").state_dict().items()}
    state = from_deeplab2(variables, is_thing)
    assert {key: value.shape for key, value in state.items()} == ours
    assert {key: list(value.shape) for key, value in to_deeplab2(state, is_thing).items()} == shapes


@pytest.mark.long
@pytest.mark.parametrize("name", golden_tools.TENSORFLOW)
def test_there_and_back_gives_identical_bytes(name: str) -> None:
    is_thing = load_categories(golden_tools.TENSORFLOW[name][1]).is_thing
    variables = seeded(name)
    back = to_deeplab2(from_deeplab2(variables, is_thing), is_thing)
    assert back.keys() == variables.keys()
    for key, value in variables.items():
        assert back[key].shape == value.shape
        assert back[key].tobytes() == value.tobytes(), key


@pytest.mark.long
@pytest.mark.parametrize("variant", golden_tools.MAX_DEEPLAB)
def test_max_deeplabs_variables_and_entries_are_a_bijection(variant: str) -> None:
    shapes = dict(golden_tools.max_variables(variant))
    is_thing = load_categories("coco").is_thing
    ours = {key: value.shape for key, value in golden_tools.max_model(variant, "meta").state_dict().items()}
    variables = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    state = from_deeplab2(variables, is_thing)
    assert {key: value.shape for key, value in state.items()} == ours
    named = Variables.of_ours(ours).names
    theirs = {named.theirs(key): key for key in ours if not key.endswith("num_batches_tracked")}
    assert theirs.keys() == shapes.keys()


@pytest.mark.long
@pytest.mark.parametrize("variant", golden_tools.MAX_DEEPLAB)
def test_max_deeplab_there_and_back_gives_identical_bytes(variant: str) -> None:
    """Of L the small variables: their layouts are those of the large ones."""
    is_thing = load_categories("coco").is_thing
    chosen = [(n, s) for n, s in golden_tools.max_variables(variant) if variant == "s" or np.prod(s) < 300_000]
    variables = {name: golden_tools.recipe_max.seeded_tensor_max(name, shape) for name, shape in chosen}
    renamed = {name.replace("/memory_feature", "/_memory_feature"): value for name, value in variables.items()}
    back = to_deeplab2(from_deeplab2(renamed, is_thing), is_thing)
    assert back.keys() == variables.keys()
    for key, value in variables.items():
        assert back[key].shape == value.shape
        assert back[key].tobytes() == value.tobytes(), key


def test_classes_are_put_in_the_order_of_the_dataset() -> None:
    """Row i of TensorFlow's Cityscapes class head is person, rider, … bicycle, road, … sky, void."""
    categories = load_categories("cityscapes")
    key = "transformer_class_head/_conv/bias"
    ours = from_deeplab2({key: np.arange(20.0)}, categories.is_thing)["transformer_decoder.predictor.class_logits.bias"]
    by_name = dict(zip([*categories.names, "void"], ours.tolist(), strict=True))
    assert [by_name[name] for name in ("person", "rider", "bicycle", "road", "sidewalk", "sky", "void")] == [
        0,
        1,
        7,
        8,
        9,
        18,
        19,
    ]
    semantic = from_deeplab2({"semantic_last_layer/bias": np.arange(19.0)}, categories.is_thing)
    assert semantic["semantic_head.layers.2.bias"].tolist() == list(range(19)), "the semantic head goes by train id"
    wide = from_deeplab2({"semantic_last_layer/bias": np.arange(20.0)}, categories.is_thing)
    assert wide["semantic_head.layers.2.bias"].tolist() == [*range(1, 20), 0], (
        "channel k + 1 is class k, channel 0 void"
    )
    assert class_order(load_categories("coco").is_thing) == list(range(134))


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"resnet/conv1/kernel": np.zeros(1)},
            "belong to no published kMaX- or MaX-DeepLab, the first is 'resnet/conv",
        ),
        ({"transformer_class_head/_conv/bias": np.zeros(20)}, "20 rows, but the dataset has 133 classes and void"),
        ({"encoder/_stem/_conv/kernel": np.zeros((7, 7, 3))}, "encoder/_stem/_conv/kernel has the wrong shape"),
    ],
)
def test_what_does_not_fit_is_named(variables: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_deeplab2(variables, load_categories("coco").is_thing)
