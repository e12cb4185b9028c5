from ftlib.run.tracking.names import Names, short_names

NAMES = Names(("tickets",), {"adapter.r": "r"})


def test_metrics_are_called_as_wandb_users_expect() -> None:
    named = {
        "step": "train/global_step", "loss": "train/loss", "train_loss": "train/train_loss", "eval_loss": "eval/loss",
        "rewards/low/mean": "train/rewards/low/mean", "eval_rewards/margins": "eval/rewards/margins",
        "machine/memory_gib": "system/memory_gib", "tickets/exact_match": "tickets/exact_match",
    }  # fmt: skip
    assert {name: NAMES.metric(name) for name in named} == named


def test_a_row_is_its_numbers() -> None:
    assert NAMES.row({"step": 3, "loss": 1.0, "time": 5.0, "eval_parts": [1.0], "eval_note": "x"}) == {
        "train/global_step": 3, "train/loss": 1.0,
    }  # fmt: skip
    assert NAMES.row({"step": 3, "all_rows": {"step": 2, "eval_loss": 1.0, "eval_loss_parts": [1.0]}}) == {
        "train/global_step": 3, "eval/loss_all_rows": 1.0,
    }  # fmt: skip


def test_a_parameter_is_called_by_the_last_part_of_its_path() -> None:
    paths = ["adapter.r", "train.learning_rate", "method.student.learning_rate"]
    assert short_names(paths) == {
        "adapter.r": "r",
        "train.learning_rate": "train_learning_rate",
        "method.student.learning_rate": "student_learning_rate",
    }
    assert short_names(["data.trial"]) == {"data.trial": "data_trial"}  # a taken name


def test_what_a_person_changed_leaves_the_swept_names_alone() -> None:
    assert NAMES.parameters({"method.r": 1, "adapter.r": 2}) == {"r": 2, "method_r": 1}
