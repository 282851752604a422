"""How often identities switch in films of drawn shapes that cross, leave and return, with a model trained on shapes.

    python scripts/benchmark_tracking.py runs/demo/checkpoints/best.ckpt               # ten films of 60 frames
    python scripts/benchmark_tracking.py --save films                                  # only write them, as videos

The rows compare tracking, tracking by boxes alone (features all equal), and no tracking: ids by descending score.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from kmax.config.options import TrackingOptions
from kmax.data.shapes_film import ShapesFilm
from kmax.metrics.identity import IdentitySwitches
from kmax.predict.predictor import Predictor
from kmax.predict.tracking import Tracker, segment_features, sightings, with_ids
from kmax.structures import PanopticMap
from kmax.videos import write_video

RATE = Fraction(15)
Frame = tuple[PanopticMap, np.ndarray]


def predicted(predictor: Predictor, film: ShapesFilm) -> list[Frame]:
    """The panoptic map of each frame and the features of its segments."""
    frames = []
    for index in range(len(film)):
        [raw] = predictor.raw([film[index].image])
        panoptic = predictor.finish(raw).panoptic
        assert panoptic is not None, "panoptic is the default"
        frames.append((panoptic, segment_features(raw, panoptic)))
    return frames


def tracked(frames: list[Frame], film: ShapesFilm, change: Callable[[np.ndarray], np.ndarray]) -> list[PanopticMap]:
    """The maps with identities, with features changed by `change` before."""
    tracker = Tracker(TrackingOptions(), film.categories.is_thing)
    return [
        with_ids(panoptic, tracker.update(sightings(panoptic, change(features), film.categories), number))
        for number, (panoptic, features) in enumerate(frames)
    ]


def measure(predictor: Predictor, seeds: range) -> list[str]:
    """A Markdown table."""
    names = ("tracking", "boxes alone", "none")
    counts = {name: IdentitySwitches(predictor.categories.is_thing) for name in names}
    for seed in seeds:
        film = ShapesFilm(seed=seed)
        frames = predicted(predictor, film)
        maps = (
            tracked(frames, film, np.asarray),
            tracked(frames, film, boxes_alone),
            [panoptic for panoptic, _ in frames],
        )
        for count, found in zip(counts.values(), maps, strict=True):
            count.new_film()
            for index, panoptic in enumerate(found):
                count.update(panoptic, film[index])
    lines = ["| identities by | things in all frames | of these found | identity switches |", "| --- " * 4 + "|"]
    return lines + [f"| {name} | {c.visible} | {c.found} | {c.switches} |" for name, c in counts.items()]


def boxes_alone(features: np.ndarray) -> np.ndarray:
    """Features (S, D) that tell nothing apart."""
    return np.full_like(features, features.shape[1] ** -0.5)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", nargs="?", default="runs/demo/checkpoints/best.ckpt", help="a model trained on shapes")
    parser.add_argument("--films", type=int, default=10, help="how many films of 60 frames")
    parser.add_argument("--seed", type=int, default=0, help="of the first film")
    parser.add_argument("--save", type=Path, help="write the films into this folder and measure nothing")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.films)
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            film = ShapesFilm(seed=seed)
            images = (film[index].image for index in range(len(film)))
            write_video(images, RATE, arguments.save / f"film_{seed}.mp4")
        return
    print("\n".join(measure(Predictor.from_checkpoint(arguments.ckpt), seeds)))


if __name__ == "__main__":
    main()
