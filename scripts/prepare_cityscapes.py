"""Make Cityscapes ready for training: the official panoptic conversion of train and val.

    python scripts/prepare_cityscapes.py --root data/cityscapes           archives or folders as downloaded lie there
    python scripts/prepare_cityscapes.py --root data/cityscapes --check   does everything hold together?

Run it again after an interruption: it goes on where it stopped.
"""

from __future__ import annotations

import sys
from functools import partial

from kmax.config.explain import run_or_explain
from kmax.data.prepare import parse, run

if __name__ == "__main__":
    sys.exit(run_or_explain(partial(run, "cityscapes"), parse("cityscapes", __doc__ or "")))
