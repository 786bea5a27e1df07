"""Personal and payment data in transcripts, replaced by numbered placeholders. English, as the real service's is
effective for English and Hindi only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from waves_local.engine import HeardWord
from waves_local.numbers import bare, digits_of

LANGUAGES = frozenset({"en", "hi"})

_FIRST_NAMES = frozenset(
    "alice amit andrew anita anna anthony arjun barbara bob brian carlos carol charles daniel david deepak diana "
    "donna edward elizabeth emily emma eric fatima frank george hannah henry jack james jane jason jennifer jessica "
    "john joseph joshua karen kevin laura linda lisa maria mark mary matthew michael michelle mohammed nancy neha "
    "oliver olivia patricia paul peter pooja priya rahul ravi richard robert ryan sandra sanjay sarah sophia steven "
    "susan thomas vikram william".split()
)
_INTRODUCTIONS = (("my", "name", "is"), ("the", "name", "is"), ("this", "is"), ("i", "am"), ("i'm",))
_STREETS = frozenset("street avenue road lane drive boulevard court way place square st ave rd".split())
_PAYMENT_CUES = frozenset("cvv cvc account card iban routing".split())
_ZIP_CUES = frozenset({"zip", "zipcode", "postcode", "pincode"})
_PHONE_DIGITS = range(7, 13)
_CARD_DIGITS = range(13, 20)


class Redactor:
    """Replaces what it is asked to, counting placeholders through the whole session."""

    def __init__(self, *, pii: bool, pci: bool) -> None:
        self._pii = pii
        self._pci = pci
        self._counts: Counter[str] = Counter()

    def preview(self, words: Sequence[HeardWord]) -> tuple[list[HeardWord], list[str]]:
        """As `redact`, but the numbers are not used up: for transcripts that will be revised."""
        counts = self._counts.copy()
        try:
            return self.redact(words)
        finally:
            self._counts = counts

    def redact(self, words: Sequence[HeardWord]) -> tuple[list[HeardWord], list[str]]:
        """The words, and the placeholders put into them."""
        if not (self._pii or self._pci):
            return list(words), []
        plain = [bare(w.text) for w in words]
        found: list[HeardWord] = []
        entities: list[str] = []
        at = 0
        while at < len(words):
            end, label = self._match(words, plain, at)
            if not label:
                found += words[at:end]
                at = end
                continue
            self._counts[label] += 1
            placeholder = f"[{label}_{self._counts[label]}]"
            entities.append(placeholder)
            last = words[end - 1].text
            mark = last[-1] if last[-1] in ".,?!" else ""
            found.append(replace(words[at], text=placeholder + mark, end_s=words[end - 1].end_s))
            at = end
        return found, entities

    def _match(self, words: Sequence[HeardWord], plain: Sequence[str], at: int) -> tuple[int, str]:
        """Where the entity that begins here ends, and its label; "" where the words up to there are none."""
        end, digits = at, ""
        while end < len(words) and (more := digits_of(words[end].text)):
            digits += more
            end += 1
        before = plain[max(0, at - 4) : at]
        if digits:
            if (
                self._pci
                and (len(digits) in _CARD_DIGITS or _PAYMENT_CUES & set(before))
                and len(digits) >= 3
            ):
                return end, "ACCOUNTNUMBER"
            if self._pci and _ZIP_CUES & set(before) and len(digits) >= 3:
                return end, "ZIPCODE"
            if self._pii and end < len(words):
                street = next((i for i in range(end, min(end + 4, len(words))) if plain[i] in _STREETS), None)
                if street is not None and street > end:
                    return street + 1, "ADDRESS"
            if self._pii and len(digits) in _PHONE_DIGITS:
                return end, "PHONENUMBER"
            return end, ""
        return self._match_name(plain, at) if self._pii else (at + 1, "")

    @staticmethod
    def _match_name(plain: Sequence[str], at: int) -> tuple[int, str]:
        if plain[at] in _FIRST_NAMES:
            return at + 1, "FIRSTNAME"
        if at and plain[at - 1] in _FIRST_NAMES and plain[at].isalpha():
            # A family name is one only where the person has been introduced.
            introduced = any(
                tuple(plain[at - 1 - len(i) : at - 1]) == i for i in _INTRODUCTIONS if at - 1 >= len(i)
            )
            if introduced:
                return at + 1, "LASTNAME"
        return at + 1, ""
