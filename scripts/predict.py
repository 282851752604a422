"""Segment images, folders, videos or a camera: `python scripts/predict.py ckpt=best.ckpt input=photos`.

    ckpt       a file that training or conversion wrote · a folder from a hub · a name of the model zoo (coco_resnet50)
    input      image · folder · 'glob/*.jpg' · list.txt · video.mp4 · webcam · [several,of,these]
    outputs    some of
               overlay    overlay/*.jpg: the image under its colored segments, with names (and scores=true)
               panoptic   panoptic/*.png and panoptic.json: segment ids by pixel, and what they are, in COCO's format
               semantic   semantic/*.png and semantic.json: class ids by pixel, and what they are
               instances  instances.json: things with masks and scores, overlapping, in COCO's results format
               segments   segments.csv: a row per segment with class, score, area and box
               video      video/*.mp4: the overlays of each video, joined
               annotations  annotations.json: polygons in COCO's format, to correct in an annotation tool
               label_studio  label_studio.json: tasks for Label Studio
    inference  thresholds, e.g. inference.thing_threshold=0.5, or inference.min_area=50 against specks
    track      track=true: ids and colors of things stay from frame to frame of a video or a folder of images

Run it again and it continues where it stopped. Exit status: 0 all done, 1 a mistake in the call, 3 some files could not
be read (they are named, the rest is done), 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig

from kmax.config.compose import command_line, read_options, register
from kmax.config.explain import run_or_explain
from kmax.config.options import PredictOptions
from kmax.config.pretrained import checkpoint_path
from kmax.files import Json
from kmax.images import UnreadableImageError
from kmax.names import flat_name, safe_name
from kmax.predict.ordered_map import ordered_map
from kmax.predict.predictor import Predictor, Result
from kmax.predict.progress import ImageProgress
from kmax.predict.sequences import Sequences, check_sequences
from kmax.predict.sources import Frame, Source, Survey, count_frames, frames, survey
from kmax.results import ResultFolder
from kmax.results.annotations import WRITERS, AnnotationStyle
from kmax.results.submission import write_submission
from kmax.strategy.threads import fit_threads
from kmax.videos import frame_rate
from kmax.visualization import draw_panoptic

register()
UNREADABLE, INTERRUPTED = 3, 130
Item = tuple[Frame, np.ndarray | None, Result | str, Json]


def load(frame: Frame) -> tuple[Frame, np.ndarray | ValueError | FileNotFoundError]:
    """The image of a frame, or why there is none."""
    try:
        return frame, frame.load()
    except (UnreadableImageError, FileNotFoundError) as error:
        return frame, error


def predictions(
    predictor: Predictor, stream: Iterator[Frame], options: PredictOptions, sequences: Sequences | None = None
) -> Iterator[Item]:
    """Yield frame, image, result and what else its record keeps; for a frame that cannot be read, None and the reason.

    Only a batch of images, and as many as there are workers, are in memory at a time.
    """
    wanted = ["panoptic", *(name for name in ("semantic", "instances") if name in options.outputs)]
    loaded = ordered_map(load, stream, options.num_workers)
    while batch := list(islice(loaded, options.batch_size)):
        good = [(frame, image) for frame, image in batch if isinstance(image, np.ndarray)]
        raw = predictor.raw([image for _, image in good])
        for frame, error in batch:
            if not isinstance(error, np.ndarray):
                yield frame, None, str(error), {}
        for (frame, image), one in zip(good, raw, strict=True):
            result = predictor.finish(one, wanted, None, options.track, options.top_instances)
            kept: Json = {}
            if sequences is not None:
                result, kept = sequences.follow(frame, result)
            yield frame, image, result, kept


def save(folder: ResultFolder, item: Item) -> tuple[Frame, Json | str]:
    """Write the files of one image; returns its frame with its record, or with the reason why there is none."""
    frame, image, result, kept = item
    if isinstance(result, str):
        return frame, result
    assert image is not None, "only an unreadable image is none"
    assert result.panoptic is not None, "panoptic is always wanted"
    semantic = None if result.semantic is None else result.semantic.numpy()
    about: Json = kept | ({"time": frame.time, "duration": frame.duration} if frame.time is not None else {})
    if frame.source is not None:
        about["origin"] = origin(frame.source)
    return frame, folder.write(frame.key, frame.name, image, result.panoptic, semantic, result.instances, about)


def origin(source: Source) -> tuple[str, str, str]:
    """The identity of a source: its name, its key, and the state of its file."""
    return source.name, source.key, source.state


def run(predictor: Predictor, folder: ResultFolder, sources: Sequence[Source], options: PredictOptions) -> list[str]:
    """Predict everything that has no result yet; returns a sentence for each frame that could not be read."""
    done = folder.records.done
    total = count_frames(sources)
    total = None if total is None else max(0, total - len(done))
    stream = frames(sources, done)
    if options.limit is not None:
        stream, total = islice(stream, options.limit), min(options.limit, total or options.limit)
    failed: list[str] = []
    with ImageProgress(total) as progress:
        sequences = Sequences(options.tracking, folder.categories, sources, folder.records) if options.track else None
        items = predictions(predictor, stream, options, sequences)
        for frame, record in ordered_map(partial(save, folder), items, options.num_workers):
            if isinstance(record, str):
                folder.record_failure(frame.key, frame.name, record)
                failed.append(record)
                progress.say(f"skipped: {record}")
            else:
                folder.record(record)
            progress.advance()
    return failed


def predict(config: DictConfig) -> int:
    """Predict, then make the JSON and csv files, also after an interruption; the exit status."""
    options = read_options(PredictOptions, config)
    output = Path(options.output or default_output(options.input))
    named = survey(options.input, output)  # before the model is built: a misspelled path should fail at once
    if options.track:
        check_sequences(named.sources)
    fit_threads()
    predictor = Predictor.from_checkpoint(
        options.ckpt, options.device, options.size, options.inference, options.runtime, options.precision
    )
    if options.track and not predictor.inference.plain:
        raise ValueError("track=true compares features of one plain pass: leave inference.flip, .scales and .pad out.")
    made_by = settings(options, predictor)
    draw = partial(draw_panoptic, scores=options.scores, identities=options.track)
    style = AnnotationStyle(options.polygon_tolerance, options.rle_holes)
    wanted = options.outputs
    folder = ResultFolder(output, predictor.categories, wanted, made_by, options.overwrite, draw=draw, style=style)
    found = survey(options.input, output, folder.keys)
    say_passed(found)
    stale = folder.keep_only(map(origin, found.sources))
    if stale:
        print(f"{stale} results deleted: their files are gone or have changed", file=sys.stderr)
    print(f"results · {folder.folder}", flush=True)
    there, status = len(folder.records.done), 0
    failed: list[str] = []
    try:
        failed = run(predictor, folder, found.sources, options)
    except KeyboardInterrupt:
        print("Interrupted: what is written stays; the same command goes on from here.", file=sys.stderr)
        status = INTERRUPTED
    made = folder.assemble() + videos(folder, found.sources)
    if options.submission is not None:
        pictures = folder.folder / "panoptic"
        made.append(write_submission(folder.panoptic_annotations(), pictures, options.submission, folder.folder))
    finished = len(folder.records.done)
    print(f"{finished - there} new, {there} already there, {len(failed)} unreadable · {folder.folder}")
    for path in made:
        print(path)
    folder.records.close()
    return status or (UNREADABLE if failed else 0)


def say_passed(found: Survey) -> None:
    """Print how many files of the input are neither image nor video."""
    if found.passed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.passed.most_common())
        print(f"passed over: {kinds}", file=sys.stderr)


def videos(folder: ResultFolder, sources: Sequence[Source]) -> list[Path]:
    """Join the overlays of each video, if requested; returns the files."""
    if "video" not in folder.outputs:
        return []
    films = [source for source in sources if source.kind == "video"]
    made = [folder.make_video(film.key, frame_rate(film.path), safe_name(Path(film.path).stem)) for film in films]
    return [path for path in made if path is not None]


def settings(options: PredictOptions, predictor: Predictor) -> Json:
    """Everything that results depend on: a run continues a folder only with the same settings."""
    file = checkpoint_path(options.ckpt).resolve()
    thresholds = asdict(predictor.inference)
    if not thresholds["min_area"]:
        del thresholds["min_area"]  # folders of earlier versions, which had none, can be continued
    return {
        "ckpt": f"{file} ({file.stat().st_size} bytes, {file.stat().st_mtime_ns})",
        "input": options.input,
        "size": predictor.size,
        **{f"inference.{name}": value for name, value in thresholds.items()},
        "top_instances": options.top_instances,
        **({"scores": True} if options.scores else {}),
        **({"tracking": asdict(options.tracking)} if options.track else {}),
        **annotation_settings(options),
    }


def annotation_settings(options: PredictOptions) -> Json:
    """What annotations depend on, if there are any."""
    if WRITERS.keys().isdisjoint(options.outputs):
        return {}
    return {"polygon_tolerance": options.polygon_tolerance, "rle_holes": options.rle_holes}


def default_output(what: str | list[str]) -> Path:
    """runs/predict/ and the name of the input."""
    first = str(what[0] if isinstance(what, (list, tuple)) else what)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(first.rstrip("/\\")).name)
    return Path("runs/predict") / (flat_name(name) if name.strip(".") else "input")


@hydra.main(config_path="../conf", config_name="predict", version_base="1.3")
def main(config: DictConfig) -> None:
    """The command line: files in, predictions out."""
    sys.exit(run_or_explain(predict, config))


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "predict", __doc__ or "")
    main()
