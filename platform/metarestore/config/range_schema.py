"""JSON schemas of ranges, for editors."""

from __future__ import annotations

from pydantic.json_schema import JsonSchemaValue


def range_schema(number: JsonSchemaValue) -> JsonSchemaValue:
    """Returns the `anyOf` of all forms, where each value that can be drawn satisfies `number`."""

    def pair(items: JsonSchemaValue) -> JsonSchemaValue:
        return {"type": "array", "items": items, "minItems": 2, "maxItems": 2}

    def form(description: str, required: list[str], **properties: JsonSchemaValue) -> JsonSchemaValue:
        return {
            "type": "object",
            "description": description,
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    weights = {"type": "array", "items": {"type": "number", "minimum": 0}}
    values = {"type": "array", "items": number, "minItems": 1}
    written: list[JsonSchemaValue] = [
        {**number, "description": "A fixed value."},
        {**pair(number), "description": "[low, high]: uniform."},
        form("Uniform in the logarithm; both ends above 0.", ["log_uniform"], log_uniform=pair(number)),
        form("Uniform in the square.", ["square_uniform"], square_uniform=pair(number)),
        form("Reciprocal of a uniform number above 0.", ["inverse_uniform"], inverse_uniform=pair({"type": "number"})),
        form("One of several values, with optional weights.", ["choice"], choice=values, weights=weights),
        form(
            "[mean, std], clipped to [low, high].",
            ["normal", "clip"],
            normal=pair({"type": "number"}),
            clip=pair(number),
        ),
    ]
    scales = {str(scale): {"anyOf": written} for scale in (1, 2, 3, 4)}
    each = {"type": "object", "properties": scales, "additionalProperties": False, "minProperties": 1}
    return {"anyOf": [*written, form("One of the above for each scale.", ["per_scale"], per_scale=each)]}
