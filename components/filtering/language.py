"""The language of an alt text: by its script where that decides, by known words, else by py3langid.

Alt texts are short ("police car"), and a statistical identifier guesses wildly on two words; so it may say
"und".
"""

import re
from functools import cache
from typing import Any

from components.filtering.lexicon import vocabulary

UNDETERMINED = "und"  # ISO 639-2: undetermined

# Posterior below which a guess on Latin text is not worth having. py3langid tempers its posterior by the
# text's length, so that one threshold serves short and long texts.
MIN_CONFIDENCE = 0.4
ENGLISH_SHARE = 0.5  # share of a text's words that are known English words from which it is taken as English

# A script that one language of the web writes in (Han alone is taken as Chinese; with kana it is Japanese).
ONE_LANGUAGE = (
    ("ko", re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f]")),
    ("ja", re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")),
    ("zh", re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ffff]")),
    ("th", re.compile(r"[\u0e01-\u0e4e]")),
    ("he", re.compile(r"[\u05d0-\u05ea]")),
    ("el", re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")),
    ("hy", re.compile(r"[\u0531-\u0587]")),
    ("ka", re.compile(r"[\u10a0-\u10ff]")),
    ("bn", re.compile(r"[\u0985-\u09ce]")),
    ("ta", re.compile(r"[\u0b85-\u0bcd]")),
    ("te", re.compile(r"[\u0c05-\u0c4d]")),
    ("km", re.compile(r"[\u1780-\u17b3]")),
    ("my", re.compile(r"[\u1000-\u103f]")),
)

# Scripts that several languages share: the identifier chooses among these.
SHARED_SCRIPTS = (
    (re.compile(r"[\u0400-\u04ff]"), ("ru", "uk", "bg", "sr", "be", "mk", "kk", "mn")),
    (re.compile(r"[\u0620-\u06ff]"), ("ar", "fa", "ur")),
    (re.compile(r"[\u0905-\u0939]"), ("hi", "mr", "ne")),
)
LATIN_LANGUAGES = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "pl", "cs", "sk", "sl", "hr", "hu"),
    *("ro", "tr", "id", "vi", "ca", "et", "lt", "lv"),
)

LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
LATIN_WORD = re.compile(r"[a-z\u00df-\u024f\u1e00-\u1eff]+")


def language_of(text: str) -> str:
    """The ISO 639-1 code of `text`'s language, or "und" where the text is too short to tell."""
    if not text.isascii():
        latin = len(LATIN.findall(text))
        for language, letters in ONE_LANGUAGE:
            # One such letter stands for a syllable or a word; half as many as Latin letters carry the text.
            if len(letters.findall(text)) * 2 > latin:
                return language
        for letters, languages in SHARED_SCRIPTS:
            if len(letters.findall(text)) > latin:
                return _identifier(languages).classify(text)[0]
    words = LATIN_WORD.findall(text.lower())
    if not words:
        return UNDETERMINED
    english = vocabulary().english
    if sum(word in english for word in words) >= ENGLISH_SHARE * len(words):
        return "en"
    language, confidence = _identifier(LATIN_LANGUAGES).classify(text)
    return language if confidence >= MIN_CONFIDENCE else UNDETERMINED


@cache
def _identifier(languages: tuple[str, ...]) -> Any:
    """py3langid's model restricted to `languages`; 0.3 s and 20 MB each, once per process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(languages))
    return identifier
