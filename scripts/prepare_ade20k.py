"""Make ADE20K ready for training: panoptic annotations of its semantic and instance annotations.

    python scripts/prepare_ade20k.py --root data/ade20k           archives or folders as downloaded lie there
    python scripts/prepare_ade20k.py --root data/ade20k --check   does everything hold together?

Run it again after an interruption: it continues where it stopped.
"""

from __future__ import annotations

import sys

from kmax.config.ready import ready
from kmax.data.prepare import main

if __name__ == "__main__":
    sys.exit(main("ade20k", __doc__ or "", ready))
