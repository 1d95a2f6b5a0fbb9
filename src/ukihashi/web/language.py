"""Which language a reader wants: Accept-Language with its weights (RFC 9110, 12.5.4) and `?lang=` (A2, D15)."""

from typing import Final

from ukihashi.locale import LANGUAGES

DEFAULT: Final = "en"
MAX_HEADER: Final = 2048  # characters looked at; browsers send less than 200
MAX_RANGES: Final = 64


def named(tag: str | None) -> str | None:
    """The one of `LANGUAGES` that a tag such as `ja` or `ja-JP` names, else None."""
    primary = (tag or "").strip().lower().replace("_", "-").partition("-")[0]
    return primary if primary in LANGUAGES else None


def weights(header: str) -> list[tuple[str, float]]:
    """The language ranges of an Accept-Language value with their weights, in the order written, lower case.

    A range whose weight isn't a qvalue (0 to 1, at most three decimals; RFC 9110, 12.4.2) is left out;
    the others count.
    """
    ranges: list[tuple[str, float]] = []
    for part in header[:MAX_HEADER].split(",")[:MAX_RANGES]:
        language, *parameters = (field.strip().lower() for field in part.split(";"))
        weight: float | None = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _qvalue(value.strip())
        if language and weight is not None:
            ranges.append((language, weight))
    return ranges


def choose(header: str, default: str = DEFAULT) -> str:
    """The one of `LANGUAGES` that suits an Accept-Language value best.

    A range suits a language when its first subtag is that language (`ja-JP` suits `ja`: the lookup of RFC 4647, 3.4);
    `*` suits those that no range names. Equal weights: the one written first. Weight 0 means "not this one". When
    nothing suits, `default` is served all the same: a page in a foreign language is more use than status 406.
    """
    ranges = weights(header)

    def wish(language: str) -> tuple[float, int] | None:
        """Weight and place of the best range for `language`; None when nothing is said about it."""
        own = [(weight, place) for place, (tag, weight) in enumerate(ranges) if named(tag) == language]
        star = [(weight, place) for place, (tag, weight) in enumerate(ranges) if tag == "*"]
        return max(own or star, key=lambda found: (found[0], -found[1]), default=None)

    def order(language: str) -> tuple[float, int, bool]:
        weight, place = wish(language) or (1e-6, MAX_RANGES)  # unnamed: behind every wish, before a refusal
        return (-weight, place, language != default)

    return min(LANGUAGES, key=order)


def _qvalue(text: str) -> float | None:
    whole, _, decimals = text.partition(".")
    if whole not in {"0", "1"} or len(decimals) > 3 or (decimals and not (decimals.isascii() and decimals.isdigit())):
        return None
    value = float(f"{whole}.{decimals or 0}")
    return value if value <= 1 else None
