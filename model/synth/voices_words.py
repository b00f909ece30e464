"""The words of the training phrase book (voices.py): British and American, plain and fancy, sure and vague.

Each Lexicon names the values of one field; a word listed under several values may mean any of them. Sentences are
built in voices.py. The words of ordinary captions are in phrases.py.
"""

from __future__ import annotations

from model.synth.phrases import Lexicon

# fmt: off
COLOR = Lexicon({
    "black": "black*24|dark*3|jet black*2|jet-black|darkish|dark coloured|dark colored|pitch black|solid black|"
    "coal black|ebony|blackish|very dark|off-black|all-black|dark toned",
    "white": "white*24|off-white*2|off white|snow white|bright white|whitish|light*2|light coloured|light colored|"
    "pale|pure white|ivory|chalky white|clean white|pearl|plain white|very light|eggshell",
    "gray": "grey*12|gray*12|light grey*2|light gray*2|dark grey*2|dark gray*2|charcoal*3|charcoal grey|slate*2|"
    "slate gray|silver*2|silvery|ash grey|ash gray|greyish|grayish|mid-grey|medium gray|heather grey|gunmetal|"
    "steel grey|pewter|dove grey|smoke grey|concrete grey",
    "blue": "blue*24|royal blue*3|bright blue*3|cobalt*2|cobalt blue|azure|sapphire|mid-blue|medium blue|"
    "electric blue|bluish|strong blue|ultramarine|dark blue*2|deep blue|vivid blue|french blue|cerulean",
    "navy blue": "navy*10|navy blue*6|dark blue*7|midnight blue*2|blue*4|dark*2|deep blue|very dark blue|darkish|"
    "indigo|ink blue|marine blue|dark coloured|dark colored|blue-black|very dark|bluish",
    "light blue": "light blue*10|sky blue*4|pale blue*4|baby blue*2|powder blue|blue*4|pastel blue|soft blue|"
    "icy blue|duck-egg blue|cornflower blue|cornflower|azure|light coloured|light colored|sky|bluish|faded blue|"
    "ice blue|pale|washed-out blue|light*1",
    "red": "red*24|bright red*3|scarlet*3|crimson*3|cherry red|cherry|ruby|ruby red|fire-engine red|pillar-box red|"
    "tomato red|poppy red|reddish|vivid red|cardinal red|vermilion|blood red|deep red",
    "brown": "brown*20|dark brown*4|chocolate*2|chocolate brown|coffee|coffee coloured|chestnut|chestnut brown|"
    "mocha|walnut|brownish|umber|hazel brown|rust brown|dark|earth brown|cocoa|nut brown|bronze|leather brown|"
    "darkish",
    "pink": "pink*20|light pink*3|pale pink*2|rose*2|rose pink|salmon*2|salmon pink|blush|bright pink|hot pink|"
    "baby pink*2|pinkish|candy pink|coral pink|coral|fuchsia|magenta|dusty pink|bubblegum pink|peach|flamingo pink",
    "green": "green*22|bright green*3|kelly green|emerald*2|emerald green|grass green|lime|lime green|mint|"
    "mint green|leaf green|greenish|apple green|mid-green|jade|shamrock green|medium green",
    "dark green": "dark green*12|green*5|forest green*3|forest|bottle green*2|hunter green|racing green|deep green|"
    "pine|pine green|dark|darkish|very dark green|dark coloured|moss green|greenish|fir green",
    "yellow": "yellow*20|bright yellow*3|gold*2|golden|mustard*2|mustard yellow|lemon*2|lemon yellow|canary yellow|"
    "canary|sunflower yellow|amber|yellowish|sunny yellow|banana yellow|saffron|hi-vis yellow",
    "purple": "purple*20|violet*4|dark purple*2|plum*2|plum coloured|lavender*2|lilac*2|mauve*2|aubergine|eggplant|"
    "grape|amethyst|purplish|deep purple|indigo|royal purple",
    "orange": "orange*20|bright orange*3|tangerine*2|rust|rust orange|coral|amber|burnt orange|pumpkin|apricot|"
    "orangey|orangish|peach|carrot orange|hi-vis orange|copper",
    "tan": "tan*10|light brown*6|camel*4|fawn*3|sand*2|sandy|sand coloured|beige*5|khaki*2|biscuit|caramel|"
    "caramel brown|buff|honey|camel coloured|tan coloured|wheat|brownish|toffee|taupe|light coloured|cinnamon",
    "beige": "beige*10|cream*4|cream coloured|off-white*2|tan*2|ivory|light coloured*2|light colored|stone|oatmeal|"
    "sand|ecru|bone|buff|light tan|nude|champagne|pale|vanilla|sandy|fawn|natural|eggshell|light*1",
    "khaki": "khaki*10|tan*3|olive*4|olive green*3|olive drab|army green|military green|beige*2|sage|khaki green|"
    "drab|moss green|sand|khaki coloured|fawn|taupe|stone|greenish brown|dark beige|sludge green",
    "maroon": "maroon*10|burgundy*6|dark red*6|wine*2|wine red|wine coloured|deep red*2|claret*2|oxblood|bordeaux|"
    "dark|darkish|reddish brown|brick red|mulberry|garnet|cherry|reddish|blood red|merlot",
    "denim": "blue*8|dark blue*3|faded blue*2|medium blue|light blue*2|washed blue|denim blue|stonewashed blue|"
    "mid-blue|indigo|denim*3|blue denim|dark|bluish|worn blue",
    "teal": "teal*10|turquoise*5|blue-green*2|green*3|aqua*2|aquamarine|sea green|petrol|petrol blue|cyan|"
    "peacock blue|greenish blue|bluish green|dark turquoise|jade|greenish|dark teal",
})
# As on a radio log.
ABBREVIATED = {
    "black": ("blk", "blck"), "white": ("wht",), "gray": ("gry",), "grey": ("gry",), "blue": ("blu",),
    "brown": ("brn", "brwn"), "green": ("grn",), "yellow": ("yel", "ylw"), "navy": ("nvy",), "light": ("lt",),
    "dark": ("dk", "drk"), "jacket": ("jkt",), "backpack": ("bkpk",), "trousers": ("trs",), "with": ("w/",),
}
HAIR_COLOR = Lexicon({
    "black": "black*14|dark*7|jet black*2|raven|jet-black|very dark|brunette|dark coloured|darkish",
    "dark brown": "dark brown*8|dark*5|brown*5|brunette*3|chocolate|chocolate brown|chestnut|brownish|darkish",
    "brown": "brown*10|light brown*3|brunette*2|mid-brown|medium brown|chestnut|mousy|mousey brown|hazel|brownish",
    "blonde": "blonde*8|blond*4|fair*4|light*2|light coloured|sandy*2|golden*2|yellow|flaxen|straw coloured|"
    "honey blonde|platinum|bleached|dirty blonde",
    "gray": "grey*7|gray*7|white*3|silver*3|greying|graying|silvery|salt-and-pepper|whitish|snow white",
    "red": "red*6|ginger*5|auburn*3|reddish*2|copper|reddish brown|strawberry|rust coloured|carrot red|russet",
})
PERSON = Lexicon({
    "male": "man*20|male*8|guy*6|gentleman*4|bloke*3|chap*2|fellow*2|fella|dude*2|gent*2|male person|adult male|"
    "male subject|male pedestrian|male suspect|mister|male individual|male figure",
    "female": "woman*20|female*8|lady*8|girl*4|gal|female person|adult female|female subject|female pedestrian|"
    "female suspect|female individual|madam|female figure|lass",
})
YOUNG_PERSON = Lexicon({
    "male": "lad|boy|youth|young man|young guy|young bloke|teenage boy|youngster|young male|young fella|student",
    "female": "girl|young woman|young lady|teenage girl|lass|young female|youngster|student",
})
OLD_PERSON = Lexicon({
    "male": "old man|elderly man|older man|older gentleman|pensioner|old chap|elderly gent|senior|old guy|old boy|"
    "elderly male|grandfather type|old age pensioner",
    "female": "old woman|elderly woman|old lady|elderly lady|older woman|older lady|pensioner|senior|elderly female|"
    "granny|grandmother type",
})
NEUTRAL = (
    "person", "person", "person", "individual", "pedestrian", "someone", "somebody", "figure", "subject", "suspect",
    "passer-by", "passerby", "walker", "customer", "visitor", "shopper", "target", "party", "commuter", "human",
)
AGE = Lexicon({  # before the noun
    "young": "young*10|younger*2|youngish*2|youthful|teenage*2|teen|twenty-something|college-age|young-looking|"
    "juvenile",
    "adult": "middle-aged*6|middle aged*2|adult*3|mature|grown|thirty-something|forty-something|fortyish",
    "old": "elderly*6|old*5|older*4|aged*2|senior*2|retired-looking|ageing|aging",
})
AGE_AFTER = Lexicon({  # after it, or alone
    "young": "in {his} twenties|in {his} teens|in {his} early twenties|about twenty|around 20|late teens|20s|"
    "20ish years old|under thirty|early 20s|aged 18 to 25|of college age",
    "adult": "in {his} thirties|in {his} forties|about forty|around 40|30s to 40s|middle age|40ish|aged 30 to 50|"
    "mid 30s|in {his} late thirties",
    "old": "in {his} seventies|in {his} sixties|over sixty|about seventy|around 70|65 plus|60s or older|"
    "of retirement age|advanced in years|70ish",
})
BUILD = Lexicon({
    "thin": "thin*5|slim*6|slender*4|skinny*4|lean*2|slight*2|slightly built*2|petite|lanky|wiry|bony|"
    "narrow-shouldered|lightly built|trim|spindly|willowy|scrawny",
    "average": "average-sized*2|average build|medium build*3|medium-build|normal build|medium-sized|regular-sized|"
    "averagely built",
    "heavy": "heavy*2|heavyset*4|heavy-set*2|stocky*4|large*3|big*3|overweight*3|plump*2|chubby*2|stout*2|fat|"
    "portly|bulky|well-built|broad|broad-shouldered|burly|thickset|hefty|husky|tubby|large-framed|rotund|"
    "full-figured|solid",
})
BUILD_AFTER = Lexicon({
    "thin": "slim build*3|thin build|of slight build|slender build|slender figure|slight frame|skinny build|"
    "small frame",
    "average": "average build*3|medium build*3|of average build|of medium build|normal build|ordinary build|"
    "regular build",
    "heavy": "heavy build*3|large build|of heavy build|stocky build|big build|solid build|heavyset build|"
    "large frame|on the heavy side|of large build",
})
UPPER = Lexicon({
    "t-shirt": "t-shirt*14|tee*6|t shirt*4|tshirt*4|tee shirt*3|shirt*8|top*7|crew-neck top|crew neck|jersey|"
    "casual top|round-neck tee|cotton top|summer top|sports top|upper garment",
    "shirt": "shirt*18|button-up*3|button-down*3|button-up shirt*3|button-down shirt*3|dress shirt*3|"
    "collared shirt*3|top*4|work shirt|oxford shirt|oxford|business shirt|casual shirt|formal shirt|buttoned shirt|"
    "office shirt|upper garment",
    "polo shirt": "polo*8|polo shirt*8|polo top*2|shirt*4|collared shirt*2|golf shirt*2|top*4|t-shirt*2|"
    "tennis shirt|polo neck shirt|collared tee|collared top|sports shirt|polo tee|golf top",
    "blouse": "blouse*10|top*7|shirt*6|tunic*2|loose top|smock top|ladies' top|flowy top|light top|loose shirt|"
    "upper garment|loose blouse|dressy top",
    "sweater": "sweater*9|jumper*8|pullover*5|sweatshirt*4|knit*2|knitted top*2|jersey*2|top*5|woolly jumper|"
    "knitwear|fleece|crewneck|wool sweater|sweat top|woollen top|knit sweater|shirt*3|warm top|crew-neck jumper",
    "hoodie": "hoodie*12|hoody*3|hooded top*4|hooded sweatshirt*4|hooded jumper*2|hooded sweater*2|sweatshirt*4|"
    "top*4|hooded pullover|hooded jersey|pullover*2|zip hoodie|hooded sweat|top with a hood|jumper*2|sweater*2|"
    "shirt*1",
    "tank top": "tank top*9|vest top*4|singlet*3|sleeveless top*4|top*5|tank*3|cami|camisole|strappy top|muscle top|"
    "sleeveless tee|undershirt|sleeveless shirt*2|athletic top|running vest top|muscle shirt",
})
SLEEVE = Lexicon({
    "short": "short-sleeved*6|short-sleeve*4|short sleeve*3|short sleeved*3|half-sleeve*2|half-sleeved|s/s",
    "long": "long-sleeved*6|long-sleeve*4|long sleeve*3|long sleeved*3|full-sleeve|full-sleeved|full length sleeve|"
    "l/s",
    "none": "sleeveless*4|no-sleeve|sleeve-less|bare-armed",
})
SLEEVE_AFTER = Lexicon({
    "short": "with short sleeves*3|with half sleeves|sleeves to the elbow|short in the sleeve",
    "long": "with long sleeves*3|with full sleeves|sleeves down to the wrist|with full-length sleeves",
    "none": "without sleeves*3|with no sleeves|leaving the arms bare",
})
PATTERN = Lexicon({
    "striped": "striped*8|stripy*4|stripey*2|stripe*2|banded|hooped|pinstriped|lined|patterned*2|stripe-patterned|"
    "breton",
    "plaid": "plaid*6|checked*6|checkered*4|chequered*2|check*3|tartan*3|gingham*2|lumberjack|patterned*2|flannel|"
    "windowpane|squared",
    "polka dot": "polka-dot*5|polka dot*4|dotted*4|spotted*4|spotty*3|dotty|patterned*2|polka-dotted*2",
    "floral": "floral*8|flowery*4|flowered*3|flower-print*2|flower-patterned|floral-print*2|patterned*2|botanical|"
    "blossom|flower power|printed",
    "logo": "printed*3|graphic*3|branded*2|logo*4|print|slogan*2|picture|patterned",
    "two-tone": "two-tone*5|two-toned*2|two-colour*2|two-color|colour-block*2|color-blocked|bicolour|contrasting|"
    "dual-tone|raglan|baseball-style|split-colour",
    "plain": "plain*5|solid*3|unpatterned|plain coloured|solid coloured|simple|single-colour|one-colour|blank",
})
PATTERN_NOUN = Lexicon({
    "striped": "stripes*8|lines*2|bands|hoops|horizontal stripes*2|striping|bars|pinstripes",
    "plaid": "checks*4|squares*2|check pattern|plaid pattern|checkered pattern|tartan pattern|crossed lines|boxes",
    "polka dot": "dots*4|spots*4|polka dots*4|circles|little dots",
    "floral": "flowers*5|floral pattern*2|blossoms|flower print*2|floral print*2|petals|roses",
    "two-tone": "sleeves*5|arms*3|contrast sleeves",
    "logo": "logo*6|print*4|motif*2|graphic*3|writing*3|lettering*2|text*2|picture*2|design*3|emblem|badge|slogan|"
    "letters|symbol|words|image",
})
WHERE_LOGO = (
    "", "", "", "on the chest", "on the front", "across the chest", "in front", "on it", "at the front", "up front",
)
DRESS_LENGTH = Lexicon({
    "short": "short*5|mini*3|above-the-knee|thigh-length|little",
    "knee-length": "knee-length*5|midi*2|mid-length*2|to-the-knee|medium-length",
    "long": "long*5|full-length*2|maxi*3|ankle-length*2|floor-length",
})
DRESS = ("dress",) * 10 + ("frock", "gown", "sundress", "summer dress", "one-piece dress", "day dress", "one-piece")
SKIRT = ("skirt",) * 8 + ("a-line skirt",)
OUTER = Lexicon({
    "jacket": "jacket*20|coat*2|bomber jacket*2|bomber|windbreaker*2|blazer*2|anorak|zip-up jacket*2|zip-up*2|"
    "windcheater|light jacket|sports jacket|track top|casual jacket|suit jacket|rain jacket|waterproof|"
    "outdoor jacket|biker jacket|outer layer|sport coat|shell jacket",
    "coat": "coat*16|overcoat*4|long coat*4|trench coat*3|trench|parka*3|raincoat*3|winter coat*3|jacket*3|mac|"
    "mackintosh|topcoat|duffle coat|heavy coat|outer layer|long jacket|anorak|greatcoat|wool coat",
    "cardigan": "cardigan*14|cardie|cardi*2|knit cardigan|button-up knit|knitted jacket|buttoned sweater|open knit|"
    "cardigan sweater|outer layer|woolly cardigan",
    "vest": "vest*8|gilet*5|body warmer*4|bodywarmer*2|waistcoat*3|padded vest*2|sleeveless jacket*4|puffer vest|"
    "puffy vest|quilted vest|outer vest|down vest",
})
OPEN = ("open", "unzipped", "unbuttoned", "undone", "hanging open", "unfastened")
CLOSED = ("closed", "zipped up", "buttoned up", "done up", "fastened", "zipped")
LOWER = Lexicon({
    "pants": "trousers*12|pants*12|chinos*3|bottoms*4|long pants*2|cargo pants*2|cargos|long trousers|combats|"
    "casual trousers|cotton trousers|tracksuit bottoms|joggers|sweatpants|cords|legwear|slacks*2|work pants|"
    "jogging pants",
    "jeans": "jeans*20|denims*3|denim jeans*2|denim trousers|denim pants*2|trousers*2|pants*2|levis|bottoms|"
    "straight jeans|denim bottoms|jean trousers",
    "slacks": "slacks*5|dress pants*4|suit trousers*4|smart trousers*4|trousers*6|pants*4|formal trousers*2|"
    "dress trousers*2|suit pants*2|formal pants|pressed trousers|office trousers|business pants|tailored trousers|"
    "bottoms",
    "shorts": "shorts*20|short pants*2|bermudas|bermuda shorts|cut-offs|cargo shorts*2|knee-length shorts*2|"
    "short trousers|half pants|board shorts|gym shorts|running shorts|summer shorts|walking shorts|knee shorts",
    "leggings": "leggings*12|tights*4|skinny pants*2|yoga pants*3|tight trousers*3|tight pants*3|stretch pants*2|"
    "trousers|pants|skin-tight trousers|figure-hugging pants|jeggings|gym leggings|running tights|"
    "close-fitting trousers",
})
SHOE = Lexicon({
    "shoes": "shoes*20|dress shoes*3|smart shoes*2|loafers*3|lace-ups*2|brogues|footwear*2|flats*2|slip-ons|"
    "flat shoes*2|formal shoes*2|oxfords|pumps|low shoes|ordinary shoes|moccasins|closed shoes|town shoes",
    "sneakers": "sneakers*10|trainers*10|runners*3|running shoes*4|tennis shoes*3|gym shoes*2|sports shoes*3|"
    "shoes*6|kicks*2|athletic shoes*2|plimsolls|canvas shoes|sport shoes|jogging shoes|tennies|sneaks|"
    "training shoes|footwear",
    "sandals": "sandals*12|flip-flops*4|flip flops*2|open-toed shoes*3|slides|sliders|slippers|open shoes*2|"
    "strappy sandals*2|open-toe sandals|open footwear|beach shoes|shoes*2|summer shoes",
    "boots": "boots*16|ankle boots*4|high boots*2|work boots*2|booties|hiking boots|leather boots|calf-high boots|"
    "desert boots|chelsea boots|shoes*2|walking boots|half boots|short boots",
})
BAG = Lexicon({
    "backpack": "backpack*14|rucksack*10|knapsack*4|back pack*2|daypack*2|school bag*2|bookbag*2|book bag|pack*2|"
    "bag*3|haversack|schoolbag|luggage on {his} back|bag on {his} back*3|day sack|packsack|"
    "bag worn on both shoulders",
    "shoulder bag": "shoulder bag*12|tote*4|tote bag*4|bag*6|messenger bag*3|satchel*3|purse*2|shopper*2|hobo bag|"
    "slouch bag|bag on {his} shoulder*3|bag over {his} shoulder*3|shoulder purse|canvas bag|large bag|duffel|holdall",
    "crossbody bag": "crossbody bag*8|cross-body bag*5|crossbody*3|messenger bag*4|sling bag*4|satchel*3|bag*4|"
    "courier bag*2|side bag*2|bag slung across {his} body*2|bag across {his} chest*2|man bag|small bag*2|sling|"
    "cross-body|pouch",
    "handbag": "handbag*14|purse*6|hand bag*2|bag*6|clutch*2|clutch bag|tote|pocketbook*2|holdall*3|carrier bag*2|"
    "shopping bag*2|bag in {his} hand*3|hand-held bag|carry bag|carryall|grip|hand luggage|small bag|"
    "hand-carried bag",
})
HAT = Lexicon({
    "cap": "cap*14|baseball cap*8|ball cap*3|peaked cap*3|hat*4|snapback|trucker cap|visor|visored cap|billed cap|"
    "sports cap|baseball hat*2|headgear|something on {his} head|headwear|golf cap",
    "hat": "hat*16|brimmed hat*4|sun hat*4|bucket hat*2|fedora*2|trilby|wide-brimmed hat*3|sunhat*2|floppy hat|"
    "headgear|something on {his} head|headwear|round hat|panama|panama hat|boonie hat",
})
EYEWEAR = Lexicon({
    "glasses": "glasses*14|specs*4|spectacles*4|eyeglasses*4|a pair of glasses*2|reading glasses|eyewear*2|"
    "framed glasses|prescription glasses|a pair of specs|clear glasses|lenses",
    "sunglasses": "sunglasses*12|shades*5|dark glasses*4|sunnies*2|tinted glasses*2|a pair of shades|eyewear*2|"
    "sun glasses|a pair of sunglasses|dark shades|tinted lenses",
})
PROP = Lexicon({
    "phone": "phone*8|mobile*5|mobile phone*5|cell phone*5|cellphone*3|smartphone*4|cell*2|handset|telephone|device",
    "umbrella": "umbrella*10|brolly*3|parasol*3|sunshade|rain umbrella",
    "bottle": "bottle*6|water bottle*5|bottle of water*3|drink*4|plastic bottle*2|flask|drinks bottle*2|beverage|"
    "soda bottle",
    "book": "book*10|paperback*2|notebook*3|magazine*2|textbook|novel|folder*2|booklet|pad|diary",
})
HAIR = Lexicon({
    "short": "short {c} hair*8|short-cut {c} hair|cropped {c} hair*2|{c} hair, short|{c} hair cut short*2|"
    "{c} short hair*2|short {c} haircut|close-cropped {c} hair|neat short {c} hair|trimmed {c} hair|short hair, {c}|"
    "{c} close-cut hair",
    "buzz": "buzz cut*3|{c} buzz cut|crew cut*2|closely cropped hair|close-cropped {c} hair|very short {c} hair*3|"
    "shaved {c} hair|{c} stubble hair|skinhead cut|number-one haircut|short {c} hair*3|cropped {c} hair",
    "bald": "no hair*2|bald head*4|shaved head*3|shaven head*2|bald*3|bald scalp|hairless head|clean-shaven head",
    "long": "long {c} hair*10|{c} long hair*2|long flowing {c} hair*2|{c} hair down {his} back*2|"
    "long loose {c} hair*2|{c} hair worn long*2|{c} hair past {his} shoulders*2|hair long and {c}|"
    "long straight {c} hair|{c} locks|lengthy {c} hair|{c} shoulder-length hair",
    "bob": "{c} bob*5|{c} hair in a bob*2|chin-length {c} hair*3|bobbed {c} hair*2|shoulder-length {c} hair*2|"
    "jaw-length {c} hair|medium-length {c} hair*2|{c} hair to {his} chin|{c} bob cut|mid-length {c} hair|"
    "{c} shoulder-length hair|{c} hair above {his} shoulders",
    "ponytail": "{c} ponytail*6|{c} hair in a ponytail*5|{c} hair tied back*3|{c} pony tail*2|"
    "{c} hair pulled back*2|ponytail, {c} hair|{c} hair gathered behind|hair in a {c} ponytail|{c} tied-back hair*2|"
    "tied {c} hair|{c} hair tied up",
    "bun": "{c} bun*5|{c} hair in a bun*5|{c} hair tied up*3|{c} hair up*2|{c} topknot|{c} hair pinned up*2|"
    "{c} hair in a knot*2|bun, {c} hair|{c} hair put up|tied {c} hair|{c} chignon|{c} hair done up in a bun|"
    "{c} hair tied back",
})
ACTIVITY = {
    "walking": (
        "walking", "walking", "walking along", "strolling", "heading off", "on foot", "passing", "passing by",
        "going by", "walking past", "on the move", "striding", "making {his} way", "pacing along", "wandering",
        "moving", "mid-stride", "hurrying", "marching", "ambling", "proceeding on foot",
    ),
    "standing": (
        "standing", "standing", "standing there", "waiting", "stood still", "stationary", "loitering",
        "hanging around", "not moving", "standing about", "stopped", "idle", "standing by", "lingering",
    ),
}
SEEN_FROM = {
    "front": (
        "facing the camera", "facing us", "seen from the front", "coming towards us", "front view", "front on",
        "from the front", "heading toward the camera", "facing forward", "approaching", "face visible",
    ),
    "side": (
        "side on", "in profile", "seen from the side", "from the side", "side view", "sideways", "turned to the side",
        "viewed from the side", "profile view", "crossing",
    ),
    "back": (
        "from behind", "seen from behind", "back turned", "facing away", "going away", "rear view", "back view",
        "back to the camera", "walking off", "from the back", "face not visible", "leaving",
    ),
}
MISSING = {
    "bag": ("no bag", "without a bag", "no bags", "not carrying a bag", "no luggage", "bagless", "without any bag",
            "carrying no bag", "no backpack or handbag"),
    "hat": ("no hat", "bareheaded", "no cap", "without a hat", "nothing on {his} head", "hatless", "bare head",
            "no headwear", "no headgear"),
    "eyewear": ("no glasses", "without glasses", "no specs", "not wearing glasses", "no eyewear", "no spectacles"),
    "outer": ("no jacket", "no coat", "without a jacket", "without a coat", "coatless", "no jacket on", "no outerwear"),
    "prop": ("no phone in hand", "not holding anything else", "no umbrella", "not on the phone", "no bottle or book"),
}
# fmt: on
