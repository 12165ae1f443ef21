"""Chat templates: a day that stays, options and system prompts of student and teacher, and templates that fail in one line."""

import pytest
from transformers import PreTrainedTokenizerFast

from sdpg.config import ConfigError, resolve
from sdpg.config.settings import Task
from sdpg.experiment.base_model import make_base_model
from sdpg.tasks.task import make_task
from sdpg.types import Problem
from tests.scale import config_of, message
from tests.tasks.test_task_text import byte_level
from tests.workflow.test_own_model import make_model

PROBLEM = Problem("p", "1 + 1?", "2", "It is 2.", "x")
PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
DATED = PLAIN + "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y %H:%M') }}{% endif %}"
THINKING = PLAIN + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ effort }}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
DROPS_SYSTEM = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"


def prompts(chat_template, **settings):
    """Return the texts of the student's and the teacher's prompt."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(["<s>", "</s>"]), eos_token="</s>")
    tokenizer.chat_template = chat_template
    task = make_task(Task(**{"template": "plain", "verifier": "exact", "chat_template": True} | settings), tokenizer)
    return [tokenizer.decode(ids) for ids in (task.student_prompt(PROBLEM), task.teacher_prompt(PROBLEM))]


@pytest.mark.parametrize(("settings", "day"), [({}, "26 Jul 2024 00:00"), ({"chat_date": "2025-01-31"}, "31 Jan 2025 00:00")])
def test_a_template_that_writes_the_date_writes_the_configs(settings, day):
    assert all(text.endswith(day) for text in prompts(DATED, **settings))


def test_the_date_is_part_of_the_resolved_config(scale_file):
    assert resolve(scale_file()).dump()["task"]["chat_date"] == "2024-07-26"
    text = "methods: {grpo: }\ntask: {chat_template: true, chat_date: 2025-01-31}"  # YAML's own date
    assert resolve(scale_file("methods: {grpo: }", text)).task.chat_date == "2025-01-31"


@pytest.mark.parametrize(
    ("settings", "student", "teacher"),
    [
        ({}, ("<user>", ""), ("<user>", "")),
        ({"system": "Be brief."}, ("<system>Be brief.<user>", ""), ("<system>Be brief.<user>", "")),
        ({"teacher_system": "You know."}, ("<user>", ""), ("<system>You know.<user>", "")),
        ({"system": "Be brief.", "teacher_system": ""}, ("<system>Be brief.<user>", ""), ("<user>", "")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, ("<user>", "<think></think>"), ("<user>", "<think></think>")),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "teacher_chat_template_kwargs": {"effort": "high"}},
            ("<user>", "<think></think>"),
            ("<user>", "high"),
        ),
        ({"chat_template_kwargs": {"effort": "low"}, "teacher_chat_template_kwargs": {}}, ("<user>", "low"), ("<user>", "")),
    ],
)
def test_system_prompt_and_options_are_apart_for_student_and_teacher(settings, student, teacher):
    for text, (start, end) in zip(prompts(THINKING, **settings), (student, teacher), strict=True):
        assert text.startswith(start + "1 + 1?") and text.endswith(end)
        assert text.count("<think></think>") == end.count("<think></think>")


@pytest.mark.parametrize(
    ("template", "settings", "said"),
    [
        (NO_SYSTEM, {"system": "Be brief."}, r"fails on the student's prompt: TemplateError: System role.*\(task.system\)"),
        (NO_SYSTEM, {"teacher_system": "You know."}, r"fails on the teacher's prompt.*\(task.teacher_system\)"),
        (DROPS_SYSTEM, {"system": "Be brief."}, "leaves out the system prompt of the student; put its text into task.template"),
        ("{{ messages[0]['text'] }}", {}, "leaves out the user's message of the student"),
        ("{% if %}", {}, "fails on the student's prompt: TemplateSyntaxError"),
        ("{{ messages[0].content[0]['text'] + 1 }}", {}, "fails on the student's prompt: .*Error"),
        (
            THINKING,
            {"chat_template_kwargs": {"enable_thinkin": False}},
            r"task.chat_template_kwargs.enable_thinkin: .*; nearest: 'enable_thinking'",
        ),
        (THINKING, {"teacher_chat_template_kwargs": {"effrt": 1}}, r"task.teacher_chat_template_kwargs.effrt: .*'effort'"),
        ({"tool_use": PLAIN, "other": PLAIN}, {}, "cannot be chosen: "),
    ],
)
def test_a_template_that_does_not_work_is_one_line_when_the_task_is_made(template, settings, said):
    with pytest.raises(ValueError, match=said) as error:
        prompts(template, **settings)
    assert "\n" not in str(error.value)


def test_a_prompt_on_which_the_template_fails_is_named():
    picky = "{% if 'It is 2' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}" + PLAIN
    with pytest.raises(
        ValueError, match="problem 'p': the chat template of .* fails on the teacher's prompt: TemplateError: no"
    ):
        prompts(picky, template="boxed")


def test_the_base_model_rule_refuses_a_template_that_does_not_work_by_its_file(tmp_path):
    make_model(tmp_path / "chat", ["1 + 1?"])
    (tmp_path / "chat" / "chat_template.jinja").write_text(NO_SYSTEM)
    task = {"template": "plain", "verifier": "exact", "chat_template": True, "system": "Be brief."}
    with pytest.raises(
        ValueError, match=f"the chat template of '{tmp_path}/chat/chat_template.jinja' fails on the student's prompt"
    ):
        make_base_model(config_of(model={"pretrained": str(tmp_path / "chat")}, task=task), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    make_base_model(config_of(model={"pretrained": str(tmp_path / "chat")}, task=task | {"system": None}), tmp_path / "out")
    assert (tmp_path / "out" / "base0" / "chat_template.jinja").read_text() == NO_SYSTEM


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{system: Be brief.}", "task.system goes with chat_template: true, but chat_template is false"),
        ("{chat_template_kwargs: {enable_thinking: false}}", "task.chat_template_kwargs goes with chat_template: true"),
        ("{teacher_chat_template_kwargs: {}}", "task.teacher_chat_template_kwargs goes with chat_template: true"),
        ("{chat_date: 2025-01-31}", "task.chat_date goes with chat_template: true"),
        ("{chat_template: true, chat_date: yesterday}", "task.chat_date: got 'yesterday', expected a date such as 2024-07-26"),
        ("{chat_template: true, chat_date: 31}", "task.chat_date: got 31, expected"),
        (
            "{chat_template: true, chat_template_kwargs: {tokenize: true}}",
            "task.chat_template_kwargs: got .*expected variables of the template, without tokenize, which",
        ),
        (
            "{chat_template: true, chat_template_kwargs: thinking}",
            "task.chat_template_kwargs: got 'thinking', expected mapping",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_config(block, said, scale_file):
    with pytest.raises(ConfigError, match=said):
        resolve(scale_file("methods: {grpo: }", f"methods: {{grpo: }}\ntask: {block}"))


def test_an_option_can_be_given_on_the_command_line(scale_file):
    given = {"task.chat_template": True, "task.chat_template_kwargs": {"enable_thinking": False}}
    assert resolve(scale_file(), given).task.chat_template_kwargs == {"enable_thinking": False}
    assert "task.systm" in message(scale_file(), {"task.systm": "x"})
