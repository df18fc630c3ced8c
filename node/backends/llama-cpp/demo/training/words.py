"""What the demo model knows: the facts and the words that the corpus is made of."""

import random

rng = random.Random(7)
pick = rng.choice


def chance(share):
    return rng.random() < share


NAMES = (
    "Anna Ben Clara David Emma Felix Grace Hugo Iris Jack Kira Leo Mia Noah Olive Paul Rosa Sam Tina Victor Wendy Zoe"
).split()
# Whom the hero of a story meets. No name is in both lists, so that the two are never mixed up.
FRIENDS = "Ada Daisy Finn Gus Ivy Luna Max Nora Otto Pip Ruby Toby Uma Lily".split()

# Animal: colour, character, food, home.
ANIMALS = {
    "bear": ("brown", "strong", "fish and honey", "in a cave in the mountains"),
    "bee": ("yellow", "busy", "nectar", "in a hive"),
    "cat": ("black", "quiet", "fish and mice", "in a warm house"),
    "crow": ("black", "curious", "seeds and worms", "at the top of a tall tree"),
    "dog": ("brown", "loyal", "meat and bones", "in a house with people"),
    "duck": ("yellow", "cheerful", "bread and water plants", "on a lake"),
    "fox": ("red", "clever", "mice and berries", "in a den in the forest"),
    "frog": ("green", "jumpy", "flies", "near a pond"),
    "horse": ("brown", "fast", "hay and apples", "in a stable"),
    "mouse": ("grey", "small", "seeds and cheese", "in a small hole in the wall"),
    "owl": ("grey", "wise", "mice", "in an old tree"),
    "rabbit": ("white", "quick", "grass and carrots", "in a burrow under the ground"),
    "sheep": ("white", "soft", "grass", "on a green hill"),
    "snail": ("brown", "patient", "leaves", "in a damp garden"),
    "turtle": ("green", "slow", "leaves and worms", "by a quiet river"),
    "whale": ("blue", "huge", "very small sea animals", "in the deep sea"),
}
# Heroes of stories of whom nothing is known.
STRANGERS = "dragon robot pirate wizard knight princess penguin lion tiger elephant girl boy king monkey wolf".split()

OPPOSITES = dict(
    pair.split("-")
    for pair in (
        "hot-cold big-small fast-slow day-night up-down happy-sad old-young wet-dry open-closed light-dark full-empty "
        "hard-soft early-late rich-poor near-far loud-quiet long-short strong-weak left-right black-white"
    ).split()
)

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

CAPITALS = dict(
    pair.split(":")
    for pair in (
        "France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Austria:Vienna,Poland:Warsaw,Portugal:Lisbon,"
        "Greece:Athens,Norway:Oslo,Sweden:Stockholm,Finland:Helsinki,Denmark:Copenhagen,Ireland:Dublin,Japan:Tokyo,"
        "Egypt:Cairo,Canada:Ottawa,Peru:Lima,Kenya:Nairobi,Hungary:Budapest,the Czech Republic:Prague,"
        "Australia:Canberra,India:New Delhi,China:Beijing,England:London,Switzerland:Bern,Belgium:Brussels,"
        "Russia:Moscow,Turkey:Ankara,South Korea:Seoul,Cuba:Havana"
    ).split(",")
)
# Asked for, but not known. The evaluation asks for others: Iceland, Vietnam, Bolivia and more.
UNKNOWN_COUNTRIES = (
    "Brazil,Chile,Nigeria,Morocco,Ukraine,Romania,Croatia,Serbia,Latvia,Estonia,Iran,Iraq,Pakistan,Thailand,Malaysia,"
    "Indonesia,New Zealand,Ghana,Ethiopia,Uganda,Mexico,Argentina,Colombia,Ecuador,Jamaica,Panama,Syria,Jordan,Israel,"
    "Mongolia,Nepal,Bulgaria,Slovakia,Malta,Cyprus,Tunisia,Algeria,Libya,Sudan,Angola,Zambia,Texas,California"
).split(",")

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SAY_WORDS = (
    "apple river stone cloud music table green summer window paper bread silver forest happy simple orange"
).split()
COLOUR_NAMES = "black blue brown green grey orange red white yellow".split()

# What the model must decline: single questions, and words in any order.
UNKNOWN_QUESTIONS = (
    "explain quantum physics,write code in python,what is the meaning of life,who won the match,how do I cook rice,"
    "translate this to french,what time is it,fix my car,play some music,tell me a joke,what is the weather today,"
    "write an essay about history,solve this equation,how tall is the tower,who wrote this book,"
    "make a plan for my holiday,summarize this text,how far is the moon,what should I wear,draw a picture,"
    "buy me a ticket,write a poem,why is the sea salty,what is love,how does a computer work,give me advice,"
    "sort a list of numbers,who is the president,describe the universe,what did I say before,what is the weather in,"
    "explain general relativity,write a python function,what is the population of the world"
).split(",")
WORDS = (
    "about after again because before between build change computer country develop different during engine every "
    "example family follow function government group house important inside interest language large machine market "
    "matter memory method money network number office people place point power problem process program public "
    "question reason result right school science second service should small social state story street student study "
    "system teacher think thing through under understand value water which while woman world write year"
).split()

ONSETS = "b c d f g h j k l m n p r s t v w x y z br ch cl dr fl gr kr ph pl pr qu sh sk sl st th tr zb".split()
VOWELS = "a e i o u ai ea ee ia io oo ou".split()
CODAS = ["", "", "", "d", "g", "k", "l", "m", "n", "p", "r", "s", "t", "x", "ck", "ld", "nd", "st", "ng"]


def syllable(first):
    return ("" if first and chance(0.2) else pick(ONSETS)) + pick(VOWELS) + pick(CODAS)


def invented(least=1, most=2):
    """A word that nobody knows: it can only be copied."""
    if chance(0.15):
        return "".join(pick("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6)))
    return "".join(syllable(index == 0) for index in range(rng.randint(least, most)))


def invented_name():
    return invented().capitalize()


def any_name():
    return pick(NAMES) if chance(0.5) else invented_name()


def city():
    roll = rng.random()
    return pick(list(CAPITALS.values())) if roll < 0.4 else invented_name()


def with_article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def listed(items):
    """One, two and three."""
    items = [str(item) for item in items]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
