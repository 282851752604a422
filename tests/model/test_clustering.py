"""The options of the k-means layer: each equation against plain loops, what it leaves alone, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.losses.relaxation import class_overlap, reclass, remask
from kmax.model import KMaXDeepLab, build_backbone, kmeans
from kmax.model.kmeans_layer import KMeansLayer
from kmax.model.options import ModelOptions
from kmax.options import OptionError
from kmax.structures import Output, Prediction, Target

B, C, N, P = 2, 3, 4, 7


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(B, N, P).double(), torch.randn(B, C, P).double()


def layer(**options: Any) -> KMeansLayer:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"dim": 16, "feature_dim": 8, "ffn_dim": 16, "heads": 4, "drop_path": 0.0}
    made = KMeansLayer(12, 3, ModelOptions(**sizes, **options), writes_pixels=options.get("pixel_update", False))
    for module in made.modules():  # the norms that start at 0 would hide what is behind them
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.ones_(module.weight)
    return made.double().eval()


def model(**options: Any) -> KMaXDeepLab:
    torch.manual_seed(2)
    sizes: dict[str, Any] = {
        "num_queries": 4, "widths": (16, 8, 8, 8), "blocks": (1, 1, 1, 1), "dim": 16, "feature_dim": 8, "ffn_dim": 16,
        "drop_path": 0.0, "semantic_head": "plain",
    }  # fmt: skip
    return KMaXDeepLab(build_backbone("resnet18"), 3, ModelOptions(**sizes, **options))


def test_the_mean_update_is_the_mean_of_each_clusters_pixels() -> None:
    logits, values = inputs()
    assignment = kmeans.assign(logits)
    actual = kmeans.mean_update(assignment, values, N)
    for b in range(B):
        for n in range(N):
            mine = [values[b, :, p] for p in range(P) if int(logits[b, :, p].argmax()) == n]
            expected = sum(mine) / len(mine) if mine else torch.zeros(C).double()
            torch.testing.assert_close(actual[b, :, n], expected)


def test_with_equal_counts_mean_and_sum_update_agree_after_the_norm() -> None:
    """Two pixels for each of four clusters: the sum is twice the mean, and the norm of the update does not tell."""
    made = layer().train()
    assignment = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3]])
    values = torch.randn(1, 16, 8).double() * 100
    by_sum, by_mean = (f(assignment, values, 4) for f in (kmeans.update, kmeans.mean_update))
    torch.testing.assert_close(made.update_norm(by_sum), made.update_norm(by_mean), rtol=1e-4, atol=1e-4)


def test_soft_clustering_is_the_definition() -> None:
    logits, values = inputs()
    z = kmeans.soft_assign(logits)
    centers, of_centers = kmeans.soft_update(z, values), torch.randn(B, C, N).double()
    pixels = kmeans.pixel_update(z, of_centers)
    for b in range(B):
        expected = torch.zeros(C, N).double()
        for p in range(P):
            total = sum(math.exp(logits[b, n, p]) for n in range(N))
            share = [math.exp(logits[b, n, p]) / total for n in range(N)]
            gained = sum(share[n] * of_centers[b, :, n] for n in range(N))
            torch.testing.assert_close(pixels[b, :, p], gained)
            for n in range(N):
                expected[:, n] += share[n] * values[b, :, p]
        torch.testing.assert_close(centers[b], expected)


def test_cmt_adds_both_updates_to_the_centers_and_writes_into_the_pixels() -> None:
    """The layer's update is cross-attention plus clustering, term by term; the pixels gain Z·V."""
    made = layer(attention="cmt", pixel_update=True)
    centers, feature = torch.randn(B, 16, N).double(), torch.randn(B, 12, 3, 2).double()
    before = torch.randn(B, N, 3, 2).double()
    result = made(centers, feature, before)
    pixels = made.pixel_in(torch.nn.functional.gelu(feature))
    queries = made.query_in(centers)
    own = made.predictor(queries, queries, pixels).mask_logits
    torch.testing.assert_close(result.predictions[0].mask_logits, own + before)
    z, values = kmeans.soft_assign((own + before).flatten(2)), made.value(pixels).flatten(2)
    assert made.cross_attention is not None
    assert made.pixel_update is not None
    crossed = made.cross_attention(queries, pixels.flatten(2), values)
    updated = centers + made.update_out(made.update_norm(kmeans.soft_update(z, values))) + crossed
    attended = made.attention_out(made.self_attention(*made.qkv(queries).split(made.qkv_channels, 1)))
    updated = torch.nn.functional.gelu(updated + attended)
    torch.testing.assert_close(result.centers, torch.nn.functional.gelu(updated + made.ffn_out(made.ffn_in(updated))))
    gained = made.pixel_update.out((made.pixel_update.value(queries) @ z).unflatten(2, (3, 2)))
    torch.testing.assert_close(result.feature, feature + gained)


