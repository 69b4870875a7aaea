"""Sentences for synthetic speech: parts of books, everyday sentences, letters, numbers and dates.

    python recipes/english/sentences.py DATA COUNT

prints so many distinct everyday sentences, for a language model. Sentences of the development and test sets
in DATA, the folder that `prepare_recordings.py` wrote, are left out.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from text import Exclusion, normalize, read_excluded

from asr.errors import AsrError

EVERYDAY = 0.35  # share of everyday sentences; the others come from books
SHORT = 0.12  # share of phrases of one to four words out of a book
CHARACTERS = (24, 170)  # of a sentence from a book: 2 to 12 seconds

# Values of the slots of the templates, separated by "|".
_SLOTS = {
    "who": (
        "my mom|my dad|my brother|my sister|my wife|my husband|my boss|my friend|my manager|the kids|"
        "my daughter|my son|grandma|my uncle|my aunt|my cousin|a colleague|the team|everyone|nobody|"
        "my parents|our neighbor|the doctor|sarah|john|david|emma|michael|anna|tom|lisa|james|"
        "the client|my roommate|my grandfather|the teacher|my sister's husband|an old friend of mine|"
        "one of my coworkers|maria|daniel|she|he"
    ),
    "did": (
        "called me|told me about it|came over|was really tired|is doing fine|wasn't feeling well|"
        "got a new job|moved to a new house|had a meeting|finished the report|was late again|"
        "cooked dinner|went shopping|is getting married|had a baby|bought a car|sent me an email|"
        "forgot the keys|is on vacation|works from home now|started school|took the train|"
        "stayed up late|left early|made a lot of progress|asked me to help|didn't say anything|"
        "couldn't make it|broke the window|lost the phone|won the game|wants to change jobs|"
        "just turned thirty|made us laugh|has been sick|came home late|wrote me a letter"
    ),
    "do": (
        "go to the store|finish this project|pick up the kids|call you back|send you the file|"
        "clean the house|make dinner|go for a walk|get some sleep|talk to my boss|pay the bills|"
        "book the flight|see the dentist|work on the presentation|wash the car|visit my parents|"
        "take a break|look for a new job|prepare for the interview|watch a movie|read that book|"
        "do the laundry|buy some groceries|meet some friends|check my email|fix the computer|"
        "take the dog out|learn to play the guitar|spend more time with my family|write the report|"
        "answer all these messages|go to bed early|save some money|plan the birthday party|bake a cake|"
        "paint the bedroom|cancel the appointment|drive to the airport"
    ),
    "when": (
        "today|tomorrow|yesterday|last night|this morning|this afternoon|this weekend|next week|"
        "last week|on monday|on tuesday|on wednesday|on thursday|on friday|on saturday|on sunday|"
        "in the evening|after work|before lunch|at seven o'clock|at half past eight|around noon|"
        "a few days ago|next month|in january|in june|in september|later|soon|right now|every day|"
        "at the moment|two years ago|when i was a child|these days|all the time|once in a while|"
        "at the end of the month|over the holidays|during the summer"
    ),
    "adj": (
        "great|good|nice|really nice|pretty hard|difficult|easy|fun|boring|expensive|cheap|important|"
        "beautiful|terrible|weird|interesting|a little strange|so much better|not too bad|amazing|"
        "stressful|busy|quiet|cold|hot|okay|very loud|kind of sad|wonderful|too long|a bit late|"
        "exciting|exactly what we needed|hard to believe"
    ),
    "thing": (
        "the weather|the meeting|the project|my job|the new office|the food|dinner|the movie|the trip|"
        "the house|the party|school|the traffic|the presentation|work|the weekend|the game|the concert|"
        "my phone|the apartment|the garden|the holiday|the schedule|the deadline|the budget|"
        "the wedding|my first day|the whole thing|the new manager|our vacation|the conversation|"
        "the water|the music|my family|the hospital|the interview"
    ),
    "fill": (
        "so|well|um|uh|and|but|you know|i mean|actually|anyway|okay so|yeah|like|and then|so basically|"
        "oh and|honestly|to be honest|i guess|right|so yeah|of course|hi|hello|by the way|because|"
        "at first"
    ),
    "num": (
        "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
        "sixteen|seventeen|eighteen|nineteen|twenty|twenty one|twenty five|thirty|thirty two|forty|"
        "forty five|fifty|sixty|seventy|eighty|ninety|a hundred|two hundred|a thousand|a couple of|"
        "a few"
    ),
    "unit": "minutes|hours|days|weeks|months|years|people|dollars|miles|times|emails|pages|kids",
    "let": "a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q|r|s|t|u|v|w|x|y|z",
    "dig": "zero|one|two|three|four|five|six|seven|eight|nine",
    "mon": "january|february|march|april|may|june|july|august|september|october|november|december",
    "ord": (
        "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|fifteenth|twentieth|"
        "twenty first|thirtieth"
    ),
    "place": (
        "the office|the park|the store|school|the hospital|the airport|the station|the gym|"
        "the restaurant|the beach|downtown|london|new york|chicago|my aunt's house|the bank|"
        "the library|the kitchen|church|the mountains|the lake|the mall|my sister's place|"
        "the coffee shop|the countryside|work"
    ),
}
SLOTS = {name: values.split("|") for name, values in _SLOTS.items()}

_SPOKEN = (
    "{fill} {who} {did} {when}|i have to {do} {when}|i'm going to {do} {when} and then i want to {do}|"
    "{fill} i think {thing} was {adj}|{thing} is {adj} {when}|i wanted to {do} but {who} {did}|"
    "we're planning to {do} {when}|did you {do} {when}|can you {do} for me|"
    "i've been at {place} for {num} {unit}|{fill} {fill} {thing} was {adj} and {who} {did}|"
    "it took me {num} {unit} to {do}|i don't know if i can {do} {when}|"
    "{who} said that {thing} is {adj}|let's meet at {place} {when}|i really need to {do}|"
    "{fill} i was at {place} {when} and {who} {did}|how was {thing}|what are you doing {when}|"
    "we had {num} {unit} left and i couldn't {do}|{who} and {who} went to {place} {when}|"
    "i'm so glad that {who} {did}|there's nothing to {do} at {place}|"
    "i should probably {do} before i {do}|we usually {do} {when}|at work we have to {do} every day|"
    "my family is {adj} and we like to {do}|{fill} that's what {who} told me {when}|that's {adj}|"
    "see you {when}|i'll be there in {num} {unit}|i used to {do} {when} but now i don't have the time|"
    "what i like about {thing} is that it's {adj}|when i was at {place} {who} {did} and it was {adj}|"
    "the thing is that {who} {did} {when}|i would love to {do} but {thing} is {adj}|"
    "it's been {num} {unit} since we went to {place}|{who} didn't want to {do} so i had to {do}|"
    "do you think {thing} will be {adj} {when}|if i can't {do} {when} i'm going to {do}|"
    "i was wondering if you could {do} {when}|i work at {place} and i {do} {when}|"
    "you should have seen {thing} it was {adj}|i told {who} that i'd {do} {when}|"
    "my favorite part was {thing} because it was {adj}|thank you so much for {thing} it was {adj}"
)
_ITEMS = (
    "{dig} {dig} {dig} {dig}|{dig} {dig} {dig} {dig} {dig} {dig} {dig}|{dig} {dig}|{dig}|{let}|"
    "{let} {let} {let}|{mon} {ord}|on the {ord} of {mon}|{num} {unit}|{num} plus {num}|nineteen {num}|"
    "two thousand and {num}|my number is {dig} {dig} {dig} {dig} {dig} {dig}|thank you so much|yes|no|"
    "okay|hello"
)
SPOKEN, ITEMS = _SPOKEN.split("|"), _ITEMS.split("|")


def everyday(draw: random.Random) -> str:
    """A sentence out of the templates; now and then two in one breath, or a number or a date."""
    if draw.random() < 0.2:
        return _fill(draw.choice(ITEMS), draw)
    text = _fill(draw.choice(SPOKEN), draw)
    if draw.random() < 0.4:
        text = f"{text} {draw.choice(SLOTS['fill'])} {_fill(draw.choice(SPOKEN), draw)}"
    return text


def _fill(template: str, draw: random.Random) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: draw.choice(SLOTS[slot[1]]), template)


def from_book(book: Sequence[str], draw: random.Random) -> str:
    """A sentence of the book, a part of a long one, or a short phrase."""
    words = draw.choice(book).split()
    if draw.random() < SHORT:
        count = draw.randint(1, 4)
    elif len(" ".join(words)) > CHARACTERS[1]:
        count = draw.randint(8, 24)
    else:
        return " ".join(words)
    first = draw.randrange(max(1, len(words) - count + 1))
    return " ".join(words[first : first + count])


def draw_sentence(book: Sequence[str], excluded: Exclusion, draw: random.Random) -> str:
    """A sentence that is in none of the excluded ones. `book` has one sentence in each item."""
    while True:
        # Books keep the apostrophe of "the parents' house", which normalized text does not have.
        text = normalize(everyday(draw) if draw.random() < EVERYDAY else from_book(book, draw))
        if text and len(text) <= CHARACTERS[1] and text not in excluded:
            return text


def distinct_everyday(count: int, excluded: Exclusion) -> list[str]:
    """So many different everyday sentences, sorted. They are the same in each run."""
    draw = random.Random("everyday")
    found: set[str] = set()
    while len(found) < count:
        text = everyday(draw)
        if text not in excluded:
            found.add(text)
    return sorted(found)


def main() -> None:
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit(__doc__)
    print(*distinct_everyday(int(sys.argv[2]), read_excluded(Path(sys.argv[1]))), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"sentences.py: error: {error}")
