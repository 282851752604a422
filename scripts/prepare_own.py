"""Make your own annotations ready for training, whatever tool they come from.

    python scripts/prepare_own.py SOURCE --root mydata                convert; the format of SOURCE is recognized
    python scripts/prepare_own.py SOURCE --root mydata --stuff sky,road --preview 12
    python scripts/prepare_own.py --root mydata --check               does everything hold together?
    python scripts/prepare_own.py --root mydata --preview 12          look at the ground truth before training

Formats: Labelme, COCO instances (CVAT, Roboflow, Label Studio), CVAT for images, YOLO segmentation, semantic maps,
Pascal VOC, Mapillary Vistas, COCO panoptic, and with --format datumaro everything that Datumaro reads.
"""

from __future__ import annotations

import sys

from kmax.data.convert.options import Options, parse


def main(options: Options) -> int:
    """Convert, check, preview as asked; the exit status is 1 if the check has found an error."""
    from kmax.config.ready import ready
    from kmax.data.convert.check import check
    from kmax.data.convert.own import convert, report
    from kmax.data.prepare.check import print_findings

    if options.source is not None:
        print(report(convert(options), options))
        print(ready(options.root, "coco_format", options.root))
    if options.check and print_findings(check(options), options.root):
        return 1
    if options.preview:
        from kmax.visualization.ground_truth import preview

        print(preview(options.root, options.preview, options.size, options.queries))
    return 0


if __name__ == "__main__":
    options = parse(__doc__ or "")
    from kmax.config.explain import run_or_explain

    sys.exit(run_or_explain(main, options))
