"""Plural rules: CLDR's conditions, compiled (docs/languages.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce

Rule = Callable[[int], bool]
_RELATION = re.compile(
    r"([nivwftce])(?:\s*%\s*([1-9][0-9]{0,8}))?\s*(!?=)\s*"
    r"([0-9]{1,9}(?:\.\.[0-9]{1,9})?(?:\s*,\s*[0-9]{1,9}(?:\.\.[0-9]{1,9})?)*)"
)


def compile_rule(condition: str) -> Rule | None:
    """Compile a CLDR plural condition for whole numbers; None if no whole number fulfils it.

    The syntax is CLDR's (UTS 35, language plural rules), so that a rule can be copied from its
    chart: `i` is `n`, and the operands that speak of decimals (v, w, f, t, c, e) are 0.
    Raises ValueError: the condition can't be read.
    """
    alternatives: list[Rule] = []
    for alternative in re.split(r"\s+or\s+", condition.strip()):
        relations = [_compile_relation(part) for part in re.split(r"\s+and\s+", alternative)]
        if False in relations:
            continue
        rules = [relation for relation in relations if not isinstance(relation, bool)]
        alternatives.append(reduce(_both, rules) if rules else lambda _: True)
    return reduce(_either, alternatives) if alternatives else None


def _compile_relation(relation: str) -> Rule | bool:
    """Compile `n % 10 = 2..4,9`; a bool where it doesn't depend on the number."""
    match = _RELATION.fullmatch(relation)
    if not match:
        raise ValueError(f"can't read {relation!r}")
    operand, modulus, sign, values = match.groups()
    bounds = [value.strip().partition("..") for value in values.split(",")]
    ranges = [range(int(low), int(high or low) + 1) for low, _, high in bounds]
    wanted = sign == "="
    if operand not in "ni":
        return any(0 in numbers for numbers in ranges) == wanted
    contains = ranges[0].__contains__
    if len(ranges) > 1:

        def contains(number: object, /) -> bool:
            return any(number in numbers for numbers in ranges)

    if modulus:
        divisor = int(modulus)
        return lambda number: contains(number % divisor) == wanted
    return contains if wanted else lambda number: not contains(number)


def _both(first: Rule, second: Rule) -> Rule:
    return lambda number: first(number) and second(number)


def _either(first: Rule, second: Rule) -> Rule:
    return lambda number: first(number) or second(number)
