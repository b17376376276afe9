"""String formats of JSON Schema as regular expressions: each accepts nothing that is not of its format. Pure.

They are narrower than the formats themselves where those are hard to tell apart from nonsense: ASCII only, no leap
seconds, labels of a host name without two hyphens in a row.
"""

from __future__ import annotations

_LEAP_CENTURY = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = (
    "(?:[0-9]{4}-(?:"
    "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|(?:[0-9]{{2}}{_LEAP_CENTURY}|{_LEAP_CENTURY}00)-02-29)"
)
_HOUR_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_MINUTE}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_HOUR_MINUTE})"


def _units(letters: str) -> str:
    """Counts of consecutive units, beginning with any of them: of `HMS`, `1H`, `1H2M`, `2M3S` but not `1H3S`."""
    tails: list[str] = []
    tail = ""
    for letter in reversed(letters):
        tail = f"[0-9]{{1,6}}{letter}" + (f"(?:{tail})?" if tail else "")
        tails.append(tail)
    return f"(?:{'|'.join(reversed(tails))})"


_DURATION = f"P(?:[0-9]{{1,6}}W|{_units('YMD')}(?:T{_units('HMS')})?|T{_units('HMS')})"
_LABEL = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_EMAIL = rf"{_ATOM}(?:\.{_ATOM}){{0,2}}@{_LABEL}(?:\.{_LABEL}){{1,2}}"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9A-Fa-f]{1,4}"


def _ipv6() -> str:
    """Eight groups, or up to six of them around `::`."""
    forms = [f"{_GROUP}(?::{_GROUP}){{7}}"]
    for before in range(7):
        left = f"{_GROUP}(?::{_GROUP}){{{before - 1}}}" if before else ""
        right = f"(?:{_GROUP}(?::{_GROUP}){{0,{5 - before}}})?" if before < 6 else ""
        forms.append(f"{left}::{right}")
    return f"(?:{'|'.join(forms)})"


_CHARACTER = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_QUERY = rf"(?:\?(?:{_CHARACTER}|[/?])*)?(?:#(?:{_CHARACTER}|[/?])*)?"
_URI = (
    f"(?:[A-Za-z][A-Za-z0-9+.-]{{0,15}}://{_HOST}(?::[0-9]{{1,4}})?(?:/{_CHARACTER}*)*{_QUERY}"
    f"|(?:mailto|urn|tel|data):{_CHARACTER}+)"
)
_URI_REFERENCE = f"(?:{_URI}|(?:/{_CHARACTER}+)+{_QUERY})"

PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "ipv6": _ipv6(),
    "uuid": "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": _URI,
    "iri": _URI,
    "uri-reference": _URI_REFERENCE,
    "iri-reference": _URI_REFERENCE,
    "json-pointer": "(?:/(?:[^~/]|~[01])*)*",
}
# The other formats of the specification (draft 2020-12, Validation, 7.3); any further one is an annotation by it.
REFUSED = frozenset({"regex", "uri-template", "relative-json-pointer"})
