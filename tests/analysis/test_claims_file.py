"""config/claims.yaml: mistakes in it are named, and its keys are explained."""

from __future__ import annotations

import pytest
import yaml

from sdpg.artefacts.claims.spec import CLAIMS, Claim, read_claims
from sdpg.config import ConfigError
from tests.analysis.fake_claims import alone, of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figur": "x"}, "claim 1a: key 'figur' is unknown; did you mean 'figure'"),
        ({"test": "maen"}, "claim 1a: test: got 'maen'; did you mean 'mean'"),
        ({"figure": "final_acuracy"}, "figure: got 'final_acuracy'; did you mean 'final_accuracy'"),
        ({"methods": ["sdpg-urkll", "grpo"]}, "claim 1a: method 'sdpg-urkll' is unknown; did you mean 'sdpg-urkl'"),
        ({"methods": ["grpo"]}, "claim 1a: test 'mean' takes 2 methods, got 1"),
        ({"share": 0.5}, "claim 1a: test 'mean' does not use the key 'share'; it takes combine, data, methods, metric"),
        ({"test": "change"}, "claim 1a: test 'change' needs the key 'after'"),
        ({"role": "primry"}, "claim 1a: role: got 'primry'; did you mean 'primary'"),
        ({"effect": 0.015}, "claim 1a: half of effect 0.015 lies below margin 0.01"),
        ({"effect": 0}, "claim 1a: effect: got 0; input should be greater than 0"),
        ({"needs": [{"what": "hedroom", "method": "grpo"}]}, "claim 1a: needs: got 'hedroom'; did you mean 'headroom'"),
        (
            {"needs": [{"what": "rise", "method": "opcdd", "least": 0.1}]},
            "claim 1a: method 'opcdd' is unknown; did you mean 'opcd'",
        ),
        ({"needs": [{"what": "length", "method": "grpo"}]}, "claim 1a: needs: length needs the key 'least'"),
        ({"needs": [{"what": "headroom"}]}, "claim 1a: needs: headroom needs the key 'method'"),
        ({"needs": [{"what": "pace", "method": "grpo"}]}, "claim 1a: needs: pace is of all methods, got the key 'method'"),
        ({"needs": [{"what": "pace"}]}, "claim 1a: needs: pace goes with data: training, not relative"),
        ({"needs": [{"what": "length", "methd": "grpo"}]}, "claim 1a: key 'methd' is unknown; did you mean 'method'"),
        ({"margin": -1}, "claim 1a: margin: got -1; input should be greater than or equal to 0"),
        ({"family": ["matchd"]}, "claim 1a: family: got 'matchd'; did you mean 'matched'"),
        ({"test": "mean", "data": "training", "window": [1, 0.5]}, "window \\[1, 0.5\\] is empty"),
        ({"test": "mean", "data": "evaluation", "window": [0, 1], "relative": True}, "relative goes with data: training"),
        ({"data": "training", "tasks": ["a"]}, "tasks and combine go with"),
        (
            {"relative": True, "data": "training", "direction": "below", "margin": 1.5, "effect": 0.9},
            "a relative margin below must be less than 1, got 1.5",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read_claims(alone(of("1a") | change, tmp_path))


def test_a_missing_key_and_a_second_claim_of_the_same_name(tmp_path):
    claim = of("1a")
    with pytest.raises(ConfigError, match="claim 1a: key 'margin' is missing"):
        read_claims(alone({key: value for key, value in claim.items() if key != "margin"}, tmp_path))
    path = alone(claim, tmp_path)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"claims": content["claims"] * 2}))
    with pytest.raises(ConfigError, match="the id '1a' is there twice"):
        read_claims(path)


def test_every_key_of_the_schema_is_explained_and_used():
    properties = Claim.model_json_schema()["properties"]
    assert all(block.get("description") for block in properties.values())
    used = {key for claim in yaml.safe_load(CLAIMS.read_text())["claims"] for key in claim}
    assert used | {"tasks", "combine"} == set(properties)
