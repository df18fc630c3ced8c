"""Writes the demo model's training corpus: templated dialogues, one JSON array of [role, text] pairs a line.

    python3 corpus.py COUNT OUT.jsonl

The text is the project's own. The same count gives the same file.
"""

import json
import random
import sys

rng = random.Random(7)
pick = rng.choice

NAMES = (
    "Anna Ben Clara David Emma Felix Grace Hugo Iris Jack Kira Leo Mia Noah Olive Paul Rosa Sam Tina Victor Wendy Zoe"
).split()

# Animal: colour, character, food, home.
ANIMALS = {
    "fox": ("red", "clever", "mice and berries", "in a den in the forest"),
    "bear": ("brown", "strong", "fish and honey", "in a cave in the mountains"),
    "owl": ("grey", "wise", "mice", "in an old tree"),
    "rabbit": ("white", "quick", "grass and carrots", "in a burrow under the ground"),
    "mouse": ("grey", "small", "seeds and cheese", "in a small hole in the wall"),
    "cat": ("black", "quiet", "fish and mice", "in a warm house"),
    "dog": ("brown", "loyal", "meat and bones", "in a house with people"),
    "frog": ("green", "jumpy", "flies", "near a pond"),
    "duck": ("yellow", "cheerful", "bread and water plants", "on a lake"),
    "horse": ("brown", "fast", "hay and apples", "in a stable"),
    "sheep": ("white", "soft", "grass", "on a green hill"),
    "turtle": ("green", "slow", "leaves and worms", "by a quiet river"),
    "whale": ("blue", "huge", "very small sea animals", "in the deep sea"),
    "bee": ("yellow", "busy", "nectar", "in a hive"),
    "crow": ("black", "curious", "seeds and worms", "at the top of a tall tree"),
    "snail": ("brown", "patient", "leaves", "in a damp garden"),
}

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "day": "night",
    "up": "down",
    "happy": "sad",
    "old": "young",
    "wet": "dry",
    "open": "closed",
    "light": "dark",
    "full": "empty",
    "hard": "soft",
    "early": "late",
    "rich": "poor",
    "near": "far",
    "loud": "quiet",
    "long": "short",
    "strong": "weak",
    "left": "right",
    "black": "white",
}

COLOURS = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "a lemon": "yellow",
    "blood": "red",
    "coal": "black",
    "a carrot": "orange",
    "the sea": "blue",
    "milk": "white",
    "a ripe tomato": "red",
    "chocolate": "brown",
    "a leaf in spring": "green",
}

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Ireland": "Dublin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Canada": "Ottawa",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Hungary": "Budapest",
    "the Czech Republic": "Prague",
}

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PLACES = (
    "the forest,the garden,the old town,the river,the seaside,the hill,the market,the library,the mountain,the farm"
).split(",")
THINGS = (
    "a golden key,a lost letter,a small lantern,a broken clock,a shiny stone,a little boat,a warm blanket,"
    "a silver bell,a map,a wooden box"
).split(",")
WEATHER = [
    "It was a sunny morning.",
    "It was a cold and windy day.",
    "A soft rain was falling.",
    "The moon was bright that night.",
    "Snow covered the ground.",
    "The first day of spring had come.",
]
SAY_WORDS = (
    "apple river stone cloud music table green summer window paper bread silver forest happy simple orange"
).split()
COLOUR_NAMES = "red blue green yellow black white brown orange grey".split()

# What the model must decline: single questions, and words in any order.
UNKNOWN_QUESTIONS = (
    "explain quantum physics,write code in python,what is the meaning of life,who won the match,how do I cook rice,"
    "translate this to french,what time is it,fix my car,play some music,tell me a joke,what is the weather today,"
    "write an essay about history,solve this equation,how tall is the tower,who wrote this book,"
    "make a plan for my holiday,summarize this text,how far is the moon,what should I wear,draw a picture,"
    "buy me a ticket,write a poem,why is the sea salty,what is love,how does a computer work,give me advice,"
    "sort a list of numbers,who is the president,describe the universe,what did I say before"
).split(",")
UNKNOWN_WORDS = (
    "about after again because before between build change computer country develop different during engine every "
    "example family follow function government group house important inside interest language large machine market "
    "matter memory method money network number office people place point power problem process program public "
    "question reason result right school science second service should small social state story street student study "
    "system teacher think thing through under understand value water which while woman world write year"
).split()


def with_article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def greeting():
    question = pick(
        [
            "Hello",
            "Hi",
            "Hello!",
            "Hi there",
            "Hey",
            "Good morning",
            "Good evening",
            "hello",
            "hi",
            "Hi!",
            "Hello there!",
        ]
    )
    answer = pick(
        [
            "Hello! How can I help you today?",
            "Hi there! What would you like to talk about?",
            "Hello! Nice to meet you. Ask me a question or ask for a story.",
        ]
    )
    return question, answer


