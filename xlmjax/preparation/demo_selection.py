"""What makes sense: which nouns a verb takes, which an adjective describes, what happens where."""

import functools
from typing import NamedTuple

from xlmjax.preparation import demo_lexicon as lexicon

# noun | what it is; "free" things are nobody's own
_KINDS = """
man        | person free
woman      | person free
boy        | person free
girl       | person free
child      | person free
teacher    | person work
doctor     | person work
nurse      | person work
farmer     | person work
cook       | person work
driver     | person work
singer     | person work
writer     | person work
worker     | person work
pupil      | person work
friend     | person social
neighbour  | person social
guest      | person social
fisherman  | person free
soldier    | person free
king       | person free
queen      | person free
brother    | kin
sister     | kin
mother     | kin
father     | kin
dog        | animal pet hunter
cat        | animal pet hunter
lion       | animal hunter wild free
elephant   | animal wild free
cow        | animal farm
goat       | animal farm
sheep      | animal farm
hen        | animal farm
horse      | animal farm
bird       | animal prey free
fish       | animal prey free
mouse      | animal prey free
rabbit     | animal prey pet
bread      | food mass
meat       | food mass
cheese     | food mass
honey      | food mass
soup       | food mass
milk       | drink mass
tea        | drink mass
coffee     | drink mass
juice      | drink mass
apple      | fruits
banana     | fruits
orange     | fruits
mango      | fruits
egg        | dish
potato     | dish crop
tomato     | dish crop
onion      | dish crop
cake       | dish
book       | readable portable text
letter     | readable portable text
newspaper  | readable portable
story      | readable text
song       | text
photo      | thing portable
gift       | portable
money      | mass cash
key        | portable small
pen        | portable small
knife      | portable tool
cup        | portable tool fragile
lamp       | portable fragile device
watch      | portable fragile device
phone      | portable device
radio      | portable device
ball       | portable
hat        | portable clothes
shirt      | portable clothes
dress      | portable clothes
shoe       | portable clothes
basket     | portable container
bag        | portable container
box        | portable container lid
chair      | furniture fragile
table      | furniture
bed        | furniture
door       | lid
window     | lid fragile
car        | vehicle
bicycle    | vehicle
boat       | vehicle
tree       | plant free
flower     | plant
house      | building indoor
bridge     | building outdoor free
school     | building indoor free
hospital   | building indoor free
library    | building indoor free
hotel      | building indoor free
office     | indoor
restaurant | building indoor free
kitchen    | indoor room
room       | indoor room
station    | outdoor stop free
garden     | outdoor
market     | outdoor stop free
village    | outdoor settlement free
city       | outdoor settlement free
island     | outdoor nature free
river      | outdoor nature free
forest     | outdoor nature free
mountain   | outdoor nature free
field      | outdoor
street     | outdoor free
person     | general free
animal     | general free
fruit      | general free
"""

