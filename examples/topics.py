"""Make sentences about four topics from a few patterns, for the other examples."""

from __future__ import annotations

from itertools import product

THINGS = {
    "cooking": ["the soup", "this bread dough", "a pan of rice", "the roast", "her apple pie"],
    "weather": ["the storm", "tonight's frost", "a warm front", "the fog", "this rain"],
    "trains": ["the night express", "a freight train", "our tram", "the local service", "platform four"],
    "money": ["the loan", "her pension fund", "a savings account", "the tax return", "his mortgage"],
}
PATTERNS = [
    "Nobody expected {} to be like this.",
    "She wrote down everything about {}.",
    "They say {} is not what it was last year.",
    "We talked about {} all evening.",
    "What should one know about {}?",
    "My brother complained about {} again.",
    "By noon {} was ready for us.",
    "I would not worry about {}.",
]
UNSEEN = {
    "cooking": ["Peel the carrots first.", "The oven is too hot.", "He burnt the onions."],
    "weather": ["It will snow by Monday.", "The clouds are breaking up.", "Such humidity is rare here."],
    "trains": ["The conductor checked our tickets.", "Change at the next station.", "It left ten minutes late."],
    "money": ["Interest rates went up.", "The bank declined the payment.", "He invests in bonds."],
}


def sentences() -> tuple[list[str], list[str]]:
    """Return all sentences and their topics, 40 per topic."""
    rows = [
        (pattern.format(thing), topic)
        for topic, things in THINGS.items()
        for thing, pattern in product(things, PATTERNS)
    ]
    return [text for text, _ in rows], [topic for _, topic in rows]


def unseen() -> tuple[list[str], list[str]]:
    """Return sentences that follow none of the patterns and contain none of the things, and their topics."""
    rows = [(text, topic) for topic, texts in UNSEEN.items() for text in texts]
    return [text for text, _ in rows], [topic for _, topic in rows]
