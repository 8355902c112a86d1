"""Outputs of models with calls, and what has to be read from them: content, and name and arguments of each call.

Sources: [v] vLLM's tests/tool_parsers/test_<format>_tool_parser.py (inputs and expected calls; where its whole and streamed answers
differ, or arguments are written anew, the verbatim text stands here), [q] the model card and chat template of Qwen2.5 and
Qwen3-Coder, [l] Llama 3.1's to 3.3's prompt format pages, [m] mistral-common's documentation of tool calls per tokenizer version.
Cases without a source are faults that models make; calls that have begun keep what came.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Sample(NamedTuple):
    form: str
    output: str
    content: str
    calls: list[tuple[str, str]]


PROPERTIES: dict[str, dict[str, Any]] = {
    "get_current_weather": {
        "city": {"type": "string"},
        "state": {"type": "string"},
        "unit": {"type": "string", "enum": ["fahrenheit", "celsius"]},
    },
    "calculate_area": {
        "shape": {"type": "string"},
        "dimensions": {"type": "object"},
        "precision": {"type": "integer"},
    },
    "get_weather": {"city": {"type": "string"}, "metric": {"type": "string"}},
    "register_user": {},
    "do_something_cool": {},
    "searchTool": {"query": {"type": "string"}},
    "getOpenIncidentsTool": {},
    "complexTool": {},
    "test_types": {
        "int_param": {"type": "integer"},
        "float_param": {"type": "float"},
        "bool_param": {"type": "boolean"},
        "str_param": {"type": "string"},
        "obj_param": {"type": "object"},
    },
    "test_anyof": {
        "anyof_int": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 5},
        "anyof_str": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "anyof_array": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "anyof_obj": {"anyOf": [{"type": "object"}, {"type": "null"}]},
        "type_as_array": {"type": ["integer", "null"]},
        "multi_non_null": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        "referred": {"$ref": "#/$defs/Level"},
    },
}
SF = '{"city": "San Francisco", "state": "CA", "unit": "celsius"}'

HERMES = [
    Sample("hermes", "This is some prior text that has nothing to do with tool calling.",
           "This is some prior text that has nothing to do with tool calling.", []),  # [v]
    Sample("hermes", '<tool_call>\n{"name": "final_answer", "arguments": {"trigger": true}}\n</tool_call>', "",
           [("final_answer", '{"trigger": true}')]),  # [v]
    Sample("hermes", '<tool_call>\n{"name": "final_answer", "arguments": {"trigger": true}}', "",
           [("final_answer", '{"trigger": true}')]),  # [v] until_eos
    Sample("hermes", '<tool_call>{"name": "get_current_temperature","arguments": {"location":"San Francisco, California, '
           'United States", "unit": "celsius"}}</tool_call>', "",
           [("get_current_temperature", '{"location":"San Francisco, California, United States", "unit": "celsius"}')]),  # [v]
    Sample("hermes", 'Sure, let me check the weather.<tool_call>{"name": "get_weather", "arguments": {"city": "NYC"}}</tool_call>',
           "Sure, let me check the weather.", [("get_weather", '{"city": "NYC"}')]),  # [v]
    Sample("hermes", '<tool_call>{"name": "search", "arguments": {"q": "cats"}}</tool_call>'
           '<tool_call>{"name": "search", "arguments": {"q": "dogs"}}</tool_call>', "",
           [("search", '{"q": "cats"}'), ("search", '{"q": "dogs"}')]),  # [v]
    Sample("hermes", '<tool_call>\n{"name": "get_db_config", "arguments": "{\\"param\\": \\"max_connections\\"}"}\n</tool_call>',
           "", [("get_db_config", '{"param": "max_connections"}')]),  # [v] serialized_arguments
    Sample("hermes", '<tool_call>\n{"name": "do_thing", "arguments": "hello"}\n</tool_call>', "",
           [("do_thing", '"hello"')]),  # [v] bare_string_arguments
    Sample("hermes", '<tool_call>\n{"name": "get_current_temperature", "arguments": {"location": "San Francisco, CA, USA"}}\n'
           '</tool_call>\n<tool_call>\n{"name": "get_temperature_date", "arguments": {"location": "San Francisco, CA, USA", '
           '"date": "2024-10-01"}}\n</tool_call>', "",
           [("get_current_temperature", '{"location": "San Francisco, CA, USA"}'),
            ("get_temperature_date", '{"location": "San Francisco, CA, USA", "date": "2024-10-01"}')]),  # [q] Qwen2.5
    Sample("hermes", 'a <tool_call> is markup, <tool_call>[1] and </tool_call> too',
           "a <tool_call> is markup, <tool_call>[1] and </tool_call> too", []),
    Sample("hermes", '<tool_call>{"name": "f", "arguments": {"t": "</tool_call> \\" } \\u007d <tool_call>", "d": [[{}]]}}</tool_call>',
           "", [("f", '{"t": "</tool_call> \\" } \\u007d <tool_call>", "d": [[{}]]}')]),
    Sample("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>!', "!", [("f", '{"a": 1')]),
    Sample("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x', "", [("f", '{"a": "x')]),
    Sample("hermes", '<tool_call>{"name": "f", "argu', '<tool_call>{"name": "f", "argu', []),
    Sample("hermes", '<tool_call>{"id": [1, "}"], "name": "f", "arguments": null, "x": {}}</tool_call>', "", [("f", "{}")]),
    Sample("hermes", '<tool_call>{"name": "f"}</tool_call>\n\nDone.\n', "\n\nDone.\n", [("f", "{}")]),
    Sample("hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>',
           '<tool_call>{"name": "", "arguments": {}}</tool_call>', []),
    Sample("hermes", '<tool_call>{"name": "\\ud83d\\ude00\\ud83d", "arguments": {"\\ud83d": 1}}</tool_call>', "",
           [("😀\ufffd", '{"\\ud83d": 1}')]),
]  # fmt: skip
LLAMA = [
    Sample("llama3_json", "This is just some text without any tool calls",
           "This is just some text without any tool calls", []),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "parameters": {"query": "test query", "limit": 10}}', "",
           [("searchTool", '{"query": "test query", "limit": 10}')]),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "arguments": {"query": "test"}}', "", [("searchTool", '{"query": "test"}')]),  # [v]
    Sample("llama3_json", 'Here are the results: {"name": "searchTool", "parameters": {"query": "test1"}}; {"name": '
           '"getOpenIncidentsTool", "parameters": {}} ; {"name": "searchTool", "parameters": {"query": "test2"}} Would you like to '
           "know more?", "Here are the results:  Would you like to know more?",
           [("searchTool", '{"query": "test1"}'), ("getOpenIncidentsTool", "{}"), ("searchTool", '{"query": "test2"}')]),  # [v]
    Sample("llama3_json", '{"name": "complexTool", "parameters": {"level1": {"level2": {"level3": {"level4": {"value": "deep"}}}}}}',
           "", [("complexTool", '{"level1": {"level2": {"level3": {"level4": {"value": "deep"}}}}}')]),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "parameters": {"query": "test {value} [complex]","nested": {"inner": "more '
           '{brackets}"}}}', "",
           [("searchTool", '{"query": "test {value} [complex]","nested": {"inner": "more {brackets}"}}')]),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "parameters": {"text": "He said \\"Hello {world}\\""}}', "",
           [("searchTool", '{"text": "He said \\"Hello {world}\\""}')]),  # [v]
    Sample("llama3_json", '{"parameters": {}}', '{"parameters": {}}', []),  # [v] missing name
    Sample("llama3_json", '{"name": "toolWithoutParams"}', '{"name": "toolWithoutParams"}', []),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "parameters": {"query": "test"}} I used {searchTool} for this.',
           " I used {searchTool} for this.", [("searchTool", '{"query": "test"}')]),  # [v]
    Sample("llama3_json", '{"name": "searchTool", "parameters": {"query": "test1"}}\n{"name": "getOpenIncidentsTool", '
           '"parameters": {}}', "", [("searchTool", '{"query": "test1"}'), ("getOpenIncidentsTool", "{}")]),  # [v] "\n"
    Sample("llama3_json", '{"type": "function", "name": "searchTool", "parameters": {"query": "x"}}', "",
           [("searchTool", '{"query": "x"}')]),  # [l]
    Sample("llama3_json", '<|python_tag|>{"name": "trending_songs", "parameters": {"n": "10", "genre": "all"}}', "",
           [("trending_songs", '{"n": "10", "genre": "all"}')]),  # [l]
    Sample("llama3_json", '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 36}', []),
    Sample("llama3_json", '{"name": "Ada", "parameters": {}}', '{"name": "Ada", "parameters": {}}', []),
]  # fmt: skip
WEATHER = "get_weather(city='San Francisco', metric='celsius')"
WEATHER_CALL = ("get_weather", '{"city": "San Francisco", "metric": "celsius"}')
MORE = (
    "register_user(name='John Doe', age=37, address={'city': 'San Francisco', 'state': 'CA'}, role=None, "
    "passed_test=True, aliases=['John', 'Johnny'])"
)
MORE_CALL = (
    "register_user",
    '{"name": "John Doe", "age": 37, "address": {"city": "San Francisco", "state": "CA"}, "role": null, '
    '"passed_test": true, "aliases": ["John", "Johnny"]}',
)
PYTHONIC = [
    Sample("pythonic", "How can I help you today?", "How can I help you today?", []),  # [v]
    Sample("pythonic", f"[{WEATHER}]", "", [WEATHER_CALL]),  # [v]
    Sample("pythonic", f"[{MORE}]", "", [MORE_CALL]),  # [v]
    Sample("pythonic", "[get_weather()]", "", [("get_weather", "{}")]),  # [v]
    Sample("pythonic", "[do_something_cool(additional_data={})]", "", [("do_something_cool", '{"additional_data": {}}')]),  # [v]
    Sample("pythonic", "[do_something_cool(steps=[])]", "", [("do_something_cool", '{"steps": []}')]),  # [v]
    Sample("pythonic", r"[get_weather(city='Martha\'s Vineyard', metric='\"cool units\"')]", "",
           [("get_weather", '{"city": "Martha\'s Vineyard", "metric": "\\"cool units\\""}')]),  # [v]
    Sample("pythonic", f"[{WEATHER}, {MORE}]", "", [WEATHER_CALL, MORE_CALL]),  # [v]
    Sample("pythonic", f"[get_weather(x=b'z'), {WEATHER}]", "[get_weather(x=b'z')", [WEATHER_CALL]),  # [v] bad sibling
    Sample("pythonic", f"[do_something_cool(x=1e999), {WEATHER}]", "[do_something_cool(x=1e999)", [WEATHER_CALL]),  # [v]
    Sample("pythonic", "[f(a='x 'y' 'z), g(b='p 'q' 'r)]", "[f(a='x 'y' 'z), g(b='p 'q' 'r)]", []),  # [v]
    Sample("pythonic", "[1, 2] [get_weather] [x](y)", "[1, 2] [get_weather] [x](y)", []),
    Sample("pythonic", "[get_weather('Rome', \"K\")] ok", " ok", [("get_weather", '{"city": "Rome", "metric": "K"}')]),
    Sample("pythonic", "[get_weather(city='''a 'quoted' \"one\"''', metric=\"\"), get_weather(city='\\u00e9\\x41\\101\\n\\\n')]", "",
           [("get_weather", '{"city": "a \'quoted\' \\"one\\"", "metric": ""}'), ("get_weather", '{"city": "éAA\\n"}')]),
    Sample("pythonic", "[get_weather(city=')', metric=(1, -2.50, +3, 1_000, .5)), ]", "",
           [("get_weather", '{"city": ")", "metric": [1, -2.50, 3, 1000, 0.5]}')]),
    Sample("pythonic", "[get_weather(city=__import__('os'))]", "[get_weather(city=__import__('os'))]", []),
    Sample("pythonic", "[get_weather(city=]", "[get_weather(city=]", []),
    Sample("pythonic", "[get_weather(city='x", "[get_weather(city='x", []),
]  # fmt: skip
MISTRAL = [
    Sample("mistral", "This is a test", "This is a test", []),  # [v]
    Sample("mistral", '[TOOL_CALLS][{"name": "add", "arguments":{"a": 3.5, "b": 4}}]', "", [("add", '{"a": 3.5, "b": 4}')]),  # [v]
    Sample("mistral", '[TOOL_CALLS]  [ {"name":"add" , "arguments" : {"a": 3, "b": 4} } ]', "", [("add", '{"a": 3, "b": 4}')]),  # [v]
    Sample("mistral", f'[TOOL_CALLS] [{{"arguments":{SF}, "name": "get_current_weather"}}]', "",
           [("get_current_weather", SF)]),  # [v] argument_before_name
    Sample("mistral", '[TOOL_CALLS] [{"arguments":{"name": "John Doe"}, "name": "get_age"}]', "",
           [("get_age", '{"name": "John Doe"}')]),  # [v]
    Sample("mistral", f'[TOOL_CALLS] [{{"name": "add", "arguments": {{"a": 3.5, "b": 4}}}}, {{"name": "get_current_weather", '
           f'"arguments":{SF}}}]', "", [("add", '{"a": 3.5, "b": 4}'), ("get_current_weather", SF)]),  # [v]
    Sample("mistral", 'Hello[TOOL_CALLS] [{"name": "add", "arguments":{"a": 1, "b": 2}}]', "Hello",
           [("add", '{"a": 1, "b": 2}')]),  # [v]
    Sample("mistral", f'[TOOL_CALLS] [{{"name": "get_current_weather", "arguments":{SF}}}]\nextra trailing data',
           "\nextra trailing data", [("get_current_weather", SF)]),  # [v] as streamed
    Sample("mistral", '[TOOL_CALLS]add_this_and_that{"a": 3.5, "b": 4}', "", [("add_this_and_that", '{"a": 3.5, "b": 4}')]),  # [v]
    Sample("mistral", '[TOOL_CALLS]add{"a": 3.5, "b": 4}[TOOL_CALLS]multiply{"a": 3, "b": 6}', "",
           [("add", '{"a": 3.5, "b": 4}'), ("multiply", '{"a": 3, "b": 6}')]),  # [v]
    Sample("mistral", 'hi{hi[TOOL_CALLS]bash{"command": "print(\\"hello world!\\")\\nre.compile(r\'{}\')', "hi{hi",
           [("bash", '{"command": "print(\\"hello world!\\")\\nre.compile(r\'{}\')')]),  # [v] complex, cut
    Sample("mistral", 'hi{hi[TOOL_CALLS]bash{"command": "print(\\"hello world!\\")\\nre.compile(r\'{}\')"}', "hi{hi",
           [("bash", '{"command": "print(\\"hello world!\\")\\nre.compile(r\'{}\')"}')]),  # [v]
    Sample("mistral", '[TOOL_CALLS]add[ARGS]{"a": 3}', "", [("add", '{"a": 3}')]),  # [m] v13
    Sample("mistral", '[TOOL_CALLS]add[CALL_ID]VvvODy9mT[ARGS]{"a": 3}', "", [("add", '{"a": 3}')]),  # [m] v11
    Sample("mistral", "[TOOL_CALLS] not json at all", "[TOOL_CALLS] not json at all", []),
    Sample("mistral", "[TOOL_CALLS]toolname_no_args", "[TOOL_CALLS]toolname_no_args", []),
]  # fmt: skip
DALLAS = """<tool_call>
<function=get_current_weather>
<parameter=city>
Dallas
</parameter>
<parameter=state>
TX
</parameter>
<parameter=unit>
fahrenheit
</parameter>
</function>
</tool_call>"""
DALLAS_CALL = ("get_current_weather", '{"city": "Dallas", "state": "TX", "unit": "fahrenheit"}')


def _xml(name: str, **values: str) -> str:
    written = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{written}</function>\n</tool_call>"


AREA = _xml("calculate_area", shape="rectangle", dimensions='{"width": 10, \n "height": 20}', precision="2")
QWEN_CODER = [
    Sample("qwen3_coder", "This is a test response without any tool calls",
           "This is a test response without any tool calls", []),  # [v]
    Sample("qwen3_coder", DALLAS, "", [DALLAS_CALL]),  # [v]
    Sample("qwen3_coder", f"Sure! Let me check the weather for you.{DALLAS}", "Sure! Let me check the weather for you.",
           [DALLAS_CALL]),  # [v]
    Sample("qwen3_coder", AREA, "",
           [("calculate_area", '{"shape": "rectangle", "dimensions": {"width": 10, \n "height": 20}, "precision": 2}')]),  # [v]
    Sample("qwen3_coder", f"{DALLAS}\n{DALLAS}", "", [DALLAS_CALL, DALLAS_CALL]),  # [v]
    Sample("qwen3_coder", DALLAS.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"), "", [DALLAS_CALL]),  # [v] no tags
    Sample("qwen3_coder", DALLAS.replace("Dallas\n</parameter>", "Dallas"), "", [DALLAS_CALL]),  # [v] missing closing tag
    Sample("qwen3_coder", _xml("test_types", int_param="42", float_param="3.14", bool_param="true", str_param="hello world",
           obj_param='{"key": "value"}'), "",
           [("test_types", '{"int_param": 42, "float_param": 3.14, "bool_param": true, "str_param": "hello world", '
             '"obj_param": {"key": "value"}}')]),  # [v]
    Sample("qwen3_coder", _xml("test_anyof", anyof_int="5", anyof_str="hello", anyof_array='["a", "b", "c"]',
           anyof_obj='{"key": "value"}', type_as_array="42", multi_non_null="some text"), "",
           [("test_anyof", '{"anyof_int": 5, "anyof_str": "hello", "anyof_array": ["a", "b", "c"], "anyof_obj": '
             '{"key": "value"}, "type_as_array": 42, "multi_non_null": "some text"}')]),  # [v]
    Sample("qwen3_coder", _xml("test_anyof", anyof_str="null", anyof_int="none", referred="7"), "",
           [("test_anyof", '{"anyof_str": null, "anyof_int": "none", "referred": 7}')]),
    Sample("qwen3_coder", _xml("test_types", int_param="seven", bool_param="TRUE", obj_param="{'a': True}",
           str_param='<b>"x"</b>\n\n  </function>\n\\n\té'), "",
           [("test_types", '{"int_param": "seven", "bool_param": true, "obj_param": {"a": true}, '
             '"str_param": "<b>\\"x\\"</b>\\n\\n  </function>\\n\\\\n\\té"}')]),
    Sample("qwen3_coder", _xml("unknown", n="1"), "", [("unknown", '{"n": "1"}')]),
    Sample("qwen3_coder", _xml("unknown"), "", [("unknown", "{}")]),
    Sample("qwen3_coder", DALLAS.partition("las")[0], "", [("get_current_weather", '{"city": "Dal')]),
    Sample("qwen3_coder", "<tool_call> <function <tool_call>", "<tool_call> <function <tool_call>", []),
]  # fmt: skip
SAMPLES = [*HERMES, *LLAMA, *PYTHONIC, *MISTRAL, *QWEN_CODER]
