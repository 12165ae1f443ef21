"""Worked solutions from an endpoint: what is asked, sent again, given up, paid and kept."""

import json
import re
import time
from pathlib import Path

import pytest

from sdpg.experiment import solutions
from sdpg.experiment.problems import make_problems
from sdpg.solutions import client
from sdpg.solutions import endpoint as asking
from sdpg.tasks.data import load_problems
from tests.solutions.scripted import KEY, Reply, asked_of, endpoint, fault, make, refusal, rows, says, scale_of, solved

ROOT = Path(__file__).resolve().parents[2]


def journal(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "out" / "solutions" / "journal.jsonl").read_text().splitlines()]


def test_a_solution_is_kept_if_its_answer_is_right_and_every_number_is_recorded(tmp_path):
    def script(number, question):
        return says("It is \\boxed{999}") if number == 0 else solved(question)

    with endpoint(script) as server:
        said, report, table = make(tmp_path, asked_of(server, extra={"top_p": 0.9}))
    assert report["problems"] == report["accepted"] == 4 and report["without"] == 0
    assert report["responses"] == len(server.asked) == 5 and report["rejected"] == {"wrong answer": 1}
    assert report["accepted_by_try"] == {"1": 3, "2": 1}
    assert report["tokens"] == {"prompt_tokens": 250, "completion_tokens": 100}
    assert report["cost"] == pytest.approx((250 * 1 + 100 * 2) / 1e6)
    assert 0 < report["cost"] < report["estimated_cost"] and "4 of 4" in said
    row = table.set_index("id").loc["train-000001"]
    assert row["solution"] == "Add 3 and 3.\n\\boxed{6}" and row["try"] == 1 and row["writer"] == "endpoint"
    assert (row["model"], row["served"], row["host"]) == ("m-1", "served-1", server.url.split("/")[2])
    assert (row["prompt_tokens"], row["completion_tokens"], len(row["prompt"]), row["at"][:2]) == (50, 20, 64, "20")
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["top_p"]) == ("m-1", 1.0, 100, 0.9)
    assert "in the form\n\\boxed{42}" in body["messages"][0]["content"]
    assert all("The correct answer" not in body["messages"][0]["content"] for body in server.bodies)
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    for file in (tmp_path / "out").rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes()


def test_the_answer_is_shown_where_the_scale_says_so(tmp_path):
    with endpoint() as server:
        make(tmp_path, asked_of(server, show_answer=True, tokens_key="max_completion_tokens"), problems=1)
    assert "The correct answer is 3." in server.bodies[0]["messages"][0]["content"]
    assert server.bodies[0]["max_completion_tokens"] == 100 and "max_tokens" not in server.bodies[0]


def test_the_training_set_gets_what_was_accepted_and_what_is_missing_is_counted(tmp_path):
    problems = [*rows(3), {"question": "What is 1 + 1?", "answer": "2", "solution": "One and one."}]

    def script(number, question):
        return says("\\boxed{0}") if question == "What is 3 + 3?" else solved(question)

    with endpoint(script) as server:
        said, report, table = make(tmp_path, asked_of(server, tries=2), problems=problems)
    assert "1 problems stay without one" in said and "2 wrong answer" in said and report["in_the_data"] == 1
    assert len(server.asked) == 4 and len(table) == 2
    config = scale_of(tmp_path, asked_of(server), problems=problems)
    made = make_problems(config, tmp_path / "out" / "data")["train"]
    assert made["solutions"] == {"in_the_data": 1, "written": 2, "missing": 1}
    assert made["missing_solutions"]["dropped"] == 1 and made["problems"] == 3
    texts = {problem.question: problem.solution for problem in load_problems(tmp_path / "out" / "data" / "train.parquet")}
    assert texts["What is 1 + 1?"] == "One and one." and texts["What is 2 + 1?"].startswith("Add 2 and 1.")


def test_without_the_block_nothing_is_asked_and_the_report_is_as_it_was(tmp_path):
    config = scale_of(tmp_path, None)
    assert not solutions.wanted(config) and "solutions" not in config.dump()["data"]
    assert "solutions" not in make_problems(config.model_copy(update={"methods": {"grpo": {}}}), tmp_path / "data")["train"]
    with pytest.raises(ValueError, match="nothing to write"):
        solutions.make_solutions(config, tmp_path / "out")


def test_no_method_that_reads_them_no_request(tmp_path):
    with endpoint() as server:
        assert "no method's teacher reads" in refusal(tmp_path, asked_of(server), methods=["grpo"])
    assert not server.asked