def test_coordinates_go_from_minus_one_to_one() -> None:
    place = kmeans.coordinates(torch.zeros(2, 5, 3, 4))
    assert place.shape == (2, 2, 3, 4)
    for y in range(3):
        for x in range(4):
            torch.testing.assert_close(place[1, :, y, x], torch.tensor([2 * x / 3 - 1, y - 1.0]))


def test_recurrence_repeats_assignment_and_update_with_the_same_weights() -> None:
    once, thrice = layer(), layer(recurrence=3)
    assert once.state_dict().keys() == thrice.state_dict().keys()
    thrice.load_state_dict(once.state_dict())
    centers, feature = torch.randn(B, 16, N).double(), torch.randn(B, 12, 3, 2).double()
    pixels = once.pixel_in(torch.nn.functional.gelu(feature))
    values = once.value(pixels).flatten(2)
    expected, c = [], centers
    for _ in range(3):
        queries = once.query_in(c)
        expected.append(once.predictor(queries, queries, pixels))
        assignment = expected[-1].mask_logits.flatten(2).argmax(1)
        c = c + once.update_out(once.update_norm(kmeans.update(assignment, values, N)))
    result = thrice(centers, feature)
    assert len(result.predictions) == 3
    for actual, wanted in zip(result.predictions, expected, strict=True):
        torch.testing.assert_close(actual.mask_logits, wanted.mask_logits)
    first = once(centers, feature)
    assert len(first.predictions) == 1  # T = 1 is kMaX
    torch.testing.assert_close(first.predictions[0].mask_logits, expected[0].mask_logits)


def test_every_step_of_a_recurrence_is_supervised() -> None:
    made = model(recurrence=2).train()
    output = made(torch.randn(2, 3, 65, 65))
    assert len(output.predictions) == len(made.stage_names) == 13
    assert made.stage_names[:3] == ("layer 1.1 · 1/32", "layer 1.2 · 1/32", "layer 2.1 · 1/32")
    losses = Criterion(3, LossOptions(samples=64))(output, targets(17)).by_name()
    assert {f"mask_{i}" for i in range(12)} <= losses.keys()


def targets(size: int) -> list[Target]:
    torch.manual_seed(3)
    return [Target(torch.randint(-1, 3, (size, size)), torch.tensor([0, 2, 1])) for _ in range(2)]


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "cmt", "pixel_update": True, "residual_assignment": True, "coordinates": True},
        {"update": "mean"},
        {"recurrence": 2},
        {"remax": True},
    ],
)
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    made = model(**options).train()
    for module in made.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.ones_(module.weight)
    Criterion(3, LossOptions(samples=64))(made(torch.randn(2, 3, 65, 65)), targets(17)).total.backward()
    assert not [name for name, parameter in made.named_parameters() if parameter.grad is None]
    # What the last layer of a stride wrote into its pixels would be read by nobody.
    written = [layer.pixel_update is not None for layer in made.transformer_decoder.layers]
    assert written == [bool(options.get("pixel_update")), False] * 3


