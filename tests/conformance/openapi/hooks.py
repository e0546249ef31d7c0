"""What schemathesis cannot know from the document, each with its reason.

JSON Schema counts characters where Tidegate counts bytes of UTF-8, has no word for "made by the page before", and cannot
look into text. Cases that are good by the schema's letter and bad by these rules are left out, and only those: what is
bad by the schema is sent whatever it is.
"""

import base64
import json

import schemathesis
from hypothesis import strategies as st

NAME_BYTES, REASON_BYTES = 128, 123

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=NAME_BYTES).filter(
    lambda text: len(text.encode()) <= NAME_BYTES
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
messages = st.lists(json_values, min_size=1, max_size=5)
schemathesis.openapi.format("tidegate-name", names)
schemathesis.openapi.format("tidegate-reason", st.text(max_size=REASON_BYTES // 4))
schemathesis.openapi.format("tidegate-cursor", st.just(base64.urlsafe_b64encode(b"0:0:0").decode().rstrip("=")))
schemathesis.openapi.format("json-messages", messages.map(json.dumps))
schemathesis.openapi.format(
    "ndjson-push",
    st.lists(messages.map(lambda list: json.dumps({"to": {"all": True}, "messages": list})), min_size=1).map("\n".join),
)


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    text = value if isinstance(value, (str, bytes)) else json.dumps(value)
    return text if isinstance(text, bytes) else text.encode()


def strings(value, key=None):
    """(key, string) of everything the API reads itself; what is inside messages it does not."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("message", "messages", "data", "items"):
                yield from strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)


def is_json_list(text):
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError):
        return False
    return isinstance(parsed, list) and len(parsed) > 0


def is_cursor(text):
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().startswith("0:0:")
    except ValueError:
        return False


def beyond_schema(case):
    """Why a case that keeps to the schema must be refused all the same; None if it must not."""
    parts = [case.path_parameters or {}, case.query or {}]
    if isinstance(case.body, (dict, list)):
        parts.append(case.body)
    for key, text in (pair for part in parts for pair in strings(part)):
        if len(text.encode("utf-8", "surrogatepass")) > (REASON_BYTES if key == "reason" else NAME_BYTES):
            if key != "cursor":
                return f"{key} has too many bytes"
        if key == "cursor" and not is_cursor(text):
            return "no page made this cursor"
    if isinstance(case.body, dict) and case.media_type == "application/x-www-form-urlencoded":
        if not is_json_list(case.body.get("items")):
            return "items is text with a JSON list in it"
    return None


@schemathesis.hook
def filter_case(context, case):
    if case.meta is not None and case.meta.generation.mode.is_positive:
        return beyond_schema(case) is None
    return True


@schemathesis.check
def batch_answers_every_push(ctx, response, case):
    """A batch is 202 whatever its pushes are; so what it answers is judged here: one answer each, in order."""
    if case.operation.path != "/v1/push/batch" or response.status_code != 202 or case.media_type != "application/json":
        return None
    receipts, pushes = response.json()["receipts"], case.body["pushes"]
    assert len(receipts) == len(pushes), f"{len(pushes)} pushes, {len(receipts)} answers"
    for push, receipt in zip(pushes, receipts):
        has_target = isinstance(push, dict) and "to" in push
        assert has_target or "code" in receipt, f"{push} was taken: {receipt}"
    return None
