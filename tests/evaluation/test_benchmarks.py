"""lm-eval's benchmarks: of a task in a local file, the numbers are those that lm-eval's own command gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import COLOURS, ftlib, write_jsonl

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'ftlib[benchmarks]'")
CHOICES, METRICS = COLOURS[:3], ("acc", "acc_norm")


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A choice of three colours."""
    rows = [{"ask": f"The car {n} is {CHOICES[n % 3]}, not", "choices": CHOICES, "right": n % 3} for n in range(9)]
    task = {
        "task": "colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(write_jsonl(tmp_path / "rows.jsonl", rows))}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{ask}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "right",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
    }  # fmt: skip
    (tmp_path / "colours.yaml").write_text(yaml.safe_dump(task))
    return tmp_path / "colours.yaml"


def test_a_task_of_a_file_is_done_and_kept(benchmark: Path, base: Path, tmp_path: Path) -> None:
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    status, output = ftlib("evaluate", base, f"{base}/", "--benchmark", benchmark, "--out", tmp_path / "out")
    assert status == 0, output
    assert "it/s" not in output
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tasks"]["colours"]
    loaded = TaskManager(include_defaults=False).load([str(benchmark)])
    expected = evaluate(HFLM(pretrained=str(base), device="cpu"), loaded, bootstrap_iters=0)["results"]["colours"]
    for contender in found["contenders"].values():
        numbers = {name: number["value"] for name, number in contender["numbers"].items()}
        assert numbers == {"acc": expected["acc,none"], "acc_norm": expected["acc_norm,none"]}
    assert found["comparisons"][0]["p"] == 1
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 * 9
    for row in answers:
        assert row["scores"]["acc"] == (row["answer"] == row["reference"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.yaml"], "there is no file gone.yaml"),
        (["https://localhost/v1#m"], "is a URL"),
        (["broken.yaml"], "lm-eval cannot load"),
    ],
)
def test_what_cannot_be_asked_is_said(words: list[str], message: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("task: broken\ndataset_path: json\n")
    name = str(tmp_path / "broken.yaml") if words == ["broken.yaml"] else "gone.yaml"
    model = words[0] if "#" in words[0] else base
    status, output = ftlib("evaluate", model, "--benchmark", name)
    assert status == 2
    assert message in output