def test_remask_and_reclass_are_the_definitions() -> None:
    torch.manual_seed(4)
    k, size = 3, 5
    prediction = Prediction(
        torch.randn(B, N, k + 1).double(), torch.randn(B, N, size, size).double().requires_grad_(), torch.zeros(1)
    )
    semantic = torch.randn(B, k + 1, size, size).double().requires_grad_()
    relaxed = remask(prediction, semantic)
    truth = targets(size)
    overlap = class_overlap(prediction.mask_logits, truth, k)
    label = torch.randint(k + 1, (B, N))
    soft = reclass(label, overlap, 0.1)
    sigmoid = torch.sigmoid
    for b in range(B):
        classes = [[k if s < 0 else int(truth[b].labels[s]) for s in row] for row in truth[b].segment_map.tolist()]
        for n in range(N):
            for c in range(k + 1):
                mine = [(y, x) for y in range(size) for x in range(size) if classes[y][x] == c and c < k]
                w = sum(float(sigmoid(prediction.mask_logits[b, n, y, x].detach())) for y, x in mine) / max(
                    len(mine), 1
                )
                assert float(overlap[b, n, c]) == pytest.approx(w)
                y_nc = float(label[b, n] == c)
                assert float(soft[b, n, c]) == pytest.approx(0.1 * w + (1 - 0.1 * w) * y_nc)
            for y, x in ((0, 0), (2, 3)):
                factor = sum(
                    float(sigmoid(prediction.class_logits[b, n, c]) * sigmoid(semantic[b, c, y, x].detach()))
                    for c in range(k)
                )
                m = float(prediction.mask_logits[b, n, y, x].detach())
                assert float(relaxed[b, n, y, x].detach()) == pytest.approx(m + m * factor)
    relaxed.sum().backward()
    assert semantic.grad is None
    assert prediction.mask_logits.grad is not None


def test_remax_leaves_inference_and_the_final_prediction_alone() -> None:
    plain, relaxed = model().eval(), model(remax=True).eval()
    extra = relaxed.state_dict().keys() - plain.state_dict().keys()
    assert extra
    assert all(name.startswith("transformer_decoder.relaxation.") for name in extra)
    relaxed.load_state_dict({**relaxed.state_dict(), **plain.state_dict()})
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        one, other = plain(images), relaxed(images)
    assert other.relaxation == ()
    for a, b in zip(one.predictions, other.predictions, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.long
def test_a_graph_has_no_operation_more_for_remax() -> None:
    images = torch.zeros(1, 3, 65, 65)
    graphs = [torch.export.export(m.eval(), (images,)).graph.nodes for m in (model(), model(remax=True))]
    operations = [[str(node.target) for node in nodes if node.op == "call_function"] for nodes in graphs]
    assert operations[0] == operations[1]


@pytest.mark.long
def test_remax_relaxes_the_first_four_predictions_only() -> None:
    output = model(remax=True).train()(torch.randn(2, 3, 65, 65))
    assert [r is not None for r in output.relaxation] == [True] * 4 + [False] * 3
    criterion = Criterion(3, LossOptions(samples=10**4))
    losses = criterion(output, targets(17)).by_name()
    without = criterion(Output(output.predictions, output.semantic_logits), targets(17)).by_name()
    assert losses.keys() - without.keys() == {f"relaxation_{i}" for i in range(4)}
    changed = {name for name in without if not torch.allclose(losses[name], without[name])}
    assert changed == {f"{kind}_{i}" for kind in ("class", "mask", "dice") for i in range(4)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attention": "softmax", "recurrence": 3}, "recurrence=3 belongs to attention=kmeans"),
        ({"attention": "cmt", "update": "mean"}, "update=mean belongs to attention=kmeans"),
        ({"pixel_update": True}, "pixel_update=True belongs to attention=cmt"),
        ({"residual_assignment": True, "attention": "softmax"}, "belongs to attention=cmt, not to softmax"),
        ({"recurrence": 0}, "must be at least 1"),
        ({"attention": "none"}, "must be one of kmeans, softmax, cmt"),
        ({"update": "median"}, "must be one of sum, mean"),
    ],
)
def test_what_does_not_belong_together_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        ModelOptions(**options)
