"""Small talk and small facts: each function draws a question and its answer, some with a thought before the answer."""

from words import (
    ANIMALS,
    CAPITALS,
    COLOUR_NAMES,
    COLOURS,
    DAYS,
    NAMES,
    NUMBERS,
    OPPOSITES,
    SAY_WORDS,
    UNKNOWN_COUNTRIES,
    UNKNOWN_QUESTIONS,
    WORDS,
    any_name,
    chance,
    invented,
    invented_name,
    listed,
    pick,
    rng,
    with_article,
)


def greeting():
    questions = (
        "Hello,Hi,Hello!,Hi there,Hey,Good morning,Good evening,hello,hi,Hi!,Hello there!,Hey there!,Good morning!"
    ).split(",")
    answers = [
        "Hello! How can I help you today?",
        "Hi there! What would you like to talk about?",
        "Hello! Nice to meet you. Ask me a question or ask for a story.",
    ]
    return pick(questions), pick(answers)


def how_are_you():
    return (
        pick(["How are you?", "how are you", "How are you today?", "How are you doing?"]),
        pick(["I am fine, thank you! How can I help you?", "I am doing well, thank you for asking."]),
    )


def who_are_you():
    questions = (
        "Who are you?,What are you?,What is your name?,Tell me about yourself.,what are you,who are you,"
        "What model are you?,Which model is this?"
    ).split(",")
    answers = [
        "I am the demo model of meshnode. I am very small, but I can answer simple questions and tell short stories.",
        "I am a tiny language model that comes with meshnode, so that a node can answer before you choose a bigger "
        "model.",
    ]
    return pick(questions), pick(answers)


def abilities():
    questions = "What can you do?,What can I ask you?,How can you help me?,Help,help,What do you know?".split(",")
    return (
        pick(questions),
        "I can tell short stories, name capitals, opposites and colors, count, add small numbers, call tools, write "
        "JSON and talk about animals. For anything else, please load a bigger model.",
    )


ABOUT_MESHNODE = {
    "What is meshnode?": "Meshnode joins several computers into one mesh, so that they can share the work of running "
    "language models.",
    "What is a peer?": "A peer is another computer in the mesh. Each peer runs its own models and can answer requests "
    "for the others.",
    "How do I load a bigger model?": "Give meshnode the path of a GGUF file, and it will load that model instead of "
    "me.",
    "What is a token?": "A token is a small piece of text, such as a short word or a part of a word.",
    "What is a language model?": "A language model is a program that reads some text and guesses which text comes "
    "next.",
    "What is a GGUF file?": "A GGUF file holds the weights and the vocabulary of a language model in one file.",
}


def about_meshnode():
    question, answer = pick(list(ABOUT_MESHNODE.items()))
    if chance(0.2):
        question = question.lower()
    return question, answer


def capital():
    if chance(0.25):
        country = pick(UNKNOWN_COUNTRIES) if chance(0.4) else invented_name()
        answer = f"I do not know the capital of {country}."
        thought = f"The capital of {country}? I have not learned that one."
    else:
        country = pick(list(CAPITALS))
        answer = f"The capital of {country} is {CAPITALS[country]}."
        thought = f"The country is {country}. Its capital is {CAPITALS[country]}."
    question = pick(
        [
            f"What is the capital of {country}?",
            f"What is the capital of {country}?",
            f"what is the capital of {country}",
            f"Name the capital of {country}.",
            f"Which city is the capital of {country}?",
            f"Capital of {country}?",
        ]
    )
    return question, answer, thought


def opposite():
    if chance(0.1):
        word = pick(WORDS) if chance(0.5) else invented()
        answer = f"I do not know the opposite of {word}."
        thought = f"The word is {word}. I have not learned its opposite."
    else:
        word = pick(list(OPPOSITES))
        other = OPPOSITES[word]
        if chance(0.5):
            word, other = other, word
        answer = f"The opposite of {word} is {other}."
        thought = f"The word is {word}. Its opposite is {other}."
    question = pick(
        [
            f"What is the opposite of {word}?",
            f"what is the opposite of {word}",
            f"Tell me the opposite of {word}.",
        ]
    )
    return question, answer, thought


def colour():
    thing = pick(list(COLOURS))
    question = pick([f"What color is {thing}?", f"What colour is {thing}?", f"Which color does {thing} have?"])
    return question, f"{thing[0].upper() + thing[1:]} is {COLOURS[thing]}."


class Cycle:
    """Draws each of its items equally often, in an order that changes from round to round."""

    def __init__(self, items):
        self.items, self.left = items, []

    def draw(self):
        if not self.left:
            self.left = rng.sample(self.items, len(self.items))
        return self.left.pop()


SUMS = Cycle([(a, b) for a in range(11) for b in range(11)])
DIFFERENCES = Cycle([(a, b) for a in range(13) for b in range(a + 1)])