def test_the_data_rule_says_what_to_run_first(tmp_path):
    config = scale_of(tmp_path, asked_of("http://127.0.0.1:9/v1"))
    with pytest.raises(ValueError, match=r"solutions\.parquet does not exist; write it first"):
        make_problems(config, tmp_path / "out" / "data")
    (tmp_path / "out" / "solutions").mkdir(parents=True)
    (tmp_path / "out" / "solutions" / "solutions.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(ValueError, match="could not be read .*; delete it and run the rule solutions again"):
        make_problems(config, tmp_path / "out" / "data")


@pytest.mark.parametrize(
    ("reply", "lost"),
    [
        (fault(500, "boom"), 0),
        (fault(429, "slow down"), 0),
        (fault(408), 0),
        (fault(503, "overloaded"), 0),
        (Reply(b"<html>bad gateway</html>", 502), 0),
        (Reply(b"{not json"), 1),
        (Reply(b"[" * 100_000), 1),
        (Reply({"choices": []}), 1),
        (Reply({"choices": [{"message": {"content": 7}}]}), 1),
        (Reply([1, 2]), 1),
        (Reply(drop=True), 1),
        (says("\\boxed{3}", after=1.0), 1),
    ],
    ids=lambda value: f"{value.status} {value.body[:20]!r}" if isinstance(value, Reply) else str(value),
)
def test_what_may_work_later_is_sent_again(tmp_path, reply, lost):
    with endpoint(lambda number, question: reply if number < 2 else solved(question)) as server:
        _, report, table = make(tmp_path, asked_of(server, timeout=0.3 if reply.after else 5), problems=2)
    assert len(table) == 2 and len(server.asked) == 4
    assert report["without_answer"] == 2 * lost and report["responses"] == 2
    ceiling = (1 * asking.most_tokens(server.bodies[0]["messages"][0]["content"]) + 2 * 100) / 1e6
    assert report["cost"] == pytest.approx(2 * 90 / 1e6 + 2 * lost * ceiling, rel=0.02)


def test_an_answer_that_drips_in_is_given_up_in_time(tmp_path):
    slow = says("\\boxed{3}")
    slow.drip = 0.1
    with endpoint(lambda number, question: slow) as server:
        began = time.monotonic()
        said = refusal(tmp_path, asked_of(server, timeout=0.5, retries=0), problems=1)
    assert "gave no answer within timeout=0.5 s" in said and time.monotonic() - began < 5


def test_a_long_pause_is_said(capsys, monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 30.0)
    writer = object.__new__(asking.EndpointWriter)
    writer.next_at, writer.crowded = 0.0, 0
    writer._pause(client.Failed("h answers 500"), 0)
    assert re.search(r"waiting \d+ s: h answers 500", capsys.readouterr().err)


@pytest.mark.parametrize("proxy", ["socks9://h:1", "h h", "http://[half"])
def test_a_proxy_that_is_none_is_one_line(tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with endpoint() as server:
        said = refusal(tmp_path, asked_of(server, retries=0))
    assert "prox" in said or "cannot be reached" in said


def test_retry_after_is_obeyed_by_every_request(tmp_path):
    with endpoint(lambda number, question: fault(429, retry_after="0.6") if number == 0 else solved(question)) as server:
        make(tmp_path, asked_of(server, concurrency=1))
    assert len(server.asked) == 5
    assert server.times[1] - server.times[0] >= 0.59


def test_the_pause_doubles_up_to_a_ceiling(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(asking.random, "uniform", lambda low, high: high)
    writer = object.__new__(asking.EndpointWriter)
    writer.next_at, writer.crowded = 0.0, 0
    assert [writer._pause(client.Failed("x"), n) for n in (0, 1, 2, 5, 6, 90)] == [1, 2, 4, 32, 60, 60]
    assert writer.next_at == 0.0
    assert writer._pause(client.Failed("x", retry_after=7, crowded=True), 0) == 7
    assert 6 < writer.next_at - time.monotonic() <= 7


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            fault(401, f"Incorrect API key provided: {KEY}"),
            r"401 \(Incorrect API key provided: \[key\]\): the key in TEST_KEY is not",
        ),
        (fault(401, f"bad key {KEY[:8]}****{KEY[-4:]}"), "the key in TEST_KEY is not taken"),
        (fault(403), "the key in TEST_KEY is not taken"),
        (fault(404, "no model m-1"), r"404 \(no model m-1\): it has no such page or model; base_url is http.*, model 'm-1'"),
        (fault(402), "no credit is left"),
        (fault(429, "You exceeded your quota", "insufficient_quota"), "no credit is left"),
        (fault(429, "later", retry_after="9000"), "asks to wait 9000 s, longest_wait is 600; run the same command later"),
        (fault(429, "later", retry_after="Fri, 01 Jan 2100 00:00:00 GMT"), r"asks to wait \d+ s"),
        (fault(301, location="http://127.0.0.1:9/"), "it points elsewhere"),
        (Reply(b"<html>hello", 418), "no answer of an OpenAI-compatible endpoint"),
        (fault(500, "boom"), r"500 \(boom\); sent 3 times, which is all that retries=2 allows"),
        (Reply(b"<html>login</html>"), "no chat completion: '<html>login</html>'; sent 3 times"),
        (fault(400, "temperature is not supported"), r"refuses every prompt: .* 400 \(temperature is not supported\)"),
        (Reply(b" " * (client.MOST_BYTES + 1)), "more than 8388608 bytes; sent 3 times"),
    ],
    ids=lambda value: f"{value.status} {value.body[:30]!r}" if isinstance(value, Reply) else "",
)
def test_what_will_not_work_stops_it_in_one_line_and_can_be_mended(tmp_path, reply, expected):
    replies = [reply]
    with endpoint(lambda number, question: replies[0] or solved(question)) as server:
        block = asked_of(server, retries=2)
        said = refusal(tmp_path, block)
        assert re.search(expected, said), said
        assert said.startswith("data.solutions.endpoint: ")
        assert not (tmp_path / "out" / "solutions" / "solutions.parquet").exists()
        before, replies[0] = len(server.asked), None
        assert len(make(tmp_path, block)[2]) == 4
        assert len(server.asked) == before + 4


