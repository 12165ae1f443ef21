"""Progress where stderr is no terminal: lines with count, rate, ETA and facts, not one for every unit."""

from sdpg import progress


def test_lines_come_now_and_then_and_at_the_end(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.Progress(40, "grpo seed 0", "step", done=10) as p:
        for i in range(30):
            now[0] += 1.0
            p.update(1, f"reward {i}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "grpo seed 0: step 20/40, 1/s, ETA 20 s, reward 9",
        "grpo seed 0: step 30/40, 1/s, ETA 10 s, reward 19",
        "grpo seed 0: step 40/40, 1/s, ETA 0 s, reward 29",
    ]
