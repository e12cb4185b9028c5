"""The name of every file of a run directory, once: what it is, who writes it, and whether it travels to the run's URL.

    <storage>/<experiment>-<time>/
      experiment.yaml    the experiment as its author wrote it, and what was set beside it
      resolved.json      the experiment with every default, its data's hash, its base, the versions of the libraries
      events.jsonl       who started, stopped or failed, and when
      leaderboard.csv    the trials, best first
      evaluation.json    the tasks' results: base, few-shot, winner, and what is chance
      answers.jsonl      each answer of those, beside the right one
      report.html        all of it as a page
      pack.json          of a packed run: how wide its packs are, and what is promised of them
      tracking.json      what W&B, MLflow and TensorBoard have of it
      tune/              Ray Tune's own state
      study.db           Optuna's study, where sweep.search.storage is `run`: optuna-dashboard reads it
      commands/          what people have asked of the running sweep
      wandb/ tensorboard/  the trackers' own files         train/  what Ray Train keeps of jobs of several workers
      signature.json     that the run is this user's: nobody else's is resumed
      index.json         only at a URL: which state of each directory is meant
      .tokenizer/        the tokenizer that packed trials link into their weights
      pack-error-<pid>.txt  the traceback of a host that broke
      trials/<id>/       `base`: the untuned base; 000, 001, ...: in the order in which they were proposed
        params.json      the point of the space
        point.json       the same, ratios unresolved
        status.json      where it stands, and why
        lineage.json     whose clone it is, and what a person changed
        metrics.jsonl    a row for each log and evaluation
        manifest.json    what the weights are
        error.txt        the traceback of a failure
        storage.jsonl    when it waited for the URL
        place.json       the machine that it is on
        leave.json       that it should leave that machine, and why
        checkpoint/      the latest position
        adapter/         the weights of the best evaluation; model/ of a whole model

docs/run_directory.md shows what is in them. Each file has one writing process: the driver, or the
trial itself. Of `base`, the process that evaluates it writes everything.
"""

from __future__ import annotations

EXPERIMENT = "experiment.yaml"
RESOLVED = "resolved.json"
EVENTS = "events.jsonl"
LEADERBOARD = "leaderboard.csv"
EVALUATION = "evaluation.json"
ANSWERS = "answers.jsonl"
REPORT = "report.html"
PACK_FILE = "pack.json"
TRACKING = "tracking.json"
TUNE = "tune"
STUDY = "study.db"
COMMANDS = "commands"
LOCK = ".lock"
SIGNATURE = "signature.json"
INDEX = "index.json"
TOKENIZER = ".tokenizer"
NESTED = "train"
WANDB = "wandb"
TENSORBOARD = "tensorboard"
PACK_ERROR = "pack-error-{pid}.txt"
TRIALS = "trials"

BASE = "base"  # the id under which the untuned base is evaluated
FIRST = "000"  # the id of the first trial

PARAMS = "params.json"
STATUS = "status.json"
POINT = "point.json"
LINEAGE = "lineage.json"
METRICS = "metrics.jsonl"
MANIFEST = "manifest.json"
ERROR = "error.txt"
WAITS = "storage.jsonl"
PLACE = "place.json"
LEAVE = "leave.json"
CHECKPOINT = "checkpoint"
ADAPTER = "adapter"
MODEL = "model"

# What travels to a run's URL, by who carries it there. What is in none of these stays on its machine.
OF_RUN = (EXPERIMENT, RESOLVED, EVENTS, LEADERBOARD, EVALUATION, ANSWERS, REPORT, PACK_FILE, TRACKING)  # the driver
OF_TRIAL_BY_DRIVER = (PARAMS, STATUS, POINT, LINEAGE)  # the driver, for each trial
OF_TRIAL = (METRICS, MANIFEST, ERROR, WAITS)  # the trial
WHOLE = (CHECKPOINT, ADAPTER, MODEL)  # the trial: each is replaced as a whole
STAYS = (LOCK, PLACE, LEAVE, SIGNATURE, STUDY, TOKENIZER, NESTED, WANDB, TENSORBOARD, PACK_ERROR)  # of one machine
