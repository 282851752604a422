"""Other people's annotation formats, recognized and made panoptic: `scripts/prepare_own.py`."""