def test_an_endpoint_that_is_down(tmp_path):
    with endpoint() as server:
        pass
    said = refusal(tmp_path, asked_of(server, retries=2))
    assert "cannot be reached" in said and "sent 3 times" in said and "is it running, and base_url right?" in said
    said = refusal(tmp_path, asked_of("http://no-such-host.invalid/v1", retries=0))
    assert "no-such-host.invalid cannot be reached" in said


def test_what_was_answered_before_the_trouble_is_kept(tmp_path):
    with endpoint(lambda number, question: solved(question) if number < 2 else fault(401)) as server:
        said = refusal(tmp_path, asked_of(server))
        assert "(2 answers are kept in " in said and "the same command goes on from there" in said
        server.script = lambda number, question: solved(question)
        make(tmp_path, asked_of(server))
    assert [server.asked.count(row["question"]) for row in rows(4)] == [1, 1, 2, 1]


def test_one_prompt_that_is_refused_is_counted_and_the_others_go_on(tmp_path):
    def script(number, question):
        return fault(400, "content policy") if question == "What is 2 + 1?" else solved(question)

    with endpoint(script) as server:
        said, report, table = make(tmp_path, asked_of(server))
        assert len(table) == 3 and sum(report["refused"].values()) == 1 and "content policy" in said
        assert make(tmp_path, asked_of(server))[1]["refused"] == report["refused"]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "is not set; put the key of"),
        ("  ", "is not set"),
        ("sk-ä", "has characters"),
        ("a b", "has characters"),
        (None, "is not"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_before_any_request(tmp_path, monkeypatch, value, expected):
    monkeypatch.delenv("TEST_KEY") if value is None else monkeypatch.setenv("TEST_KEY", value)
    with endpoint() as server:
        said = refusal(tmp_path, asked_of(server))
    assert "TEST_KEY" in said and expected in said and not server.asked
    assert not value or not value.strip() or value not in said


@pytest.mark.parametrize(
    "change",
    [
        *[{"key_env": value} for value in (KEY, "sk_lowercase", "", 7, "A B", ["X"])],
        {"api_key": KEY},
        {"key": KEY},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://{KEY}@host/v1"},
    ],
    ids=str,
)
def test_a_key_in_the_config_is_refused_and_not_shown(tmp_path, change):
    said = refusal(tmp_path, asked_of("http://127.0.0.1:9/v1", **change))
    assert "data.solutions.endpoint" in said and "sk_lower" not in said


def test_an_endpoint_without_keys_gets_none(tmp_path):
    with endpoint() as server:
        make(tmp_path, asked_of(server, key_env=None))
        assert "authorization" not in server.headers[0]
        server.script = lambda number, question: fault(401)
        assert "it asks for a key: name its variable in key_env" in refusal(
            tmp_path, asked_of(server, key_env=None, model="m-2")
        )


def test_a_cost_beyond_the_limit_is_refused_before_any_request(tmp_path):
    with endpoint() as server:
        said = refusal(tmp_path, asked_of(server, max_cost=0.001))
        assert "max_cost: got 0.001, but 4 problems, 12 tries" in said and "nothing was asked" in said and not server.asked
        assert "expected_tries" in said
        _, report, _ = make(tmp_path, asked_of(server, max_cost=0.003, expected_tries=1, expected_tokens=20))
    assert report["estimated_cost"] == pytest.approx(4 * (sum(map(prompt_tokens, server.bodies)) / 4 + 40) / 1e6, rel=0.01)


def prompt_tokens(body) -> int:
    return asking.tokens_in(body["messages"][0]["content"])


def test_a_cost_that_grows_beyond_its_estimate_stops_before_the_limit(tmp_path):
    with endpoint(lambda number, question: says("\\boxed{0}", usage=(50, 90))) as server:
        block = asked_of(server, max_cost=0.0015, expected_tries=1, expected_tokens=50)
        said = refusal(tmp_path, block)
        assert "another request might go beyond max_cost=0.0015" in said
        spent = sum(line["cost"] for line in journal(tmp_path) if line["event"] == "answered")
        assert 0 < spent <= 0.0015
        count = len(server.asked)
        assert "max_cost" in refusal(tmp_path, block) and len(server.asked) == count


def test_an_estimate_asks_nothing_and_knows_what_is_done(tmp_path):
    with endpoint() as server:
        config = scale_of(tmp_path, asked_of(server))
        said = solutions.make_solutions(config, tmp_path / "out", estimate=True)
        assert "4 problems, 12 tries" in said and "0 spent so far (max_cost 10)" in said and not server.asked
        solutions.make_solutions(config, tmp_path / "out")
        said = solutions.make_solutions(config, tmp_path / "out", estimate=True)
    assert "nothing is left to ask; spent so far 0.00036" in said


def test_requests_keep_to_the_rate_and_to_the_number_at_a_time(tmp_path):
    def script(number, question):
        reply = solved(question)
        reply.after = 0.1
        return reply

    with endpoint(script) as server:
        make(tmp_path, asked_of(server, concurrency=3), problems=9)
        assert server.most == 3
    with endpoint() as server:
        make(tmp_path, asked_of(server, requests_per_minute=600, model="m-2"), problems=5)
    gaps = [later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False)]
    assert min(gaps) > 0.08


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (says("\\boxed{3}", finish="length"), "cut at max_tokens"),
        (says("\\boxed{3}", finish="content_filter"), "ended by the endpoint"),
        (says(None), "empty"),
        (says("<think>\\boxed{3}</think>  "), "empty"),
        (says("nul \0 \\boxed{3}"), "no valid text"),
        (says("half \ud800 \\boxed{3}"), "no valid text"),
        (says("x" * 200_000 + "\\boxed{3}"), "longer than 100000 characters"),
        (says("y " * 4_000 + "\\boxed{3}"), "too long for the teacher's prompt"),
        (says("It is 3."), "wrong answer"),
        (says("\\boxed{" + "(" * 1_000 + "3" + ")" * 1_000 + "}"), "not judged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_useless_responses_are_not_accepted_and_counted(tmp_path, reply, why):
    with endpoint(lambda number, question: reply) as server:
        _, report, table = make(tmp_path, asked_of(server, tries=1), problems=1)
    assert table.empty and report["without"] == 1
    assert report["rejected"] == {why: 1}


def test_a_draft_before_the_solution_is_left_out_and_unknown_tokens_are_guessed(tmp_path):
    with endpoint(lambda number, question: says("<think>hm, \\boxed{1}?</think>\nSo \\boxed{3}", usage=None)) as server:
        _, report, table = make(tmp_path, asked_of(server), problems=1)
    assert table["solution"].tolist() == ["So \\boxed{3}"] and report["token_counts_guessed"] == 1 and report["cost"] > 0


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": "9"}, {"prompt_tokens": 1e30}, {}]
)
def test_a_usage_that_is_none_costs_what_the_text_suggests(tmp_path, usage):
    with endpoint(lambda number, question: says("\\boxed{3}", usage=usage)) as server:
        _, report, _ = make(tmp_path, asked_of(server), problems=1)
    assert report["token_counts_guessed"] == 1 and 0 < report["cost"] < 0.001
