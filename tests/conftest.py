"""What many tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# The tests' tensors are small and several processes share the cores: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SMALL_RUN = (
    "debug=fast",
    "trainer.limit_val_batches=null",
    "dataset.train.length=8",
    "dataset.val.length=4",
    "dataset.batch_size=2",
    "dataset.size=[129,129]",
    "strategy=cpu",
    "trainer.enable_progress_bar=false",
)
"""Overrides that make `train.py` end after two steps."""


def run_python(*arguments: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project as a user would, in a process of its own at the top of the checkout."""
    command = [sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )


STARTS_PROCESSES = ("tiny_run", "ranks", "cluster", "pair", "one_process", "tracked_run", "pruned_sweep")
"""Fixtures that start processes."""


SLOW = (
    "tests/callbacks/test_loggers.py",
    "tests/checkpoint/test_deeplab2.py::test_max_deeplab_there_and_back",
    "tests/checkpoint/test_deeplab2.py::test_there_and_back_gives_identical_bytes[coco_axial",
    "tests/checkpoint/test_detectron2.py::test_there_and_back_gives_identical_bytes[ade20k_convnext_large]",
    "tests/checkpoint/test_detectron2.py::test_there_and_back_gives_identical_bytes[cityscapes_convnext_large]",
    "tests/checkpoint/test_detectron2.py::test_there_and_back_gives_identical_bytes[coco_convnext_",
    "tests/checkpoint/test_download.py::test_many_processes_download_once",
    "tests/checkpoint/test_imagenet.py::test_a_tensorflow",
    "tests/checkpoint/test_imagenet.py::test_timms_own",
    "tests/config/test_pretrained.py::test_a_name_of_the_zoo",
    "tests/config/test_pretrained.py::test_coconut",
    "tests/config/test_pretrained.py::test_either",
    "tests/config/test_pretrained.py::test_names_that_cannot_tell",
    "tests/config/test_pretrained.py::test_statistics",
    "tests/config/test_pretrained.py::test_weights_without_their_configuration",
    "tests/config/test_pretrained.py::test_without_a_network",
    "tests/config/test_run_folders.py::test_two_programs_that_start_in_one_second",
    "tests/model/test_clustering.py::test_a_graph_has_no_operation_more_for_remax",
    "tests/model/test_golden_max",
    "tests/model/test_golden_tensorflow.py",
    "tests/model/test_golden_train.py::test_a_training_step_equals_the_recorded_one[ci",
    "tests/model/test_golden_train.py::test_a_training_step_equals_the_recorded_one[coco_convnext_",
    "tests/model/test_max_deeplab.py::test_every_parameter_learns",
    "tests/model/test_max_s.py",
    "tests/predict/test_complete.py",
    "tests/predict/test_export.py",
    "tests/predict/test_tracking.py::test_identities",
    "tests/results/test_submission.py::test_an_evaluation_writes_one_too",
    "tests/results/test_sweeps.py::test_the_attention_ablation_is_one_command",
    "tests/scripts/test_benchmark.py",
    "tests/scripts/test_convert_weights.py::test_a_converted_checkpoint_fine_tunes",
    "tests/scripts/test_convert_weights.py::test_a_hostile_file",
    "tests/scripts/test_convert_weights.py::test_evaluation_needs_nothing_but_the_file",
    "tests/scripts/test_model_zoo.py::test_costs_are_those_that_the_script_counts",
    "tests/scripts/test_predict.py::test_mistakes_get_one_sentence",
    "tests/slurm/test_jobs.py",
    "tests/strategy/test_counters.py::test_a_training_step_waits_for_the_assignment_only[resnet50",
    "tests/strategy/test_counters.py::test_synchronized_norms",
    "tests/strategy/test_sync_norm.py::test_ranks_together_equal_one_process[2",
    "tests/strategy/test_threads.py::test_a_busy_core_costs_a_thread_unless_the_user_chose",
    "tests/test_console_runs.py",
    "tests/test_datasets_end_to_end.py::test_from_download_to_metric[cityscapes",
    "tests/test_distributed.py",
    "tests/test_docs.py::test_every_option_has_its_row",
    "tests/test_docs.py::test_links_lead_somewhere",
    "tests/test_docs.py::test_the_documentation_builds",
    "tests/test_end_to_end.py::test_bad_input_gets_one_sentence[arguments1",
    "tests/test_end_to_end.py::test_bad_input_gets_one_sentence[arguments2",
    "tests/test_end_to_end.py::test_weights_of_another_model_are_refused",
    "tests/test_evaluate.py::test_test_time_options",
    "tests/test_evaluate.py::test_two_processes_print_and_save_the_same_digits",
    "tests/test_family.py::test_a_trained_max_deeplab",
    "tests/test_family.py::test_max_deeplab_composes_on_every_dataset",
    "tests/test_launchers.py",
    "tests/test_memory_table.py",
    "tests/test_nodes.py",
    "tests/test_notebooks.py",
    "tests/test_own_data_end_to_end.py",
    "tests/test_packaging.py::test_the_wheel_trains_in_an_empty_folder",
    "tests/test_resume.py::test_killed_under_a_moving_average",
)
"""How the names of tests begin that take the most time together: they are for CI."""

FAST_GOLDEN = "test_golden_forward.py::test_every_output_equals_the_recorded_one[coco_r50]"
"""The one golden model that `make test-fast` runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of golden models are long but one, and so is a test whose fixture starts a process."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
        golden = "/test_golden_" in item.nodeid and not item.nodeid.endswith(FAST_GOLDEN)
        if golden or set(STARTS_PROCESSES) & set(getattr(item, "fixturenames", ())):
            item.add_marker("long")


def long_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Values of a parameter; `make test-fast` takes the quick ones alone."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.long) for value in values]


@pytest.fixture(autouse=True)
def _only_long_tests_start_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make test-fast` runs stays in its own process."""
    if request.node.get_closest_marker("long") or request.node.get_closest_marker("slow"):
        return
    start = subprocess.Popen.__init__

    def checked(self: subprocess.Popen[str], args: Any, *others: Any, **options: Any) -> None:
        assert sys.executable not in str(args), "a test that starts Python is marked with @pytest.mark.long"
        start(self, args, *others, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", checked)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker of pytest-xdist fills; the others wait for it and share it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder / ".done"
    with FileLock(f"{folder}.lock"):
        if not done.is_file():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps on the built-in shapes, by the command line."""

    def make(folder: Path) -> None:
        result = run_python("train.py", *SMALL_RUN, f"hydra.run.dir={folder}")
        assert result.returncode == 0, result.stderr[-3000:]

    return once(tmp_path_factory, "run", make)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a tiny model after two steps: a real one, which has learned next to nothing."""
    from small_run import run

    steps = ("optimizer.steps=2", "optimizer.warmup_steps=1", "trainer.val_every_steps=2")
    folder = once(tmp_path_factory, "small", lambda folder: run(folder, *steps))
    return folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder with real sample data (`coco128`, `ade20k_sample`); without it the test is skipped."""
    folder = Path(os.environ.get("KMAX_SAMPLE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "coco128").is_dir():
        pytest.skip(f"no sample data in {folder}: set KMAX_SAMPLE_DATA")
    return folder
