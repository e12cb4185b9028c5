"""The model card of a version: README.md in the format of the Hugging Face Hub.

It holds numbers, hashes and names. It holds no row of the data, no prompt, and no path of this machine. What comes from
a manifest may be another's: it is written so that a reader's program shows it as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.evaluation.verdict import as_number, is_loss, p_of, rows_of, written
from ftlib.files.atomic import write_text
from ftlib.registry.card_code import code_of
from ftlib.run.directory import Run, Trial

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD = "README.md"
LONGEST = 60  # characters of a setting: a longer one may be a text of somebody's
SETTINGS = ("model", "method", "adapter", "train")  # the sections of an experiment that a card tells of
UNTOLD = ("model.name_or_path", "model.tokenizer", "adapter.from", "method.type")
LEAD = ("difference", "low", "high")
GENERATES = "text-generation"
SORTS = "text-classification"


def write_card(folder: Path, name: str, manifest: Mapping[str, Any], run: Run, trial: Trial) -> None:
    """Writes README.md into a version's folder, in the place of one that is there."""
    write_text(folder / CARD, card(name, manifest, trial.params, run.resolved.get("data") or {}))


def card(name: str, manifest: Mapping[str, Any], swept: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The text of the card of a version of `name`. `swept` are the trial's values by dotted paths, `data` is what its
    run says of the training rows."""
    evaluation = manifest.get("evaluation") or {}
    sections = (
        f"---\n{metadata(name, manifest).to_yaml()}\n---",
        f"# {name}",
        _what(name, manifest),
        _title("Results", [*_verdict(evaluation), *_results(evaluation)]),
        _title("Limits", _list(_limits(manifest, evaluation))),
        _title("Run it", [code_of(name, manifest)]),
        _title("Data", _list(_data(manifest, data))),
        _title("Training", _training(manifest, swept)),
        _title("Lineage", _list(_lineage(manifest))),
    )
    return "\n\n".join(filter(None, sections)) + "\n"


def metadata(name: str, manifest: Mapping[str, Any]) -> ModelCardData:
    """What the Hub reads of the card."""
    from huggingface_hub import EvalResult, ModelCardData

    task = SORTS if manifest.get("labels") else GENERATES
    adapter = manifest.get("kind") == "adapter"
    tasks = (manifest.get("evaluation") or {}).get("tasks") or {}
    results = [
        EvalResult(
            task_type=task,
            dataset_type=of,
            dataset_name=of,
            dataset_revision=told["hash"] or None,
            metric_type=metric,
            metric_name=f"{of}/{metric}",
            metric_value=round(number["value"], 6),
        )
        for of, told in tasks.items()
        for metric, number in told["contenders"]["winner"]["numbers"].items()
        if number["value"] is not None
    ]
    base = base_on_hub(manifest)
    return ModelCardData(
        model_name=name,
        base_model=base,
        base_model_relation=_relation(manifest) if base else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=task,
        tags=["ftlib", *(["merge"] if manifest.get("merge") else [_method(manifest)] if _method(manifest) else [])],
        eval_results=results or None,
    )


def _relation(manifest: Mapping[str, Any]) -> str:
    """What the model is to its base, in the Hub's words."""
    if manifest.get("merge"):
        return "merge"
    return "adapter" if manifest.get("kind") == "adapter" else "finetune"


def base_on_hub(manifest: Mapping[str, Any]) -> str | None:
    """The base's name on the Hub; None for a folder of somebody's machine, which has a fingerprint."""
    base = _root(manifest)
    name = str(base.get("name_or_path", ""))
    return name if base.get("fingerprint") is None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else None


def _root(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base that all training began with."""
    base: Mapping[str, Any] = manifest.get("base") or {}
    while base.get("parent"):
        base = base["parent"]["base"]
    return base


def _method(manifest: Mapping[str, Any]) -> str:
    method = (manifest.get("experiment") or {}).get("method")
    kind = method.get("type") if isinstance(method, dict) else None
    return kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]+", kind) else ""


# --- sections ---------------------------------------------------------------------------------------------------


def _what(name: str, manifest: Mapping[str, Any]) -> str:
    base = _root(manifest).get("name_or_path")
    kind = "an adapter (PEFT)" if manifest.get("kind") == "adapter" else "a whole model"
    of = f" of {code(Path(str(base)).name if base_on_hub(manifest) is None else base)}" if base else ""
    if manifest.get("merge"):
        return f"{code(name)} is {kind}{of}, merged with ftlib of {len(manifest['merge']['parents'])} models."
    how = f" by the method {code(_method(manifest))}" if _method(manifest) else ""
    return f"{code(name)} is {kind}{of}, trained with ftlib{how}."


def _verdict(evaluation: Mapping[str, Any]) -> Iterator[str]:
    if evaluation.get("verdict"):
        yield f"**{plain(evaluation['verdict'])}**"


def _results(evaluation: Mapping[str, Any]) -> Iterator[str]:
    tasks = evaluation.get("tasks")
    if not tasks:
        return
    heads = ("task", "metric", "model", "result", "this model leads by", "p", "rows")
    yield _table(heads, [line for name, task in tasks.items() for line in _lines(name, task)])
    yield (
        "Results and leads have 95 % intervals. A lead is positive where this model is better; of a share it is in "
        "points. p says how often two models that are equally good differ as much. The hashes of the tasks' rows: "
        + ", ".join(f"{plain(name)} {code(task['hash'])}" for name, task in tasks.items())
        + "."
    )


def _lines(name: str, task: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line of the table for each metric and each model; this one first."""
    found = {(one["metric"], one["theirs"]): one for one in task["comparisons"]}
    for metric in task["metrics"]:
        for who in sorted(task["contenders"], key=lambda who: who != "winner"):
            number, lead = task["contenders"][who]["numbers"][metric], found.get((metric, who))
            called = "this model" if who == "winner" else plain(who)
            beside = (_lead(lead, metric, task), p_of(lead["p"])) if lead else ("", "")
            yield plain(name), plain(metric), called, written(number, metric, task), *beside, rows_of(task)


def _lead(found: Mapping[str, Any], metric: str, task: Mapping[str, Any]) -> str:
    factor, form = (100, "+.1f") if metric in task["shares"] else (1, "+.4g")
    lead, low, high = (None if found[key] is None else format(factor * found[key], form) for key in LEAD)
    return "no number" if lead is None else lead if low is None else f"{lead} ({low} to {high})"


def _limits(manifest: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[str]:
    tasks = evaluation.get("tasks") or {}
    if not tasks:
        yield "It was evaluated on no task. What it is worth is known from its loss alone."
    kept = {name: task for name, task in tasks.items() if task["role"] == "regression"}
    for name, task in kept.items():
        yield _forgotten(name, task)
    if not kept:
        yield "What it has forgotten of what its base can do is not known: no task has the role regression."
    if evaluation.get("failed"):
        yield f"{len(evaluation['failed'])} parts of the evaluation failed. The manifest names them."
    if manifest.get("merge"):
        yield "It was merged, and not trained: its numbers are computed from those of its parents."
    else:
        yield _of_seeds(evaluation.get("seeds"))
    gate = manifest.get("gate")
    if not isinstance(gate, dict) or gate.get("passed") is None:
        yield "The gate was skipped: nobody has checked that it is served as it was trained."
    yield "Safety, bias, and languages and subjects beyond these tasks were not evaluated."


def _forgotten(name: str, task: Mapping[str, Any]) -> str:
    """What became of something that should not be forgotten."""
    metric = next(iter(task["metrics"]))
    numbers = {who: as_number(one["numbers"][metric]["value"], metric, task) for who, one in task["contenders"].items()}
    told = f"Forgetting: on {plain(name)} it has {numbers['winner']} ({plain(metric)})"
    found = next((one for one in task["comparisons"] if (one["metric"], one["theirs"]) == (metric, "base")), None)
    if found is None:
        return f"{told}. The base did not do this task."
    lost = "a loss beyond chance" if is_loss(found) else "no loss beyond chance"
    return f"{told} and the base {numbers['base']} ({p_of(found['p'])}): {lost}."


def _of_seeds(seeds: Mapping[str, Any] | None) -> str:
    if not seeds or seeds.get("mean") is None or seeds.get("std") is None:
        return "It was trained with one seed. Another seed may give other results."
    count, metric = len(seeds["values"]), plain(seeds["metric"])
    return f"Its settings were trained with {count} seeds: {metric} {seeds['mean']:.4g} ± {seeds['std']:.2g}."


def _data(manifest: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    if manifest.get("data_hash"):
        yield f"Hash of the prepared rows: {code(manifest['data_hash'])}"
    for key, told in (manifest.get("data_versions") or {}).items():
        yield f"{code(key)}: {code(told['version'])}, hash {code(told['hash'][:16])}"
    for key, what in (("rows", "Kind of rows"), ("format", "Format")):
        if isinstance(data.get(key), str):
            yield f"{what}: {code(data[key])}"
    for key, what in (("train_rows", "Rows trained on"), ("eval_rows", "Rows held out"), ("max_length", "Most tokens")):
        if isinstance(data.get(key), int):
            yield f"{what}: {data[key]:,}"
    yield "No row of the data is in this card."


def _training(manifest: Mapping[str, Any], swept: Mapping[str, Any]) -> Iterator[str]:
    if manifest.get("merge"):  # the experiment in its manifest is that of its first parent
        return
    told = {path: ("swept", value) for path, value in swept.items()}
    told |= {path: ("set", value) for path, value in _settings(manifest) if path not in swept and path not in UNTOLD}
    if told:
        lines = [(code(path), code(_shown(value)), how) for path, (how, value) in told.items()]
        yield _table(("setting", "value", "by"), lines)
        yield f"The other settings of {', '.join(SETTINGS)} have ftlib's defaults."
    facts = [f"{key} {manifest[key]:,}" for key in ("step", "tokens", "seed") if isinstance(manifest.get(key), int)]
    if facts:
        yield f"Where the weights come from: {', '.join(facts)}."
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        yield "Versions: " + ", ".join(code(f"{name} {version}") for name, version in versions.items()) + "."


def _settings(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that are not ftlib's defaults, by dotted paths; none of an experiment of another version of
    ftlib."""
    try:
        experiment = Experiment.parse(dict(manifest.get("experiment") or {}), "the manifest")
    except ConfigError:
        return
    for name in SETTINGS:
        section = getattr(experiment, name)
        if section is not None:
            values = section.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            yield from ((f"{name}.{key}", value) for key, value in values.items())


def _lineage(manifest: Mapping[str, Any]) -> Iterator[str]:
    base = _root(manifest)
    if base.get("name_or_path"):
        yield f"Base: {code(base['name_or_path'] if base_on_hub(manifest) else Path(str(base['name_or_path'])).name)}"
    for key, what in (("revision", "Revision of the base"), ("fingerprint", "Fingerprint of the base (SHA-256)")):
        if base.get(key):
            yield f"{what}: {code(base[key])}"
    if manifest.get("parent"):
        yield f"Parent: {code(manifest['parent'])}, in the registry that it was promoted into"
    yield from _merged_of(manifest.get("merge"))
    if manifest.get("run"):
        yield f"Trial {code(manifest.get('trial', '?'))} of the run {code(Path(str(manifest['run'])).name)}"


def _merged_of(merge: Mapping[str, Any] | None) -> Iterator[str]:
    """The models that it was merged of, and how."""
    if not merge:
        return
    told = [f"{key} {code(merge[key])}" for key in ("density", "seed") if key in merge]
    yield ", ".join([f"Merged by the method {code(merge['method'])}", *told])
    parents = [("Parent", f", weight {parent['weight']:.4g}", parent) for parent in merge["parents"]]
    added_to = [("Added to", "", merge["base"])] if "base" in merge else []
    for what, weight, parent in [*added_to, *parents]:
        called = parent["name"] if "version" in parent else Path(parent["name"]).name
        yield f"{what}: {code(called)}{weight}, fingerprint (SHA-256) {code(parent['fingerprint'])}"


# --- Markdown ---------------------------------------------------------------------------------------------------


def _title(title: str, paragraphs: Iterable[str]) -> str:
    text = "\n\n".join(filter(None, paragraphs))
    return f"## {title}\n\n{text}" if text else ""


def _list(points: Iterable[str]) -> list[str]:
    return ["\n".join(f"- {point}" for point in points)]


def _table(heads: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    rows = (heads, ("---",) * len(heads), *lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plain(value: object) -> str:
    """A text of somebody's in a sentence of Markdown: on one line, without HTML, links and styles."""
    text = re.sub(r"<(?=[^\s\d])", "&lt;", " ".join(str(value).split()))
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)


def code(value: object) -> str:
    """The same, as code."""
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "\\|") + "`"


def _shown(value: Any) -> str:
    """A setting. A long text may be somebody's prompt, and a path names folders of somebody's machine."""
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST else f"({len(text)} characters)"
