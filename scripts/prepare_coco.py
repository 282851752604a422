"""Make COCO 2017 panoptic ready for training.

    python scripts/prepare_coco.py --root data/coco              archives or folders as downloaded lie in data/coco
    python scripts/prepare_coco.py --root data/coco --check      does everything hold together?

Images and panoptic PNG files are read straight from their .zip unless --unpack is given.
"""

from __future__ import annotations

import sys

from kmax.config.ready import ready
from kmax.data.prepare import main

if __name__ == "__main__":
    sys.exit(main("coco", __doc__ or "", ready))
