"""A checkpoint on the hub: its folder and card, and a stand-in for the hub's client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from sdpg.sharing.card import shareable
from sdpg.sharing.push import check_name, check_token, prepare, push
from sdpg.tasks.pinned import load_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(finished):
    results, _, _ = finished
    return prepare(results, "sdpg-ufkl", 1, to="me/mine", step=None, licence="apache-2.0")[0]


class Hub:
    """Stands in for HfApi. there: the repository, None for none; error: what every upload raises."""

    def __init__(self, there=None, error: Exception | None = None):
        self.there, self.error, self.calls = there, error, []

    def repo_info(self, to, repo_type):
        if self.there is None:
            raise _http(RepositoryNotFoundError, 404)
        return self.there

    def create_repo(self, to, **options):
        self.calls.append(("create", to, options))

    def upload_folder(self, **options):
        if self.error:
            raise self.error
        self.calls.append(("upload", sorted(path.name for path in Path(options["folder_path"]).iterdir()), options))


def _http(kind, status: int, text: str = "no"):
    module = sys.modules[next(base.__module__ for base in kind.__mro__ if base.__name__ == "HTTPError").partition(".")[0]]
    request = module.Request("GET", "http://hub")
    return kind(text, response=module.Response(status, request=request))


def test_the_folder_is_the_checkpoint_with_card_and_config(finished, folder):
    results, _, _ = finished
    assert {path.name for path in folder.iterdir()} == {"README.md", "sdpg_run.json", "config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_text() == "weights 4"  # the last
    assert folder.is_relative_to(results.root / ".work")
    run = json.loads((folder / "sdpg_run.json").read_text())
    assert run["config"]["method"] == "sdpg-ufkl"
    assert not {"hardware", "code"} & set(run)
    other, step = prepare(results, "sdpg-ufkl", 1, to="me/mine", step=0, licence=None)
    assert (step, (other / "model.safetensors").read_text()) == (0, "weights 0")


def test_the_card_says_what_it_is(finished, folder):
    results, _, _ = finished
    card = huggingface_hub.ModelCard((folder / "README.md").read_text())
    header = yaml.safe_load(card.content.split("---")[1])
    assert header["license"] == "apache-2.0"
    assert (header["library_name"], header["pipeline_tag"]) == ("transformers", "text-generation")
    assert "arxiv:2606.04036" in header["tags"]
    own = results.scores.query("method == 'sdpg-ufkl' and seed == 1 and task == 'chain' and step == 4 and metric == 'mean@8'")
    over = results.intervals.query("method == 'sdpg-ufkl' and task == 'chain' and step == 4 and metric == 'mean@8'")
    (over,) = over[over["selection"] == "step"].itertuples()
    for said in (
        "# mine",
        "Step 4 of 4 of a run of **",
        "(method `sdpg-ufkl`, seed 1, scale `fake`)",
        "| `beta_base` | 1.0 |",
        f"| chain | mean@8 | {own['value'].item():.3f} | {over.mean:.3f} [{over.low:.3f}, {over.high:.3f}], 2 seeds |",
        'AutoModelForCausalLM.from_pretrained("me/mine"',
        "eprint = {2606.04036}",
        "| torch | 2.13.0 |",
        "Commit of the project: 0123456789abcdef",
        "```yaml\nscale: fake\nseed: 1\n",
    ):
        assert said in card.content, said


def run_json(results, **config) -> None:
    """Give a run another config."""
    path = results.run_dir("grpo", 0) / "run.json"
    info = json.loads(path.read_text())
    info["config"] |= {"algorithm": {"algorithm": "grpo"}, **config}
    path.write_text(json.dumps(info))


def test_the_card_names_model_and_data_with_hashes_and_licences(finished):
    results, _, _ = finished
    data = {
        "train": {"path": "openai/gsm8k", "revision": "740312ad"},
        "validation": {},
        "evaluation": {"chain": {"path": "/home/someone/chain.jsonl", "licence": "CC-BY-4.0"}, "made": {"chain": {"count": 3}}},
    }
    task = {"template": "boxed", "chat_template": True}
    run_json(results, model={"pretrained": "Qwen/Qwen3-0.6B@c1899de2"}, data=data, task=task)
    folder, _ = prepare(results, "grpo", 0, to="me/mine", step=None, licence=None)
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["base_model"], header["datasets"]) == ("Qwen/Qwen3-0.6B", ["openai/gsm8k"])
    assert "license" not in header
    (train,) = (line for line in text.splitlines() if line.startswith("| train |"))
    assert train == f"| train | `{{path: openai/gsm8k, revision: 740312ad}}` | 5 | MIT | `{0:064x}` |"
    assert "| evaluation: chain | `{path: chain.jsonl, licence: CC-BY-4.0}` | ? | CC-BY-4.0 | `" in text
    assert "| evaluation: made | `{chain: {count: 3}}` | ? | generated | ? |" in text
    assert "GRPO and its relatives" in text
    assert "-min(rho A, clip(rho, 1 - e_l, 1 + e_h) A)" in text
    assert "[Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B) at `c1899de2`" in text
    assert "template `boxed`, in the tokenizer's chat template" in text
    assert "someone" not in text + (folder / "sdpg_run.json").read_text()


def test_without_scores_the_card_says_so(finished):
    results, _, _ = finished
    for name, said in (("intervals.csv", "| chain | mean@8 |"), ("scores.csv", "Not evaluated yet.")):
        (results.root / name).unlink()
        folder, _ = prepare(results, "grpo", 0, to="me/mine", step=None, licence=None)
        assert said in (folder / "README.md").read_text()


def test_paths_of_this_machine_lose_their_folders(tmp_path):
    spaced = tmp_path / "a model of mine"
    spaced.mkdir()
    for path in (spaced, spaced / "gone since", Path("/tmp/no such folder/base 1")):
        assert shareable({"model": str(path)}) == {"model": path.name}
    for text in ("/no_think Answer in and/or words.", "~ about 5 / 6", "../ or so", "/a\n/tmp/x"):
        assert shareable(text) == text
    given = {"a": "/home/x/model", "b": ["~/data.jsonl", "owner/name"], "c": "/ a text", "d": 3, "e": "../up/t.yaml"}
    assert shareable(given) == {"a": "model", "b": ["data.jsonl", "owner/name"], "c": "/ a text", "d": 3, "e": "t.yaml"}


def test_a_new_repository_is_private_unless_asked(folder):
    hub = Hub()
    assert push(folder, "me/mine", step=4, private=True, api=hub) == "https://huggingface.co/me/mine"
    (_, _, created), (_, files, options) = hub.calls
    assert created["private"] is True
    assert files == ["README.md", "config.json", "model.safetensors", "sdpg_run.json"]
    assert "*.safetensors" in options["delete_patterns"]  # shards of what was there before
    assert not folder.exists()


def test_a_public_repository_takes_a_checkpoint_only_when_asked(folder):
    hub = Hub(there=SimpleNamespace(private=False))
    with pytest.raises(ValueError, match="me/mine is there and public; push to it with --public"):
        push(folder, "me/mine", step=4, private=True, api=hub)
    assert hub.calls == []
    push(folder, "me/mine", step=4, private=False, api=hub)
    assert [call[0] for call in hub.calls] == ["upload"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("nodename nor servname provided"), "ConnectError: nodename nor servname provided; what was to go"),
        (ConnectionError("offline"), "ConnectionError: offline"),
        (
            _http(HfHubHTTPError, 401, "bad token hf_abcdefghijklmnop\nin two lines"),
            "bad token *** in two lines.*; `hf auth login`",
        ),
        (_http(HfHubHTTPError, 403), "; the token may not write there"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_the_hub_or_the_network_refuses_is_one_line_and_the_folder_stays(folder, error, said):
    with pytest.raises(ValueError, match="could not push to me/mine: ") as found:
        push(folder, "me/mine", step=4, private=True, api=Hub(error=error))
    text = str(found.value)
    assert "\n" not in text
    assert "hf_abc" not in text
    for part in said.split(".*"):
        assert part in text
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("to", ["mine", "", "a/b/c", "me/", "/mine", "me/mi ne", "me/mine.git", "../x", "me/x--y"])
def test_a_name_that_no_repository_has_is_refused(to):
    with pytest.raises(ValueError, match="--to: got .*, expected owner/name"):
        check_name(to)


def test_without_a_token_or_a_hub_nothing_begins(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ValueError, match="no token of the hub: `hf auth login`, or set HF_TOKEN"):
        check_token()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        check_token()


def test_a_run_that_cannot_be_pushed_is_refused_in_one_line(finished):
    results, _, _ = finished

    def refused(method="grpo", seed=0, step=None) -> str:
        with pytest.raises(ValueError) as error:
            prepare(results, method, seed, to="me/mine", step=step, licence=None)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "there is no run grpo seed 7 in" in refused(seed=7)
    assert "did you mean 'grpo seed" in refused(seed=7)
    (results.root / ".work" / "grpo" / "seed8").mkdir(parents=True)
    assert "grpo seed 8 is not finished; `sdpg train`" in refused(seed=8)
    assert "--step: got 3, and the checkpoints that were kept are 0, 4" in refused(step=3)
    run = results.run_dir("grpo", 0)
    (run / "checkpoints" / "step000004" / "model.safetensors").write_text("other")
    assert "model.safetensors is missing or not as it was saved" in refused()
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({"outcome": {"status": "diverged", "step": 3}, **info}))
    assert refused() == "grpo seed 0 diverged at step 3; such a run is not pushed"
    (run / "run.json").write_text(json.dumps({"outcome": {"status": "collapsed", "step": 3}, **info}))
    assert refused() == "grpo seed 0 collapsed at step 3; such a run is not pushed"


def test_the_dry_run_prints_the_card_and_needs_no_token(finished):
    results, _, scale = finished
    given = ["--scale", str(scale), "--results", str(results.root), "--method", "grpo", "--seed", "0", "--to", "me/mine"]
    blocked = "import socket, sys\nsocket.socket.connect = None\nsys.argv[0] = 'sdpg'\nfrom sdpg.__main__ import main\nmain()"
    command = [sys.executable, "-c", blocked, "push", *given, "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("---\nlibrary_name: transformers\n")
    assert "not pushed; this is" in done.stderr
    (folder,) = (results.root / ".work" / "push").iterdir()
    assert (folder / "model.safetensors").is_file()


def test_a_pinned_data_set_is_named_with_its_licence(finished):
    results, _, _ = finished
    data = {"train": {"dataset": "gsm8k", "split": "train"}, "evaluation": {"a": {"dataset": "aime24", "split": "train"}}}
    run_json(results, model={"pretrained": "Qwen/Qwen3-0.6B"}, data=data)
    folder, _ = prepare(results, "grpo", 0, to="me/mine", step=None, licence=None)
    text = (folder / "README.md").read_text()
    pinned = [load_dataset(name) for name in ("gsm8k", "aime24")]
    assert yaml.safe_load(text.split("---")[1])["datasets"] == sorted(of.hub for of in pinned)
    assert f"| {pinned[1].licence} |" in text and "generated" not in text.split("## Data")[1].split("##")[0]


def test_a_folder_beside_is_no_model_or_data_of_the_hub(finished, tmp_path, monkeypatch):
    results, _, _ = finished
    monkeypatch.chdir(tmp_path)
    for name in ("models/mybase", "data/mine"):
        (tmp_path / name).mkdir(parents=True)
    run_json(results, model={"pretrained": "models/mybase"}, data={"train": {"path": "data/mine"}})
    text = (prepare(results, "grpo", 0, to="me/mine", step=None, licence=None)[0] / "README.md").read_text()
    assert "Base model: `models/mybase`." in text
    assert not {"base_model", "datasets"} & set(yaml.safe_load(text.split("---")[1]))
