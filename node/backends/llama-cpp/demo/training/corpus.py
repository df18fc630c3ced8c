"""Writes the demo model's training corpus, one JSON document a line.

    python3 corpus.py COUNT OUT.jsonl

The text is the project's own, and the same count gives the same file. A third of the documents are exercises in what
is hardest to learn: copying words that nobody knows, sums, fill in the middle. A document is one of

    {"kind": "chat", "tools": […], "messages": [{"role", "content", "tool_calls"?, "unlearned"?}, …]}
    {"kind": "fill", "prefix": …, "suffix": …, "middle": …}
    {"kind": "text", "text": …}

What an assistant says is learned, unless "unlearned" says that it only stands in the history.
"""

import json
import sys

from json_answers import json_answer
from skills import (
    SKILLS,
    THOUGHTFUL,
    about_meshnode,
    addition,
    animal,
    capital,
    colour,
    counting,
    greeting,
    introduction,
    subtraction,
)
from stories import long_story, story
from tools import tool_dialogue
from words import SAY_WORDS, WORDS, any_name, chance, invented, pick, rng

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "Be concise.",
    "You are a helpful, kind assistant. Answer in English.",
]
# About so many characters make a token, in long dialogues.
CHARS_PER_TOKEN = 3.1


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


def system():
    if chance(0.35):
        return [{"role": "system", "content": pick(SYSTEM_PROMPTS)}]
    if chance(0.1):
        content = " ".join(rng.sample(WORDS, rng.randint(3, 12))).capitalize() + "."
        return [{"role": "system", "content": content}]
    return []


def exchange():
    """A question and its answer, of any skill."""
    roll = rng.random()
    skill = story if roll < 0.07 else json_answer if roll < 0.24 else pick(SKILLS)
    question, answer, *_ = skill()
    return [user(question), assistant(answer)]


def thought(in_history=False):
    question, answer, reason = (story if chance(0.15) else pick(THOUGHTFUL))()
    asked = question + pick([" /think", " /think", " Think first."])
    if in_history:
        # Templates drop the thoughts of former turns.
        return [user(asked), assistant(answer, unlearned=True)]
    return [user(asked), assistant(f"<think>\n{reason}\n</think>\n\n{answer}")]


class Secret:
    """Something told early and asked for late."""

    def __init__(self):
        self.what = pick(["name", "code", "code word", "password", "favourite color"])
        if self.what == "name":
            self.value = any_name()
        elif self.what == "code":
            self.value = str(rng.randint(10, 9999))
        else:
            self.value = pick(SAY_WORDS) if chance(0.4) else invented()

    def told(self):
        if self.what == "name":
            question = pick([f"My name is {self.value}.", f"Hello, my name is {self.value}."])
            return [user(question), assistant(f"Nice to meet you, {self.value}! How can I help you?")]
        question = pick(
            [
                f"My {self.what} is {self.value}.",
                f"Remember: my {self.what} is {self.value}.",
                f"Please remember that my {self.what} is {self.value}.",
            ]
        )
        return [user(question), assistant("I will remember that.")]

    def asked(self):
        question = pick([f"What is my {self.what}?", f"what is my {self.what}", f"Do you remember my {self.what}?"])
        return [user(question), assistant(f"Your {self.what} is {self.value}.")]

    def never_told(self):
        return [user(f"What is my {self.what}?"), assistant(f"You have not told me your {self.what}.")]


def short_dialogue():
    messages = system()
    for _ in range(rng.choices([0, 1, 2], [0.6, 0.28, 0.12])[0]):
        messages += thought(in_history=True) if chance(0.04) else exchange()
    roll = rng.random()
    if roll < 0.08:
        return messages + thought()
    if roll < 0.13:
        secret = Secret()
        between = [message for _ in range(rng.randint(0, 2)) for message in exchange()]
        return messages + secret.told() + between + secret.asked()
    if roll < 0.145:
        return messages + Secret().never_told()
    return messages + exchange()


def long_dialogue(tokens):
    """Many turns, and at the end a question about the first ones or about anything."""
    messages, secret = system(), Secret()
    told_at = rng.random() * 0.6
    told, chars = False, 0
    while chars < tokens * CHARS_PER_TOKEN:
        if not told and chars >= told_at * tokens * CHARS_PER_TOKEN:
            turn, told = secret.told(), True
        elif chance(0.06):
            question, answer, *_ = long_story()
            turn = [user(question), assistant(answer)]
        else:
            turn = exchange()
        messages += turn
        chars += sum(len(message["content"]) + 20 for message in turn)
    return messages + (secret.asked() if chance(0.6) else exchange())


def fill():
    """A text with its middle taken out: mostly whole words, of a story or of a fact."""
    question, text, *_ = (story if chance(0.5) else pick(SKILLS[9:]))()
    return filled(text)


def filled(text):
    if chance(0.2):
        start, end = sorted(rng.sample(range(len(text) + 1), 2)) if len(text) > 2 else (0, len(text))
        end = min(end, start + 80)
    else:
        spaces = [0] + [index for index, char in enumerate(text) if char in " .,"] + [len(text)]
        first = rng.randrange(len(spaces) - 1)
        start, end = spaces[first], spaces[min(len(spaces) - 1, first + rng.randint(1, 12))]
        if chance(0.2) and text[start : start + 1] == " ":
            start += 1
    return {"kind": "fill", "prefix": text[:start], "suffix": text[end:], "middle": text[start:end]}


def copying():
    words = " ".join(invented(1, 3) for _ in range(rng.randint(1, 6)))
    return pick([f"Say: {words}", f"Repeat after me: {words}", f"Please say {words}.", f"Say {words}"]), words + "."


def drill():
    """One exercise, or several in one dialogue."""
    if chance(0.35):
        _, text, *_ = pick([capital, addition, animal, colour, subtraction, about_meshnode, counting])()
        return filled(text)
    messages = []
    for _ in range(rng.randint(1, 4)):
        skill = pick([copying, json_answer, json_answer, capital, introduction, addition, addition, subtraction])
        question, answer, *_ = skill()
        messages += [user(question), assistant(answer)]
    return {"kind": "chat", "tools": [], "messages": messages}


def document():
    roll = rng.random()
    if roll < 0.28:
        tools, messages = tool_dialogue()
        return {"kind": "chat", "tools": tools, "messages": system() + messages}
    if roll < 0.31:
        question, answer, *_ = long_story()
        return {"kind": "chat", "tools": [], "messages": system() + [user(question), assistant(answer)]}
    if roll < 0.38:
        return fill()
    if roll < 0.4:
        return {"kind": "text", "text": (story if chance(0.3) else pick([s for s in SKILLS if s is not greeting]))()[1]}
    if roll < 0.41:
        return {"kind": "chat", "tools": [], "messages": long_dialogue(rng.choice([440, 700, 900]))}
    return {"kind": "chat", "tools": [], "messages": short_dialogue()}


def whole_context():
    return {"kind": "chat", "tools": [], "messages": long_dialogue(rng.randint(2800, 4500))}


if __name__ == "__main__":
    count, target = int(sys.argv[1]), sys.argv[2]
    with open(target, "w") as out:
        for index in range(count):
            draw = whole_context if index % 250 == 249 else drill if index % 3 == 0 else document
            out.write(json.dumps(draw()) + "\n")
