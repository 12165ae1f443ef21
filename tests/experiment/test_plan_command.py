"""The command `sdpg plan`."""

import re
import subprocess
import sys

from tests.experiment.planning import ROOT


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sdpg", "plan", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_the_command_on_a_cpu_scale():
    done = command()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cpu: tiny Qwen3, 165,760 parameters in 2 layers; methods: 10, seeds: 10\na CPU process")
    assert done.stdout.splitlines()[-1].startswith("cpu fits: at most 0.8 of 4.0 GB")


def test_the_command_in_the_papers_setting_prints_what_the_documentation_shows():
    done = command("--scale", "paper-qwen3-4b", "--gpus", "8", "--gpu-memory", "80")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"```\n{done.stdout}```" in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_what_the_documentation_says_of_one_card_is_what_the_command_prints():
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    examples = re.findall(r"^sdpg plan (.*?) +# .*\n# (.*)$", text, re.M)
    assert len(examples) == 3
    for arguments, last in examples:
        assert command(*arguments.split()).stdout.splitlines()[-1] == last


def test_the_command_takes_a_file_and_says_with_its_exit_code_that_it_does_not_fit(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("extends: paper-qwen3-4b\nname: own\n")
    done = command("--scale", str(file), "--gpu", "l40s", "--gpus", "1", "--set", "train.steps=3")
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^own does not fit: sdpg-ufkl needs .* GB in phase \w+, each L40S has 51.5; it fits", done.stdout, re.M)
    cards = command("--gpu", "l4")  # a CPU scale, asked about a card
    assert "\n1 x L4, 25.8 GB" in cards.stdout


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom sdpg.experiment import machine, plan_text, planner\nfrom sdpg.config import resolve\n"
        "c = resolve('paper-qwen3-4b')\n"
        "p = planner.make_plan(c, gpu=machine.card(None, 80), place=machine.placement(c, machine.card(None, 80), 8))\n"
        "assert plan_text.render(p)\nprint(*({'torch', 'transformers', 'vllm', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
