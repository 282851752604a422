"""Make Cityscapes ready for training: the official panoptic conversion of train and val.

    python scripts/prepare_cityscapes.py --root data/cityscapes           archives or folders as downloaded lie there
    python scripts/prepare_cityscapes.py --root data/cityscapes --check   does everything hold together?

Run it again after an interruption: it continues where it stopped.
"""

from __future__ import annotations

import sys

from kmax.config.ready import ready
from kmax.data.prepare import main

if __name__ == "__main__":
    sys.exit(main("cityscapes", __doc__ or "", ready))
