"""Models behind URLs among those that a winner is compared with."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError

URL = "https://api.together.xyz/v1#llama"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"against": ["https://api.together.xyz/v1"]}, r"names no model: write https://api.together.xyz/v1#MODEL"),
        ({"against": ["https:///v1#m"]}, "'https:///v1' names no host"),
        ({"against": ["https://me:secret@h.example/v1#m"]}, "password in the URL of h.example would stand in reports"),
        ({"against": [URL], "key_env": {"api.together.xy": "K"}}, r"no model at 'api.together.xy'. Did you mean 'api."),
        (
            {"against": ["base"], "key_env": {"api.together.xyz": "K"}},
            "at 'api.together.xyz'. It names no URL",
        ),
        ({"against": [URL], "metrics": ["perplexity"]}, r"perplexity \(of the task 't'\) needs the model itself"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused(given: dict[str, Any], reason: str, tree: dict[str, Any]) -> None:
    task = {"name": "t", "data": "x.jsonl", "metrics": given.pop("metrics", ["exact_match"])}
    with pytest.raises(ConfigError, match=reason) as refused:
        Experiment.parse({**tree, "evaluation": {"tasks": [task], **given}})
    assert "secret" not in str(refused.value)


def test_a_url_with_its_key_is_taken(tree: dict[str, Any]) -> None:
    given = {"against": ["base", URL], "key_env": {"API.together.xyz": "K"}}
    assert Experiment.parse({**tree, "evaluation": given}).evaluation.served == [URL]
