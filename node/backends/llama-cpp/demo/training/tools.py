"""Dialogues with tools: calls, two calls at once, results put into words, and questions that need no tool."""

import json

from skills import SKILLS
from words import (
    COLOUR_NAMES,
    FRIENDS,
    SAY_WORDS,
    WORDS,
    any_name,
    chance,
    city,
    invented,
    listed,
    pick,
    rng,
)

ROOMS = "kitchen,bedroom,garage,living room,office,garden,bathroom,hall".split(",")
SKIES = "sunny cloudy rainy windy snowy foggy clear".split()
VERBS = "get find read make show open send check start stop load save list run call".split()
NOUNS = "file user order page song mail note image task report price door car box room book data item".split()


def schema_of(value):
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, (int, float)):
        return {"type": pick(["number", "integer"])}
    return {"type": "string"}


class Use:
    """One use of one tool: its declaration, the question, the call, and a result with the sentence that tells it."""

    def __init__(self, name, description, arguments, asks, result, told):
        self.name, self.arguments = name, arguments
        self.ask = pick(asks)
        self.result, self.told = result, told
        self.declared = declaration(name, description, arguments)

    def call(self):
        return {"name": self.name, "arguments": self.arguments}


def declaration(name, description, arguments):
    properties = {key: schema_of(value) for key, value in arguments.items()}
    if chance(0.25):
        for key, schema in properties.items():
            schema["description"] = f"The {key}"
    parameters = {"type": "object", "properties": properties}
    if chance(0.7):
        parameters["required"] = list(arguments)
    if chance(0.2):
        parameters["additionalProperties"] = False
    function = {"name": name}
    if chance(0.9):
        function["description"] = description + pick(["", "", "."])
    function["parameters"] = parameters
    if chance(0.1):
        function["strict"] = True
    return {"type": "function", "function": function}


def weather():
    town = city()
    degrees, sky = rng.randint(-9, 35), pick(SKIES)
    told = f"It is {sky} and {degrees} degrees in {town}."
    result = pick(
        [
            json.dumps({"temperature": degrees, "condition": sky}),
            json.dumps({"condition": sky, "temperature": degrees}),
            json.dumps({"city": town, "temperature": degrees, "condition": sky}),
            f"{sky}, {degrees} degrees",
            f"{degrees} degrees and {sky}",
        ]
    )
    return Use(
        pick(["get_weather", "get_weather", "get_weather", "weather", "getWeather", "get_current_weather"]),
        pick(["Get the weather", "The weather in a city", "Get the current weather for a city", "Current weather"]),
        {pick(["city", "city", "city", "location", "place"]): town},
        [
            f"What is the weather in {town}?",
            f"What is the weather in {town}?",
            f"How is the weather in {town}?",
            f"What is the weather like in {town} today?",
            f"Weather in {town}?",
            f"Tell me the weather in {town}.",
        ],
        result,
        told,
    )


def clock():
    town = city()
    time = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    return Use(
        pick(["get_time", "get_time", "time_in", "current_time"]),
        pick(["Get the time in a city", "The current time", "What time it is"]),
        {pick(["city", "city", "location"]): town},
        [f"What time is it in {town}?", f"What is the time in {town}?", f"Tell me the time in {town}."],
        pick([time, json.dumps({"time": time})]),
        f"It is {time} in {town}.",
    )


def adder():
    a, b = (rng.randint(0, 12), rng.randint(0, 12)) if chance(0.3) else (rng.randint(0, 999), rng.randint(0, 999))
    first, second = pick([("a", "b"), ("a", "b"), ("x", "y")])
    return Use(
        pick(["add", "add", "sum", "add_numbers"]),
        pick(["Add two numbers", "Adds two numbers", "The sum of two numbers"]),
        {first: a, second: b},
        [f"Add {a} and {b}.", f"What is {a} plus {b}?", f"What is {a} + {b}?", f"Use the tool to add {a} and {b}."],
        pick([str(a + b), json.dumps({"result": a + b})]),
        f"{a} plus {b} is {a + b}.",
    )


def search():
    query = " ".join(rng.sample(WORDS, rng.randint(1, 3))) if chance(0.6) else invented()
    found = " ".join(rng.sample(WORDS, 2)) if chance(0.5) else invented()
    return Use(
        pick(["search", "search", "web_search", "lookup"]),
        pick(["Search the web", "Search for something", "Look something up"]),
        {pick(["query", "query", "q"]): query},
        [f"Search for {query}.", f"Search the web for {query}.", f"Look up {query}."],
        pick([found, json.dumps({"result": found})]),
        f"I found this: {found}.",
    )


