"""Problems, prompts and verifiers. Nothing here knows of losses or engines."""

from sdpg.tasks.data import build_data, load_problems, save_problems
from sdpg.tasks.sources import build_source
from sdpg.tasks.task import Task, make_task
from sdpg.tasks.verifiers import make_verifier

__all__ = ["Task", "build_data", "build_source", "load_problems", "make_task", "make_verifier", "save_problems"]
