"""What a TFLite flatbuffer says of itself: its operators, the runtime it asks for, and how its numbers are stored."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

_FLOAT = schema.TensorType.FLOAT32
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def parse(flatbuffer: bytes) -> Any:
    """Parse a flatbuffer to the schema's object tree. Raises ValueError where it is none."""
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    except Exception as error:  # flatbuffers checks nothing: a damaged file raises anything
        raise ValueError(f"not a TFLite flatbuffer ({error})") from error


def operators(model: Any) -> list[dict[str, Any]]:
    """Each operator and the version that the flatbuffer asks for: records of `operator` and `version`, sorted."""
    found = set()
    for code in model.operatorCodes:
        # Files from before 2020 have the number in the deprecated field alone; both hold it up to 127.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = number == schema.BuiltinOperator.CUSTOM and code.customCode
        found.add((code.customCode.decode() if custom else _OPERATORS.get(number, str(number)), code.version))
    return [{"operator": name, "version": version} for name, version in sorted(found)]


def minimum_runtime(model: Any) -> str | None:
    """The TensorFlow Lite version from which on every operator is known, as the converter wrote it; None if it did not.

    Some converters write an empty word where they do not know.
    """
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode() or None
    return None


def type_of(model: Any) -> str:
    """How the numbers are stored, one of `options.TYPES`.

    'int8' where what flows between the layers is integers; 'dynamic' where only weights are; 'float16' where weights
    are, and are widened on load; else 'float32'.
    """
    weights: set[int] = set()
    between: set[int] = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            (between if data is None or not len(data) else weights).add(tensor.type)
    if schema.TensorType.INT8 in between or (schema.TensorType.UINT8 in between and _FLOAT not in between):
        return "int8"
    if weights & {schema.TensorType.INT8, schema.TensorType.UINT8}:
        return "dynamic"
    return "float16" if schema.TensorType.FLOAT16 in weights else "float32"