def light():
    room, on = pick(ROOMS), chance(0.5)
    state = "on" if on else "off"
    return Use(
        pick(["set_light", "set_light", "switch_light"]),
        pick(["Turn a light on or off", "Switch the light of a room"]),
        {"room": room, "on": on},
        [f"Turn {state} the light in the {room}.", f"Turn the {room} light {state}.", f"Switch {state} the {room} light."],
        pick(["ok", "done", json.dumps({"ok": True})]),
        f"The light in the {room} is now {state}.",
    )


def message():
    name, text = pick([any_name(), pick(FRIENDS)]), " ".join(rng.sample(SAY_WORDS, 2)) if chance(0.5) else invented()
    return Use(
        pick(["send_message", "send_mail", "send_email"]),
        pick(["Send a message", "Send a message to a person"]),
        {"to": name, "text": text},
        [f"Send {name} the message: {text}", f"Write to {name}: {text}", f"Send a message to {name}: {text}"],
        pick(["sent", "ok", json.dumps({"sent": True})]),
        f"I have sent the message to {name}.",
    )


def value():
    roll = rng.random()
    if roll < 0.3:
        return rng.randint(0, 99)
    if roll < 0.4:
        return chance(0.5)
    return pick([any_name(), city(), pick(SAY_WORDS), pick(COLOUR_NAMES), invented(), invented(2, 3)])


def anything():
    """A tool of any name with any arguments: they can only be copied from the prompt."""
    name = f"{pick(VERBS)}_{pick(NOUNS)}" if chance(0.6) else pick([invented(2, 3), f"{pick(VERBS)}_{invented()}"])
    keys = [pick(NOUNS + WORDS) if chance(0.6) else invented() for _ in range(rng.randint(1, 3))]
    arguments = {key: value() for key in keys}
    said = {key: json.dumps(v) if isinstance(v, bool) else str(v) for key, v in arguments.items()}
    result = str(rng.randint(0, 999)) if chance(0.4) else invented()
    return Use(
        name,
        pick([f"The tool {name}", "A tool", f"{pick(VERBS).capitalize()} the {pick(NOUNS)}"]),
        arguments,
        [
            f"Call {name} with " + listed([f"{key} {v}" for key, v in said.items()]) + ".",
            f"Use {name} with " + listed([f"{key} {v}" for key, v in said.items()]) + ".",
            f"Call {name} with " + listed([f"{key} = {v}" for key, v in said.items()]) + ".",
            f"Call {name}: " + ", ".join(f"{key}={v}" for key, v in said.items()),
        ],
        pick([result, json.dumps({"result": result})]),
        f"The result is {result}.",
    )


TOPICS = [weather, weather, clock, adder, adder, search, light, message] + [anything] * 5


def assistant_calls(uses):
    return {"role": "assistant", "content": "", "tool_calls": [use.call() for use in uses]}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def two_uses():
    """Of the same tool with other arguments, or of two tools."""
    topic = pick([weather, weather, clock, adder, anything])
    first = topic()
    if topic in (weather, clock) and chance(0.6):
        key = next(iter(first.arguments))
        town = city()
        what = "weather" if topic is weather else "time"
        second = topic()
        second.name, second.declared = first.name, first.declared
        old = next(iter(second.arguments.values()))
        second.arguments = {key: town}
        second.told = second.told.replace(old, town)
        second.result = second.result.replace(old, town)
        there = f"{next(iter(first.arguments.values()))} and {pick(['', 'in '])}{town}"
        return [first, second], f"What is the {what} in {there}?"
    second = next(use for use in iter(lambda: pick(TOPICS)(), None) if use.name != first.name)
    asks = [first.ask.rstrip("."), second.ask]
    joined = f"{first.ask} {second.ask}" if first.ask[-1] in ".?" else ". ".join(asks)
    return [first, second], joined


def tool_dialogue():
    """The tools, and the messages."""
    roll = rng.random()
    if roll < 0.22:
        uses, ask = two_uses()
    else:
        uses = [pick(TOPICS)()]
        ask = uses[0].ask
    declared = {use.name: use.declared for use in uses}
    for _ in range(rng.choices([0, 1, 2], [0.5, 0.4, 0.1])[0]):
        other = pick(TOPICS)()
        declared.setdefault(other.name, other.declared)
    tools = list(declared.values())
    rng.shuffle(tools)
    messages = []
    if chance(0.25):
        question, answer, *_ = pick(PLAIN)()
        messages += [user(question), assistant(answer)]
    if 0.22 <= roll < 0.34:
        return tools, messages or [user("Hello"), assistant("Hello! How can I help you today?")]
    messages += [user(ask), assistant_calls(uses)]
    if chance(0.6):
        messages += [{"role": "tool", "content": use.result} for use in uses]
        messages.append(assistant(" ".join(use.told for use in uses)))
    return tools, messages


# No sums: with a tool that adds they are the tool's.
PLAIN = [skill for skill in SKILLS if skill.__name__ not in ("addition", "subtraction", "unknown")]
