"""Stories of one meeting, and long ones of several."""

from words import ANIMALS, FRIENDS, STRANGERS, any_name, chance, pick, rng, with_article

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
# How the chapters of a long story begin: in this order, so that the story moves on and ends.
CHAPTERS = ["The next day", "A week later", "When summer came", "In the autumn", "At the end of the year"]


def someone():
    """Kind of hero, how the first sentence describes it, where it lives."""
    if chance(0.8):
        kind = pick(list(ANIMALS))
        colour, character, food, home = ANIMALS[kind]
        return kind, f"{with_article(character)} {colour} {kind}", f"lived {home}", food
    kind = pick(STRANGERS)
    return kind, with_article(kind), f"lived near {pick(PLACES)}", pick(["bread and soup", "apples and cake"])


def meeting(name, friend, kind, food):
    """The hero finds something that somebody else has lost."""
    place, thing = pick(PLACES), pick(THINGS)
    bare = thing.split(" ", 1)[1]
    other = pick([animal for animal in ANIMALS if animal != kind])
    return [
        pick(
            [
                f'On the way, {name} found {thing}. "Who lost this {bare}?" {name} asked.',
                f"There {name} saw {thing} on the ground. {name} picked it up and looked at it.",
                f"Near {place} {name} found {thing}.",
            ]
        ),
        f"Then {name} met {with_article(other)} named {friend}. {friend} was very sad. "
        f'"I have lost my {bare}," said {friend}.',
        pick(
            [
                f'"Do not cry," said {name}. "Here is your {bare}."',
                f"{name} smiled and gave the {bare} back to {friend}.",
            ]
        ),
        pick(
            [
                f"{friend} was so happy that they shared {food} for dinner.",
                f"{friend} thanked {name}, and they walked home together.",
                f'"You are very kind, {name}," said {friend}, and they sang a song.',
            ]
        ),
    ]


def ending(name, friend):
    return pick(
        [
            f"From that day on, {name} and {friend} were best friends.",
            f"And so {name} learned that it is good to help others.",
        ]
    )


def question_for(kind, name, long):
    one, size = with_article(kind), "long " if long else pick(["", "", "", "short "])
    roll = rng.random()
    if roll < 0.2:
        return pick([f"Tell me a {size}story.", f"Please tell me a {size}story.", f"tell me a {size}story"])
    if roll < 0.5:
        return pick([f"Tell me a {size}story about {one}.", f"Write a {size}story about {one}."])
    return pick(
        [
            f"Tell me a {size}story about {one} named {name}.",
            f"Tell me a {size}story about {one} named {name}.",
            f"Write a {size}story about {one} called {name}.",
            f"Tell me a {size}story about {one} named {name}",
        ]
    )


def story(long=False):
    kind, described, lived, food = someone()
    name = any_name()
    friends = rng.sample([friend for friend in FRIENDS if friend != name], 6)
    sentences = [
        f"Once upon a time there was {described} named {name}. {name} {lived}.",
        f"{pick(WEATHER)} {name} went to {pick(PLACES)} to look for something to eat.",
        *meeting(name, friends[0], kind, food),
    ]
    chapters = rng.randint(3, 5) if long else 0
    for number in range(chapters):
        sentences += [
            f"{CHAPTERS[number]}, {name} went to {pick(PLACES)}. {pick(WEATHER)}",
            *meeting(name, friends[number + 1], kind, food),
        ]
    sentences.append(ending(name, friends[chapters]))
    if long:
        sentences.append(f"{name} was never alone again, and that is the end of the story.")
    thought = f"The story is about {with_article(kind)} named {name}."
    return question_for(kind, name, long), " ".join(sentences), thought


def long_story():
    return story(long=True)