# verb | subjects | objects | where | manners: kinds or single nouns; "-" is none.
# A verb that means different things to people and animals has a frame for each.
_FRAMES = """
eat      | people       | food fruits dish                 | any     | quickly slowly
eat      | hunter       | meat                             | land    | quickly slowly
eat      | farm rabbit mouse elephant | bread fruits crop  | land    | quickly slowly
drink    | people       | drink                            | any     | quickly slowly
drink    | cat dog      | milk                             | home    | quickly slowly
buy      | people       | food drink fruits dish portable vehicle farm furniture | shop | -
sell     | people       | food drink fruits dish portable vehicle farm furniture | shop | -
cook     | people       | soup meat egg potato             | kitchen | slowly well
read     | people       | readable                         | any     | slowly quickly aloud
write    | people       | text                             | indoor  | quickly carefully
open     | people       | lid bag                          | -       | carefully slowly quietly
close    | people       | lid bag                          | -       | carefully slowly quietly
see      | people       | people animal vehicle plant building | outdoor | -
see      | animal       | people animal                    | land    | -
find     | people       | portable cash                    | any     | -
find     | people       | pet farm                         | outdoor | -
lose     | people       | portable cash                    | any     | -
wash     | people       | tool vehicle dog fruits window   | -       | carefully quickly
carry    | people       | container furniture clothes book lamp | -  | carefully slowly
break    | people       | fragile                          | indoor  | -
repair   | people       | vehicle device furniture lid     | -       | carefully quickly well
draw     | people       | plant animal building vehicle    | indoor  | carefully well
help     | people       | people                           | any     | -
visit    | people       | settlement island hospital school library | -  | -
invite   | people       | people                           | -       | -
greet    | people       | people                           | outdoor | -
follow   | people       | people pet farm                  | outdoor | slowly quietly
follow   | hunter       | people farm prey                 | land    | slowly quietly
hear     | people       | people song radio                | any     | -
hear     | people       | animal                           | outdoor | -
hear     | animal       | people animal                    | land    | -
look for | people       | portable cash people             | any     | -
look for | people       | pet farm                         | outdoor | -
wait for | people       | people                           | any     | -
build    | people       | building boat                    | settled | -
plant    | people       | plant crop                       | land    | carefully
sing     | people       | song                             | any     | aloud quietly well
tell     | people       | story                            | any     | slowly well
clean    | people       | room building furniture office shoe | -    | carefully quickly well
bring    | people       | portable food drink fruits dish cash | -   | -
steal    | people       | portable cash                    | any     | -
steal    | people       | farm vehicle                     | outdoor | -
hide     | people       | portable cash food               | any     | carefully
forget   | people       | small container clothes book     | indoor  | -
feed     | people       | pet farm                         | land    | -
hunt     | hunter soldier fisherman | prey                 | land    | quietly
catch    | cat fisherman child farmer | prey               | land    | quickly
count    | people       | farm fruits book chair           | any     | carefully slowly quickly
love     | people       | people pet horse settlement island | -     | -
cut      | people       | bread meat cheese fruits dish flower | kitchen | carefully quickly
push     | people       | vehicle furniture box            | -       | slowly carefully
use      | people       | tool phone pen vehicle           | any     | carefully
choose   | people       | portable fruits vehicle          | shop    | carefully slowly quickly
have     | people       | pet farm vehicle portable cash house | -   | -
give     | people       | portable cash fruits dish pet    | -       | -
show     | people       | portable vehicle house room garden horse | - | -
send     | people       | letter photo gift cash book dress | -      | -
sleep    | people       | -                                | any     | well
sleep    | animal       | -                                | land    | well
work     | people       | -                                | any     | quickly carefully well
dance    | people       | -                                | any     | well slowly
play     | child boy girl pupil brother sister friend | -  | any     | quietly well
play     | pet goat     | -                                | land    | quietly
cry      | child boy girl woman man queen king mother sister brother | - | any | quietly aloud
laugh    | people       | -                                | any     | quietly aloud
run      | people       | -                                | outdoor | quickly slowly
run      | pet farm lion elephant mouse | -                | land    | quickly slowly
swim     | people fish dog elephant | -                    | water   | quickly slowly well
live     | people       | -                                | home    | -
fall     | people horse | -                                | outdoor | -
study    | people       | -                                | indoor  | well quietly
go       | people       | -                                | goal    | -
return   | people       | -                                | goal    | -
travel   | people       | -                                | far     | -
arrive   | people       | -                                | goal    | -
"""

# adjective | can be very, compared, passing (Spanish estar), a state (only said with "is")
#   | the nouns it describes
_QUALITIES = """
big         | very compared | animal portable furniture vehicle plant building outdoor room
small       | very compared | animal portable furniture vehicle plant building outdoor room
long        | very compared | readable song dress river street bridge
short       | very compared | readable song dress river street bridge
heavy       | very compared | portable furniture
light       | very compared | portable furniture
strong      | very compared | people animal
weak        | very compared | people animal
rich        | very compared | people
poor        | very compared | people
old         | very compared | man woman work social fisherman soldier king queen kin animal
clever      | very compared | people dog
kind        | very compared | people
lazy        | very compared | people cat horse
hardworking | very          | people
famous      | very          | people settlement nature hotel restaurant
happy       | passing very | people
sad         | passing very  | people
sick        | passing very  | people animal
tired       | passing very  | people animal
angry       | passing very  | people lion dog
hungry      | passing very  | people animal
dangerous   | very          | wild river street forest mountain knife
fast        | very compared | vehicle horse
new         | very          | portable furniture vehicle building
modern      | very          | vehicle building settlement office device
beautiful   | very compared | plant clothes house settlement nature garden horse bird photo song
expensive   | very compared | portable furniture vehicle house cheese honey
cheap       | very          | portable furniture vehicle fruits dish
important   | very          | readable office phone key bridge river market
interesting | very compared | readable city village island
clean       | passing very  | room building furniture clothes tool vehicle street
dirty       | passing very  | room building furniture clothes tool vehicle street
hot         | passing very  | soup milk tea coffee meat
cold        | passing very  | soup milk tea coffee juice
sweet       | very          | fruits honey juice cake tea
ripe        | passing       | fruits tomato
empty       | passing       | container cup room house street
broken      | passing state | fragile device bicycle car
open        | passing state | lid
closed      | passing state | lid
quiet       | very          | settlement nature street library room garden
red         | colour        | fruits clothes container furniture vehicle flower ball house bird
black       | colour        | pet farm clothes container furniture vehicle bird pen
white       | colour        | pet farm clothes container furniture vehicle flower house
green       | colour        | clothes container furniture vehicle door bird apple
blue        | colour        | clothes container furniture vehicle flower door bird pen
yellow      | colour        | clothes container furniture vehicle flower door bird
"""

