"""Words for what can be seen: names of colours and garments, read both ways, and the speaker that uses them.

A Lexicon says a value ("tan" -> "light brown") and knows every value that a word may mean ("light brown" -> tan,
khaki); the second direction becomes the facts of a caption. Sentences are built in captions.py and wording.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from model.synth.attributes import Attributes

Facts = dict[str, frozenset[str]]  # attribute field -> the values the text allows


def value_of(a: Attributes, name: str) -> str:
    """A field as a word: absence is "none", an outer garment is "open" or "closed"."""
    value = getattr(a, name)
    if name == "outer_open":
        return "open" if value else "closed"
    return "none" if value is None else str(value)


class Lexicon:
    """Names for the values of one kind of thing.

    ``names`` maps a value to alternatives parted by "|"; "word*3" makes a word three times as likely. A name listed
    under several values is ambiguous, and its meaning is all of them.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.words: dict[str, tuple[str, ...]] = {}
        meanings: dict[str, set[str]] = {}
        for value, listed in names.items():
            words: list[str] = []
            for entry in listed.split("|"):
                word, _, times = entry.strip().partition("*")
                words += [word] * int(times or 1)
                meanings.setdefault(word, set()).add(value)
            self.words[value] = tuple(words)
        self.meaning = {word: frozenset(values) for word, values in meanings.items()}

    def say(self, rng: np.random.Generator, value: str) -> str:
        words = self.words[value]
        return words[int(rng.integers(len(words)))]