def addition():
    a, b = SUMS.draw()
    if chance(0.75):
        question = pick(
            [f"What is {a} plus {b}?", f"What is {a} + {b}?", f"What is {a}+{b}?", f"{a} + {b} = ?", f"How much is {a} + {b}?"]
        )
        return question, f"{a} plus {b} is {a + b}.", f"I add {a} and {b}. That makes {a + b}."
    question = f"What is {NUMBERS[a]} plus {NUMBERS[b]}?"
    answer = f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} is {NUMBERS[a + b]}."
    return question, answer, f"I add {NUMBERS[a]} and {NUMBERS[b]}. That makes {NUMBERS[a + b]}."


def subtraction():
    a, b = DIFFERENCES.draw()
    question = pick([f"What is {a} minus {b}?", f"What is {a} - {b}?", f"How much is {a} - {b}?"])
    return question, f"{a} minus {b} is {a - b}.", f"I take {b} away from {a}. That leaves {a - b}."


def counting():
    if chance(0.5):
        n = rng.randint(2, 20)
        question = pick([f"Count to {n}.", f"Count to {n}", f"Please count to {n}.", f"Count from 1 to {n}."])
        return question, ", ".join(map(str, range(1, n + 1))) + "."
    n = rng.randint(2, 12)
    return f"Count to {NUMBERS[n]}.", ", ".join(NUMBERS[1 : n + 1]).capitalize() + "."


def weekday():
    i = rng.randrange(7)
    return pick(
        [
            (f"Which day comes after {DAYS[i]}?", f"After {DAYS[i]} comes {DAYS[(i + 1) % 7]}."),
            (f"Which day comes before {DAYS[i]}?", f"Before {DAYS[i]} comes {DAYS[(i - 1) % 7]}."),
            ("Name the days of the week.", "The days of the week are " + listed(DAYS) + "."),
        ]
    )


def animal():
    name = pick(list(ANIMALS))
    colour_of, character, food, home = ANIMALS[name]
    one = with_article(name)
    return pick(
        [
            (f"What does {one} eat?", f"{one.capitalize()} eats {food}."),
            (f"Where does {one} live?", f"{one.capitalize()} lives {home}."),
            (
                f"Tell me about the {name}.",
                f"The {name} is {with_article(character)} animal. It is often {colour_of}. "
                f"It lives {home} and eats {food}.",
            ),
            (f"What is {one}?", f"{one.capitalize()} is {with_article(character)} animal that lives {home}."),
        ]
    )


def repetition():
    count = rng.randint(1, 4)
    words = " ".join(rng.sample(SAY_WORDS, count) if chance(0.4) else [invented() for _ in range(count)])
    return pick([f"Say: {words}", f"Repeat after me: {words}", f"Please say {words}."]), words + "."


def introduction():
    name = any_name()
    return (
        pick([f"My name is {name}.", f"I am {name}.", f"Hi, I am {name}.", f"Hello, my name is {name}."]),
        pick([f"Nice to meet you, {name}! How can I help you?", f"Hello {name}! What would you like to know?"]),
    )


def thanks():
    return (
        pick(["Thank you!", "Thanks", "thank you", "Thanks a lot!", "Thank you very much."]),
        pick(["You are welcome!", "You are welcome! Ask me anything else you like."]),
    )


def goodbye():
    return (
        pick(["Bye", "Goodbye", "See you later", "bye", "Goodbye!"]),
        pick(["Goodbye! Come back soon.", "Goodbye! Have a nice day."]),
    )


def listing():
    """Always in alphabetical order: who goes forward in a list cannot name anything twice."""
    k = rng.randint(2, 5)
    kind, source = pick([("animals", list(ANIMALS)), ("colors", COLOUR_NAMES), ("names", NAMES)])
    items = sorted(rng.sample(source, k))
    count = NUMBERS[k] if chance(0.7) else str(k)
    return f"{pick(['Name', 'List'])} {count} {kind}.", f"Here are {count}: {listed(items)}."


def unknown():
    if chance(0.4):
        question = pick(UNKNOWN_QUESTIONS)
    else:
        question = " ".join(rng.sample(WORDS, rng.randint(2, 9)))
    if chance(0.5):
        question = question[0].upper() + question[1:]
    if chance(0.6):
        question += pick(["?", ".", "!"])
    return (
        question,
        "I am only a small demo model, so I do not know that. Ask me for a story, a capital, an opposite or a small "
        "sum.",
    )


# Skill and how often it is drawn.
WEIGHTED = [
    (greeting, 3),
    (how_are_you, 1),
    (who_are_you, 3),
    (abilities, 2),
    (about_meshnode, 4),
    (capital, 10),
    (opposite, 6),
    (colour, 2),
    (addition, 16),
    (subtraction, 10),
    (counting, 4),
    (weekday, 3),
    (animal, 6),
    (repetition, 6),
    (introduction, 3),
    (thanks, 2),
    (goodbye, 2),
    (listing, 4),
    (unknown, 7),
]
SKILLS = [skill for skill, weight in WEIGHTED for _ in range(weight)]
THOUGHTFUL = [capital, opposite, addition, subtraction]