# state | what it makes people do | what it keeps them from
_REASONS = """
tired  | sleep                  | work dance run swim study travel play clean cook
hungry | eat cook               | sleep work play study
happy  | sing dance laugh       | cry
sad    | cry                    | sing dance laugh play eat
angry  | break                  | greet invite help wait_for laugh
sick   | sleep                  | work travel eat play swim drink go
"""

OPPOSITES = lexicon.mapping(
    "big/small long/short heavy/light strong/weak rich/poor happy/sad lazy/hardworking "
    "expensive/cheap clean/dirty hot/cold open/closed"
)
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}

_PLACES = {
    "-": "",
    "any": "indoor outdoor",
    "shop": "market city village station",
    "settled": "city village island",
    "land": "garden field forest village island river",
    "kitchen": "kitchen house garden",
    "water": "river",
    "home": "city village island forest house hotel",
    "far": "city village island",
    "goal": "school hospital library hotel office restaurant station market village city island "
    "river forest field",
}


class Frame(NamedTuple):
    """One verb and the words it selects; intransitive frames have the single object ""."""

    verb: str
    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    places: tuple[str, ...]
    manners: tuple[str, ...]


KINDS = {noun: frozenset(kinds.split()) for noun, kinds in lexicon.rows(_KINDS)}
MASS = frozenset(noun for noun, kinds in KINDS.items() if "mass" in kinds)
PEOPLE = frozenset(n for n, kinds in KINDS.items() if kinds & {"person", "kin"}) | {"person"}
ANIMATE = frozenset(n for n, kinds in KINDS.items() if "animal" in kinds) | PEOPLE | {"animal"}
MOVEMENT = frozenset(("go", "return", "travel"))


def select(words: str) -> tuple[str, ...]:
    """Expand kinds and single nouns to nouns, in table order; "people" are persons and kin."""
    wanted = set(words.replace("people", "person kin").split())
    return tuple(
        noun
        for noun, kinds in KINDS.items()
        if kinds & wanted or (noun in wanted and "general" not in kinds)
    )


FRAMES = tuple(
    Frame(
        verb,
        select(subjects),
        select(objects) or ("",),
        select(_PLACES.get(places, places)),
        tuple(manners.replace("-", "").split()),
    )
    for verb, subjects, objects, places, manners in lexicon.rows(_FRAMES)
)
REASONS = tuple(
    (state, verb.replace("_", " "), negative)
    for state, does, does_not in lexicon.rows(_REASONS)
    for negative, verbs in ((False, does), (True, does_not))
    for verb in verbs.split()
)
QUALITIES = {
    adjective: frozenset(flags.split()) for adjective, flags, _ in lexicon.rows(_QUALITIES)
}
_DESCRIBES = {adjective: select(nouns) for adjective, _, nouns in lexicon.rows(_QUALITIES)}


@functools.cache
def adjectives_of(noun: str) -> tuple[str, ...]:
    """Return the adjectives that may describe a noun; names are described as friends are."""
    noun = noun if noun in KINDS else "friend"
    return tuple(adjective for adjective, nouns in _DESCRIBES.items() if noun in nouns)


@functools.cache
def attributes_of(noun: str) -> tuple[str, ...]:
    """Return the adjectives that may stand beside a noun, not only be said of it."""
    return tuple(a for a in adjectives_of(noun) if "state" not in QUALITIES[a])


@functools.cache
def colours_of(noun: str) -> tuple[str, ...]:
    """Return the colours a noun may have."""
    return tuple(a for a in adjectives_of(noun) if "colour" in QUALITIES[a])
