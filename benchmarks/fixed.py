"""One batch of prompts, responses and rewards, the same for every implementation. Standard library only.

Ids are random: speed does not depend on which tokens they are. Half of a group's responses are right, so that half of the
gates of Eq. (3.5) are open and every response has a successful sibling.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """What a batch is like: P prompts x G responses; (least, most) tokens of a student's prompt, a teacher's, a response."""

    prompts: int
    group: int
    prompt_tokens: tuple[int, int]
    teacher_tokens: tuple[int, int]
    response_tokens: tuple[int, int]
    micro_batch_tokens: int  # ours, as the suite's scale of that model sets it

    def equal(self) -> "Recipe":
        """The same batch with all lengths at their mean: nothing is padded by anyone."""
        mean = lambda bounds: (round(sum(bounds) / 2),) * 2  # noqa: E731
        lengths = (mean(self.prompt_tokens), mean(self.teacher_tokens), mean(self.response_tokens))
        return Recipe(self.prompts, self.group, *lengths, self.micro_batch_tokens)


@dataclass(frozen=True)
class FixedBatch:
    """Ids of P student's and teacher's prompts and of P x G responses; rewards P x G, 0 or 1."""

    prompts: list[list[int]]
    teacher_prompts: list[list[int]]
    responses: list[list[list[int]]]
    rewards: list[list[float]]
    micro_batch_tokens: int

    @classmethod
    def draw(cls, recipe: Recipe, ids: range, seed: int = 0) -> "FixedBatch":
        """Draw lengths and ids uniformly; ids: those that may occur (none with a special meaning, such as padding)."""
        r = random.Random(seed)
        text = lambda bounds: [r.choice(ids) for _ in range(r.randint(*bounds))]  # noqa: E731
        prompts: list[list[int]] = []
        while len(prompts) < recipe.prompts:  # all different: a prompt is how its responses are found again
            if (prompt := text(recipe.prompt_tokens)) not in prompts:
                prompts.append(prompt)
        return cls(
            prompts,
            [text(recipe.teacher_tokens) for _ in prompts],
            [[text(recipe.response_tokens) for _ in range(recipe.group)] for _ in prompts],
            [[float(j % 2) for j in range(recipe.group)] for _ in prompts],
            recipe.micro_batch_tokens,
        )

    @property
    def group(self) -> int:
        """Responses per prompt."""
        return len(self.responses[0])

    def counts(self) -> dict[str, int]:
        """Responses, and tokens: of the responses, of what the student reads, and of what a teacher of all would read."""
        lengths = [[len(y) for y in group] for group in self.responses]
        total = sum(map(sum, lengths))
        read = lambda prompts: total + sum(len(x) * len(g) for x, g in zip(prompts, lengths, strict=True))  # noqa: E731
        return {
            "responses": sum(map(len, lengths)),
            "response_tokens": total,
            "student_tokens": read(self.prompts),
            "teacher_tokens": read(self.teacher_prompts),
        }

    def longest(self) -> dict[str, int]:
        """Tokens of the longest student's prompt, teacher's prompt and response."""
        return {
            "prompt": max(map(len, self.prompts)),
            "teacher": max(map(len, self.teacher_prompts)),
            "response": max(len(y) for group in self.responses for y in group),
        }

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "FixedBatch":
        """Read what `save` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


RECIPES = {  # lengths: of scale cpu's tasks; of few-shot prompts with answers of a paragraph; of worked mathematics
    "tiny": Recipe(16, 8, (10, 14), (33, 45), (8, 40), 2048),
    "smollm2-135m": Recipe(2, 4, (64, 96), (128, 192), (32, 128), 2048),
    "qwen3-0.6b": Recipe(4, 8, (128, 256), (512, 1024), (256, 1024), 16384),
    "qwen3-1.7b": Recipe(4, 8, (128, 256), (512, 1024), (256, 1024), 16384),
    "qwen3-4b": Recipe(4, 8, (128, 256), (512, 1024), (256, 1024), 16384),
}