@dataclass
class Speaker:
    """Someone describing one image: what they see, how talkative they are, and what they have said so far."""

    rng: np.random.Generator
    a: Attributes
    visible: frozenset[str]
    detail: float = 0.5  # 0 terse .. 1 talkative
    facts: Facts = field(default_factory=dict)

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    def sees(self, name: str) -> bool:
        """Whether the field is visible and there is something there to name."""
        return name in self.visible and getattr(self.a, name) is not None

    def note(self, name: str, values: frozenset[str]) -> None:
        """Record what the text now says about a field; saying it twice narrows it."""
        assert value_of(self.a, name) in values, f"{name} is {value_of(self.a, name)}, not {sorted(values)}"
        self.facts[name] = self.facts[name] & values if name in self.facts else values

    def note_moment(self, name: str, value: str) -> None:
        """Record what the text says about the image rather than the person: its "view" (a bearing) or "activity"."""
        self.facts[name] = frozenset({value})

    def note_exact(self, name: str) -> None:
        self.note(name, frozenset({value_of(self.a, name)}))

    def name(self, lexicon: Lexicon, attribute: str) -> str:
        """A word for the value of a field, noting what the word means."""
        word = lexicon.say(self.rng, value_of(self.a, attribute))
        self.note(attribute, lexicon.meaning[word])
        return word


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def listing(items: list[str], last: str = " and ") -> str:
    """One; one and two; one, two and three."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + last + items[-1]


# fmt: off
COLOR = Lexicon({
    "black": "black*34|dark*2|jet black|solid black",
    "white": "white*28|bright white|off white|all white",
    "gray": "gray*12|grey*11|light gray*2|light grey|dark gray*2|dark grey|charcoal|charcoal gray|ash gray",
    "blue": "blue*14|royal blue|bright blue*2|cobalt blue|dark blue",
    "navy blue": "navy blue*4|dark blue*5|navy*3|midnight blue|blue*2|dark",
    "light blue": "light blue*7|pale blue|sky blue|baby blue|powder blue|blue*4|pastel blue",
    "red": "red*15|bright red*2|scarlet|crimson|cherry red",
    "brown": "brown*9|dark brown*2|chocolate|chocolate colored|coffee colored|dark",
    "pink": "pink*12|light pink*2|pale pink|rose colored|salmon|bright pink|hot pink",
    "green": "green*7|bright green|kelly green|emerald|grass green|lime|mint green",
    "dark green": "dark green*6|green|forest green|hunter green|bottle green|dark",
    "yellow": "yellow*12|bright yellow*2|gold|golden|mustard|lemon yellow",
    "purple": "purple*10|violet|dark purple|plum|lavender|lilac",
    "orange": "orange*10|bright orange*2|tangerine|rust orange|coral",
    "tan": "tan*7|beige*3|light brown*4|khaki|camel|camel colored|sand colored",
    "beige": "beige*6|cream*2|cream colored*2|off white*2|tan*2|light tan|ivory|light colored",
    "khaki": "khaki*7|tan*3|olive|olive green*2|khaki colored|beige|army green",
    "maroon": "maroon*6|burgundy*3|dark red*4|wine colored|deep red|dark",
    "denim": "blue*5|dark blue*2|faded blue|medium blue|light blue*2|washed blue|dark",
    "teal": "teal*5|turquoise*3|blue green|green*2|aqua|sea green|bluish green",
})
HAIR_COLOR = Lexicon({
    "black": "black*9|dark*5|jet black",
    "dark brown": "dark brown*4|dark*3|brown*3|brunette",
    "brown": "brown*6|light brown*2|brunette|medium brown",
    "blonde": "blonde*6|blond*2|light|light colored|sandy|fair|golden",
    "gray": "gray*4|grey*4|white*2|silver|graying",
    "red": "red*4|reddish|reddish brown|ginger|auburn",
})
# Nouns for the person; the neutral ones state no gender.
PERSON = Lexicon({
    "male": "man*22|male*4|guy*3|gentleman*2|fellow",
    "female": "woman*20|female*4|lady*5|girl*4",
})
NEUTRAL_PERSON = ("person", "individual", "pedestrian", "passerby", "subject", "human figure")
AGE = Lexicon({
    "young": "young*9|youthful|younger|young looking|teenage|college aged",
    "adult": "middle aged*4|adult|mature|grown",
    "old": "older*4|elderly*4|old*2|senior|aged|mature",
})
BUILD = Lexicon({
    "thin": "thin*4|slim*4|slender*3|skinny*2|lean|slightly built|petite|lanky|narrow",
    "average": "average sized|average build|medium build|normal build|medium sized",
    "heavy": "heavy set*2|heavyset*2|stocky*2|overweight|large|plump|chubby|big|stout|solidly built|husky|broad",
})
UPPER = Lexicon({
    "t-shirt": "t-shirt*14|shirt*44|tee shirt*3|tee|top|t shirt*3|tshirt|casual shirt|crew neck shirt|jersey",
    "shirt": "shirt*28|button up shirt*2|button down shirt*2|dress shirt*2|collared shirt*2|buttoned shirt|top|"
    "casual shirt|oxford shirt",
    "polo shirt": "polo shirt*7|shirt*26|polo*2|collared shirt*2|golf shirt|polo style shirt|t-shirt",
    "blouse": "blouse*6|top*3|shirt*34|tunic|loose top|ladies shirt",
    "sweater": "sweater*7|pullover*2|sweatshirt*2|jumper|knit top|shirt*26|knitted sweater|crew neck sweater|"
    "fleece|jersey|knit",
    "hoodie": "hoodie*5|hooded sweatshirt*3|sweatshirt*2|shirt*10|hooded sweater|hooded top|"
    "hooded pullover|hoody|pullover",
    "tank top": "tank top*6|tank|sleeveless top|sleeveless shirt*3|top|shirt*9|singlet|sleeveless tee|muscle shirt|"
    "undershirt",
})
SLEEVE = Lexicon({
    "short": "short sleeve*5|short sleeved*5|short-sleeved*3|half sleeve|half sleeved",
    "long": "long sleeve*5|long sleeved*5|long-sleeved*3|full sleeve|full sleeved",
    "none": "sleeveless",
})
# As an adjective before the noun ...
PATTERN = Lexicon({
    "striped": "striped*6|stripe|stripped|banded|horizontally striped|patterned|pinstriped",
    "plaid": "plaid*5|checkered*4|checked*2|tartan|gingham|patterned|flannel",
    "polka dot": "polka dot*4|polka dotted*2|dotted|spotted|patterned",
    "floral": "floral*5|flowered*2|floral print*2|flower print|flowery|patterned|floral patterned|flower patterned",
    "two-tone": "two tone|two toned|color block|colour blocked|two colored",
})
# ... or after it: "with {colour} stripes".
PATTERN_NOUN = Lexicon({
    "striped": "stripes*6|horizontal stripes*3|lines|striping|bands|thin stripes|wide stripes|stripes across it",
    "plaid": "checks*3|squares|plaid*2|a plaid pattern|checkered pattern|checkering|crossing lines",
    "polka dot": "polka dots*5|dots*3|spots|small dots|a dotted pattern",
    "floral": "flowers*4|a floral pattern*2|flower designs|a floral print|blossoms|flowers printed on it",
    "two-tone": "sleeves*6|shoulders|arms|contrasting sleeves",
    "logo": "logo*6|print*2|design*4|graphic*3|emblem|picture|symbol|image|patch|graphic design|decal|printed logo|"
    "insignia|badge|motif|print design",
})
LETTERING = ("writing", "lettering", "letters", "words", "text", "print", "printing", "script", "a slogan")
WHERE_LOGO = ("on the front", "on the chest", "on front", "across the chest", "in the center", "in the middle",
              "printed on the front", "on it", "on the breast", "")
DRESS_LENGTH = {
    "short": ("short", "mini", "above the knee", "thigh length"),
    "knee-length": ("knee length", "knee-length", "mid length", "medium length"),
    "long": ("long", "full length", "ankle length", "floor length", "maxi"),
}
DRESS_NOUNS = ("dress",) * 9 + ("sundress", "gown", "frock", "one piece dress", "summer dress")
SKIRT_NOUNS = ("skirt",)
OUTER = Lexicon({
    "jacket": "jacket*14|blazer|coat|windbreaker|zip up jacket|light jacket|zippered jacket|sports jacket|outer jacket",
    "coat": "coat*6|long coat*3|overcoat*2|trench coat|jacket*2|winter coat|topcoat|parka|raincoat",
    "cardigan": "cardigan*7|cardigan sweater|knit cardigan|sweater jacket|button up cardigan",
    "vest": "vest*6|sleeveless jacket|waistcoat|puffy vest|gilet|outer vest|body warmer|padded vest",
})
LOWER = Lexicon({
    "pants": "pants*18|trousers*4|long pants*3|casual pants|cargo pants|full length pants|bottoms|chinos|"
    "straight leg pants",
    "jeans": "jeans*14|denim jeans*2|denim pants*2|pants*2|denims|jean pants|denim trousers",
    "slacks": "slacks*4|dress pants*5|pants*5|trousers*3|suit pants|formal pants|dress slacks|dress trousers",
    "shorts": "shorts*22|knee length shorts*2|short pants|cargo shorts*2|bermuda shorts|walking shorts|"
    "athletic shorts|casual shorts|knee-length shorts|board shorts",
    "leggings": "leggings*6|tights*3|skinny pants*2|pants*3|tight pants*2|stretch pants|yoga pants|stockings|"
    "fitted pants|form fitting pants",
    "skirt": "skirt",
})
SHOE = Lexicon({
    "shoes": "shoes*22|dress shoes*2|loafers|footwear|low shoes|oxfords|slip on shoes|flats|flat shoes|casual shoes",
    "sneakers": "sneakers*7|tennis shoes*5|shoes*9|running shoes*2|athletic shoes*2|trainers|sport shoes|"
    "gym shoes|sports shoes|footwear|lace up shoes|jogging shoes",
    "sandals": "sandals*9|flip flops*3|open toed shoes|open shoes|slippers|shoes*3|open toe sandals|slides|"
    "strappy sandals|flip-flops",
    "boots": "boots*9|ankle boots*2|high boots|booties|shoes*3|high top boots|short boots|calf boots",
})
BAG = Lexicon({
    "backpack": "backpack*14|back pack*3|bookbag|book bag|rucksack|knapsack|bag*2|schoolbag|day pack|pack",
    "shoulder bag": "shoulder bag*5|bag*7|messenger bag*2|tote bag*2|tote|satchel|purse*3|large bag|shoulder purse",
    "crossbody bag": "crossbody bag*2|cross body bag*3|messenger bag*3|sling bag*2|bag*6|satchel|side bag|"
    "cross-body bag|crossbody purse|small bag",
    "handbag": "handbag*6|purse*6|hand bag*2|bag*5|pocketbook|tote|small bag|shopping bag|carry bag|clutch|"
    "hand held bag",
})
HAT = Lexicon({
    "cap": "cap*4|baseball cap*5|hat*3|ball cap|baseball hat|billed cap|cap with a visor|visor|peaked cap",
    "hat": "hat*6|sun hat|brimmed hat|fedora|bucket hat|round hat|wide brimmed hat|brim hat|sunhat",
})
EYEWEAR = Lexicon({
    "glasses": "glasses*9|eyeglasses*3|a pair of glasses*2|spectacles|eye glasses|framed glasses|eyewear|"
    "prescription glasses",
    "sunglasses": "sunglasses*5|dark glasses*2|shades|sun glasses|tinted glasses|a pair of sunglasses|"
    "a pair of dark glasses|eyewear",
})
PROP = Lexicon({
    "phone": "cell phone*4|phone*4|mobile phone*2|cellphone*2|smartphone|smart phone|mobile|telephone|handset",
    "umbrella": "umbrella*8|parasol|sun umbrella|rain umbrella",
    "bottle": "bottle*3|water bottle*4|drink bottle|bottle of water|plastic bottle|drink|beverage bottle|beverage",
    "book": "book*4|notebook*2|textbook|paperback|magazine|folder|notepad|binder",
})

# Phrases for the whole body. {he} {his} {him} become the pronouns in use.
ACTIVITY = {
    "walking": ("walking",) * 12
    + (
        "strolling", "striding", "stepping ahead", "in mid stride", "taking a step", "moving along", "on the move",
        "walking along", "pacing", "making {his} way", "going along on foot", "taking a stroll", "walking briskly",
        "out walking", "walking by", "passing by", "mid step", "traveling on foot",
    ),
    "standing": ("standing",) * 8
    + (
        "standing still", "standing upright", "standing up", "stopped", "waiting", "standing in place",
        "staying in place", "standing around", "not moving", "pausing", "at a standstill",
    ),
}
TOWARD = {
    "front": ("toward the camera", "towards the camera", "forward", "toward the viewer", "facing the camera",
              "facing forward", "in the direction of the camera", "facing the viewer", "towards the photographer",
              "facing the front", "looking ahead"),
    "side": ("to the side", "sideways", "in profile", "across the picture", "past the camera", "turned sideways",
             "facing sideways", "across the frame", "side on", "to one side"),
    "back": ("away from the camera", "away", "away from the viewer", "with {his} back to the camera", "facing away",
             "with {his} back turned", "away from the photographer", "turned away from the camera",
             "facing away from the viewer"),
}
SEEN_FROM = {
    "front": ("seen from the front", "viewed from the front", "pictured from the front", "shown from the front",
              "facing us", "shown head on", "photographed from the front"),
    "side": ("seen from the side", "viewed from the side", "shown in profile", "pictured from one side",
             "photographed in profile", "captured from the side"),
    "back": ("seen from behind", "viewed from behind", "seen from the back", "shown from the rear",
             "photographed from behind", "viewed from the rear", "captured from the back"),
}
TAKEN_FROM = {
    "front": ("from the front", "from in front of the person", "from ahead"),
    "side": ("from the side", "from one side", "at a right angle"),
    "back": ("from behind", "from the rear", "from the back", "after the person had passed"),
}
FACING = {
    "side": ("turned sideways", "facing to the side", "in profile"),
    "front": ("facing the camera", "turned toward the camera", "facing the viewer", "coming toward us"),
    "back": ("facing away from the camera", "turned away from us", "going away from us", "leaving the scene"),
}
OF_BUILD = {
    "thin": ("{is} thin", "{is} of slight build", "{has} a slender figure", "{has} a slim build"),
    "average": ("{is} of average build", "{has} an average build", "{is} of medium build", "{has} a normal figure",
                "{is} neither thin nor heavy", "{is} of ordinary size"),
    "heavy": ("{is} of heavy build", "{has} a stocky build", "{has} a large frame", "{is} somewhat overweight",
              "{has} a heavy figure"),
}
WITHOUT = {
    "bag": ("{is} not carrying a bag", "{has} no bag", "{is} not carrying any bags", "{has} nothing on the shoulders"),
    "hat": ("{is} not wearing a hat", "{has} no hat on", "{is} bareheaded", "{has} nothing on the head"),
    "eyewear": ("{is} not wearing glasses", "{has} no glasses on", "{is} without glasses"),
}
TALKING_OF = (
    "In this picture,", "In the image,", "Here,", "In this photo,", "In the photograph,", "This image shows that",
    "It looks like", "It appears that", "We can see that", "As can be seen,", "From this angle,", "In this shot,",
    "In this frame,", "As far as can be seen,",
)

# fmt: on


def bearing(view: str) -> str:
    """The side of the person towards the camera for a view of VIEWS: front, side or back."""
    return "front" if view.startswith("front") else "back" if view.startswith("back") else "side"
