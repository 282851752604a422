#!/usr/bin/env bash
# The oldest versions that pyproject.toml admits: the fast tests, and one train → evaluate → predict.
#
#   scripts/check_oldest.sh [FOLDER]        FOLDER keeps the environment (build/oldest); PYTHON names the interpreter
#
# Every `name>=version` of pyproject.toml becomes `name==version`. A bound that does not hold fails here: raise it.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-build/oldest}")
mkdir -p "$folder"

pinned=$folder/oldest.txt
grep -oE '"[A-Za-z][A-Za-z0-9_.-]*(\[[a-z]+\])?>=[0-9][0-9.]*"' pyproject.toml \
    | tr -d '"' | sed -E 's/\[[a-z]+\]//; s/>=/==/' | sort -u > "$pinned"

test -x "$folder/venv/bin/python" || "${PYTHON:-python3}" -m venv "$folder/venv"
python=$folder/venv/bin/python
"$python" -m pip install --quiet --constraint "$pinned" --editable '.[dev]'
"$python" -m pip list --format=freeze | grep -iE '^(torch|torchvision|timm|lightning|numpy|hydra-core)==' | xargs

"$python" -m pytest --numprocesses 2 --dist loadfile -m "not long and not slow"

run=$folder/run
rm -rf "$run"
"$python" train.py experiment=demo debug=fast trainer.enable_progress_bar=false "hydra.run.dir=$run"
"$python" evaluate.py "ckpt=$run/checkpoints/best.ckpt" limit=2 "hydra.run.dir=$run/evaluation"
"$python" scripts/predict.py "ckpt=$run/checkpoints/best.ckpt" input=docs/images/coco_eight.jpg "output=$run/predictions"
