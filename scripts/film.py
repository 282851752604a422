"""A film of training from the panels that it wrote: how the clusters of an image form from step to step.

    python scripts/film.py runs/demo
    python scripts/film.py runs/demo --image 2 --show prediction errors "cluster map" --output film.mp4

Every validation is a frame. More of them make a smoother film: trainer.val_every_steps=50.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kmax.console import plain
from kmax.visualization.film import SUFFIXES, film_frames, find_panels, write_film
from kmax.visualization.panels import PANEL


def film(folder: Path, image: str | None, show: Sequence[str], output: Path | None, seconds: float) -> str:
    """Write the film of one image; what was written, as a line of text.

    Raises:
        FileNotFoundError, ValueError: no panels; an unknown image, picture or suffix; a damaged panel.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds {seconds:g} must be greater than 0.")
    found = find_panels(folder)
    name = next(iter(found)) if image is None else image
    if name not in found:
        raise ValueError(f"There are no panels of image {name}: there are those of {', '.join(found)}.")
    panels = found[name]
    path = output or panels[0].path.parent / f"film-{name}.gif"
    write_film(list(film_frames(panels, show)), path, seconds)
    return f"film · image {name}, steps {panels[0].step} to {panels[-1].step}, {len(panels)} frames · {path}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a run, or its folder of panels")
    parser.add_argument("--image", help="id of the image, as in the names of panels (default: the first)")
    parser.add_argument(
        "--show",
        nargs="+",
        default=["image", "cluster map"],
        metavar="PICTURE",
        help=f"pictures of a frame: {', '.join(PANEL)} (default: image, cluster map)",
    )
    parser.add_argument(
        "--output", type=Path, help=f"the film, {', '.join(SUFFIXES)} (default: film-IMAGE.gif beside the panels)"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="that a frame is shown (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(plain(film(options.folder, options.image, options.show, options.output, options.seconds)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