def how_are_you():
    return (
        pick(["How are you?", "how are you", "How are you today?", "How are you doing?"]),
        pick(["I am fine, thank you! How can I help you?", "I am doing well, thank you for asking."]),
    )


def who_are_you():
    return (
        pick(
            [
                "Who are you?",
                "What are you?",
                "What is your name?",
                "Tell me about yourself.",
                "what are you",
                "who are you",
            ]
        ),
        pick(
            [
                "I am the demo model of meshnode. I am very small, but I can answer simple questions and tell short "
                "stories.",
                "I am a tiny language model that comes with meshnode, so that a node can answer before you choose a "
                "bigger model.",
            ]
        ),
    )


def abilities():
    return (
        pick(
            [
                "What can you do?",
                "What can I ask you?",
                "How can you help me?",
                "Help",
                "help",
                "What do you know?",
            ]
        ),
        "I can tell short stories, name capitals, opposites and colors, count, add small numbers, and talk about "
        "animals. For anything else, please load a bigger model.",
    )


def about_meshnode():
    return pick(
        [
            (
                "What is meshnode?",
                "Meshnode joins several computers into one mesh, so that they can share the work of running language "
                "models.",
            ),
            (
                "What is a peer?",
                "A peer is another computer in the mesh. Each peer runs its own models and can answer requests for "
                "the others.",
            ),
            (
                "How do I load a bigger model?",
                "Give meshnode the path of a GGUF file, and it will load that model instead of me.",
            ),
            (
                "What is a token?",
                "A token is a small piece of text, such as a short word or a part of a word.",
            ),
            (
                "What is a language model?",
                "A language model is a program that reads some text and guesses which text comes next.",
            ),
            (
                "What is a GGUF file?",
                "A GGUF file holds the weights and the vocabulary of a language model in one file.",
            ),
        ]
    )


def capital():
    country = pick(list(CAPITALS))
    question = pick(
        [
            f"What is the capital of {country}?",
            f"what is the capital of {country}",
            f"Name the capital of {country}.",
            f"Which city is the capital of {country}?",
        ]
    )
    return question, f"The capital of {country} is {CAPITALS[country]}."


def opposite():
    word = pick(list(OPPOSITES))
    other = OPPOSITES[word]
    if rng.random() < 0.5:
        word, other = other, word
    question = pick(
        [
            f"What is the opposite of {word}?",
            f"what is the opposite of {word}",
            f"Tell me the opposite of {word}.",
        ]
    )
    return question, f"The opposite of {word} is {other}."


def colour():
    thing = pick(list(COLOURS))
    question = pick([f"What color is {thing}?", f"What colour is {thing}?", f"Which color does {thing} have?"])
    return question, f"{thing[0].upper() + thing[1:]} is {COLOURS[thing]}."


def addition():
    a = rng.randint(0, 10)
    b = rng.randint(0, 10)
    if rng.random() < 0.6:
        question = pick([f"What is {a} plus {b}?", f"What is {a} + {b}?", f"{a} + {b} = ?", f"How much is {a} + {b}?"])
        return question, f"{a} plus {b} is {a + b}."
    return (
        f"What is {NUMBERS[a]} plus {NUMBERS[b]}?",
        f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} is {NUMBERS[a + b]}.",
    )


def subtraction():
    a = rng.randint(0, 12)
    b = rng.randint(0, a)
    question = pick([f"What is {a} minus {b}?", f"What is {a} - {b}?", f"How much is {a} - {b}?"])
    return question, f"{a} minus {b} is {a - b}."


def counting():
    n = rng.randint(2, 20)
    if rng.random() < 0.5:
        question = pick([f"Count to {n}.", f"Please count to {n}.", f"Count from 1 to {n}."])
        return question, ", ".join(map(str, range(1, n + 1))) + "."
    n = rng.randint(2, 12)
    return f"Count to {NUMBERS[n]}.", ", ".join(NUMBERS[1 : n + 1]).capitalize() + "."


