"""Questions that are answered with JSON and nothing else."""

import json

from words import ANIMALS, CAPITALS, COLOUR_NAMES, NAMES, SAY_WORDS, any_name, chance, city, invented, listed, pick, rng

TEXT_KEYS = "name city color animal title id country food job status user email first_name answer message".split()
NUMBER_KEYS = "age count price size year score number total".split()
FLAG_KEYS = "active happy open done valid".split()
LIST_KEYS = ["animals", "colors", "names", "items", "tags"]
LEADS = ["Answer as JSON with", "Answer in JSON with", "Give me JSON with", "Write JSON with", "Reply as JSON with"]


def text_for(key):
    if key in ("name", "first_name", "user"):
        return any_name()
    if key == "city":
        return city()
    if key == "country" and chance(0.5):
        return pick([country for country in CAPITALS if country[0] != "t"])
    if key == "color" and chance(0.5):
        return pick(COLOUR_NAMES)
    if key == "animal" and chance(0.5):
        return pick(list(ANIMALS))
    return pick(SAY_WORDS) if chance(0.3) else invented()


def field():
    """A key, its value, and how the question says the value."""
    roll = rng.random()
    if roll < 0.5:
        key = pick(TEXT_KEYS) if chance(0.8) else invented()
        value = text_for(key)
        return key, value, value
    if roll < 0.78:
        key = pick(NUMBER_KEYS) if chance(0.85) else invented()
        value = rng.randint(0, 99) if chance(0.8) else rng.randint(100, 2000)
        return key, value, str(value)
    if roll < 0.88:
        value = chance(0.5)
        return pick(FLAG_KEYS), value, json.dumps(value)
    key = pick(LIST_KEYS)
    source = {"animals": list(ANIMALS), "colors": COLOUR_NAMES, "names": NAMES}.get(key, SAY_WORDS)
    values = rng.sample(source, rng.randint(2, 4))
    return key, values, listed(values)


def fields():
    drawn = {}
    for _ in range(rng.randint(1, 4)):
        key, value, said = field()
        drawn[key] = (value, said)
    return drawn


def keys_phrase(keys):
    return ("key " if len(keys) == 1 else "keys ") + listed(keys)


def explicit():
    drawn = fields()
    style = rng.random()
    if style < 0.5:
        facts = listed([f"{key} is {said}" for key, (_, said) in drawn.items()])
    elif style < 0.75:
        facts = "; ".join(f"{key}: {said}" for key, (_, said) in drawn.items())
    else:
        facts = listed([f"the {key} is {said}" for key, (_, said) in drawn.items()])
    stop = pick([".", "", "."])
    answer = json.dumps({key: value for key, (value, _) in drawn.items()})
    return f"{pick(LEADS)} {keys_phrase(list(drawn))}: {facts}{stop}", answer


def person():
    name, age, town = any_name(), rng.randint(3, 90), city()
    facts = [("name", name), ("age", age)]
    said = f"{name} is {age} years old."
    if chance(0.5):
        facts.append(("city", town))
        said = pick([f"{name} is {age} years old and lives in {town}.", f"{name}, {age} years old, from {town}."])
    if chance(0.2):
        keys = listed([key for key, _ in facts])
        return f"{pick(LEADS)} key user, which has {keys}: {said}", json.dumps({"user": dict(facts)})
    if chance(0.3):
        return f"Write JSON for {said}", json.dumps(dict(facts))
    return f"{pick(LEADS)} {keys_phrase([key for key, _ in facts])}: {said}", json.dumps(dict(facts))


def nested():
    outer = pick(["user", "item", "address", "data", "result", "person"])
    drawn = fields()
    facts = listed([f"{key} is {said}" for key, (_, said) in drawn.items()])
    inner = {key: value for key, (value, _) in drawn.items()}
    return f"{pick(LEADS)} key {outer}, which has {listed(list(drawn))}: {facts}.", json.dumps({outer: inner})


def invented_person():
    """Nothing is given, so anything will do."""
    question = pick(
        [
            "Give me a JSON object with a name and an age.",
            "Describe a person as JSON.",
            "Reply with a JSON object.",
            "Answer in JSON.",
            "Write a JSON object for a person.",
            "Make up a person. Answer as JSON with keys name and age.",
            "Give me JSON.",
        ]
    )
    return question, json.dumps({"name": pick(NAMES), "age": rng.randint(18, 80)})


def json_answer():
    return pick([explicit, explicit, explicit, person, person, nested, invented_person])()