def weekday():
    i = rng.randrange(7)
    return pick(
        [
            (f"Which day comes after {DAYS[i]}?", f"After {DAYS[i]} comes {DAYS[(i + 1) % 7]}."),
            (f"Which day comes before {DAYS[i]}?", f"Before {DAYS[i]} comes {DAYS[(i - 1) % 7]}."),
            ("Name the days of the week.", "The days of the week are " + ", ".join(DAYS[:-1]) + " and Sunday."),
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
    words = " ".join(rng.sample(SAY_WORDS, rng.randint(1, 4)))
    return pick([f"Say: {words}", f"Repeat after me: {words}", f"Please say {words}."]), words + "."


def introduction():
    name = pick(NAMES)
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
    k = rng.randint(2, 5)
    kind, source = pick(
        [
            ("Name {} animals.", list(ANIMALS)),
            ("Name {} colors.", COLOUR_NAMES),
            ("List {} names.", NAMES),
        ]
    )
    items = rng.sample(source, k)
    return (
        kind.format(NUMBERS[k]),
        f"Here are {NUMBERS[k]}: " + ", ".join(items[:-1]) + " and " + items[-1] + ".",
    )


def json_object():
    name = pick(NAMES)
    age = rng.randint(3, 90)
    city = pick(list(CAPITALS.values()))
    return f"Write JSON for {name}, {age} years old, from {city}.", json.dumps({"name": name, "age": age, "city": city})


def story():
    kind = pick(list(ANIMALS))
    name = pick(NAMES)
    colour_of, character, food, home = ANIMALS[kind]
    place = pick(PLACES)
    thing = pick(THINGS)
    bare_thing = thing.split(" ", 1)[1]
    other = pick([x for x in ANIMALS if x != kind])
    friend = pick([x for x in NAMES if x != name])
    sentences = [
        f"Once upon a time there was {with_article(character)} {colour_of} {kind} named {name}. {name} lived {home}.",
        f"{pick(WEATHER)} {name} went to {place} to look for something to eat.",
        pick(
            [
                f'On the way, {name} found {thing}. "Who lost this {bare_thing}?" {name} asked.',
                f"There {name} saw {thing} on the ground. {name} picked it up and looked at it.",
            ]
        ),
        f"Then {name} met {with_article(other)} named {friend}. {friend} was very sad. "
        f'"I have lost my {bare_thing}," said {friend}.',
        pick(
            [
                f'"Do not cry," said {name}. "Here is your {bare_thing}."',
                f"{name} smiled and gave the {bare_thing} back to {friend}.",
            ]
        ),
        pick(
            [
                f"{friend} was so happy that they shared {food} for dinner.",
                f"{friend} thanked {name}, and they walked home together.",
            ]
        ),
        pick(
            [
                f"From that day on, {name} and {friend} were best friends.",
                f"And so {name} learned that it is good to help others.",
            ]
        ),
    ]
    if rng.random() < 0.7:
        one = with_article(kind)
        question = pick(
            [
                f"Tell me a story about {one}.",
                f"Tell me a story about {one} named {name}.",
                f"Write a short story about {one}.",
                f"Write a story about {one} called {name}.",
            ]
        )
    else:
        question = pick(["Tell me a story.", "Tell me a short story.", "Please tell me a story.", "tell me a story"])
    return question, " ".join(sentences)


def unknown():
    if rng.random() < 0.4:
        question = pick(UNKNOWN_QUESTIONS)
    else:
        question = " ".join(rng.sample(UNKNOWN_WORDS, rng.randint(2, 9)))
    if rng.random() < 0.5:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.6:
        question += pick(["?", ".", "!"])
    return (
        question,
        "I am only a small demo model, so I do not know that. Ask me for a story, a capital, an opposite or a small "
        "sum.",
    )


# Skill and how often it is drawn.
SKILLS = [
    (greeting, 3),
    (how_are_you, 1),
    (who_are_you, 3),
    (abilities, 2),
    (about_meshnode, 4),
    (capital, 7),
    (opposite, 6),
    (colour, 3),
    (addition, 9),
    (subtraction, 6),
    (counting, 4),
    (weekday, 4),
    (animal, 8),
    (repetition, 4),
    (introduction, 3),
    (thanks, 2),
    (goodbye, 2),
    (listing, 4),
    (json_object, 3),
    (story, 14),
    (unknown, 8),
]
DRAWN = [skill for skill, weight in SKILLS for _ in range(weight)]
SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "You are a helpful, kind assistant. Answer in English.",
]


def dialogue():
    messages = []
    if rng.random() < 0.35:
        messages.append(("system", pick(SYSTEM_PROMPTS)))
    for _ in range(rng.choices([1, 2, 3], [0.6, 0.28, 0.12])[0]):
        question, answer = pick(DRAWN)()
        messages += [("user", question), ("assistant", answer)]
    return messages


if __name__ == "__main__":
    count, target = int(sys.argv[1]), sys.argv[2]
    with open(target, "w") as out:
        for _ in range(count):
            out.write(json.dumps(dialogue()) + "\n")
