"""What the real chat templates are rendered with: conversations of every shape that a client can send, and more."""

_WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a “city” <now & later>", "parameters": {
        "type": "object", "required": ["city"], "additionalProperties": False, "properties": {
            "days": {"type": "integer", "minimum": 1, "default": 3, "description": "how many"},
            "city": {"type": "string", "description": "its name"},
            "units": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "places": {"type": "array", "items": {"type": "object", "properties": {
                "lat": {"type": "number"}, "lon": {"type": ["number", "null"]}}, "required": ["lat"]}},
            "extra": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]}}},
    "return": {"type": "string", "description": "in words"}}}
_NOW = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
_BARE = {"type": "function", "function": {"name": "bare"}}
TOOLS = [_WEATHER, _NOW]

_SYSTEM = {"role": "system", "content": "  Be brief & “kind”.\n"}
_USER = {"role": "user", "content": " What is 1+1? 你好 😀 'q' \"d\" <b>\u00a0\\n\n"}
_ANSWER = {"role": "assistant", "content": "2 "}
_MORE = {"role": "user", "content": "Thanks.\r\nNext?"}
_THOUGHT = {"role": "assistant", "content": "<think>\nhm, \n</think>\n\nB "}
_REASONED = {"role": "assistant", "content": "B", "reasoning_content": " I think.\n", "reasoning": "so", "thinking": "so"}
_ARGUMENTS = {"city": "Zürich \"x\" <'y'>", "days": 2, "deep": {"a": [1, 2.5, None, True], "b": {}}, "none": None, "no": False,
              "blank": "\u3000\u200b"}


def _call(arguments, name="get_weather", number="abcdefgh1"):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def _calls(*calls, content=""):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def _result(content, number="abcdefgh1", name="get_weather"):
    return {"role": "tool", "content": content, "tool_call_id": number, "name": name}


_USING = [_USER, _calls(_call(_ARGUMENTS)), _result("sunny\n"), {"role": "assistant", "content": "It is sunny."}, _MORE]
_PARTS = [{"role": "system", "content": [{"type": "text", "text": " S "}]},
          {"role": "user", "content": [{"type": "text", "text": "look "}, {"type": "text", "text": "here"}]},
          {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}, _MORE]

# name -> messages, tools, further names that the template sees
CASES = {
    "user": ([_USER], None, {}),
    "system": ([_SYSTEM, _USER], None, {}),
    "turns": ([_SYSTEM, _USER, _ANSWER, _MORE], None, {}),
    "turns without system": ([_USER, _ANSWER, _MORE, _ANSWER], None, {}),
    "thought": ([_SYSTEM, _USER, _THOUGHT, _MORE], None, {}),
    "thought last": ([_USER, _ANSWER, _MORE, _THOUGHT], None, {}),
    "reasoning": ([_USER, _REASONED, _MORE, _REASONED], None, {}),
    "tools": ([_SYSTEM, _USER], TOOLS, {}),
    "tools without system": ([_USER], [_BARE, _WEATHER], {}),
    "no tools": ([_USER], [], {}),
    "call": (_USING[:2], TOOLS, {}),
    "result": ([_SYSTEM, *_USING[:3]], TOOLS, {}),
    "answer": (_USING, TOOLS, {}),
    "calls but no tools": (_USING, None, {}),
    "arguments as text": ([_USER, _calls(_call('{"city": "Zürich"}')), _result("sunny")], TOOLS, {}),
    "several calls": ([_USER, _calls(_call({"city": "A"}), _call({}, "now", "abcdefgh2"), content="Let me see."),
                       _result("sunny"), _result("12:00", "abcdefgh2", "now")], TOOLS, {}),
    "content none": ([_USER, _calls(_call({"city": "A"}), content=None), _result("sunny")], TOOLS, {}),
    "content left out": ([_USER, {"role": "assistant", "tool_calls": [_call({"city": "A"})]}, _result("{\"a\": 1}")], TOOLS, {}),
    "call after thought": ([_USER, {**_calls(_call({"city": "A"})), "content": "<think>x</think>", "reasoning_content": "y"},
                            _result("s")], TOOLS, {}),
    "parts": (_PARTS, None, {}),
    "image": ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}], None, {}),
    "image by address": ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "?"}]}],
                         None, {}),
    "result in parts": ([_USER, _calls(_call({"city": "A"})), _result([{"type": "text", "text": "sunny"}])], TOOLS, {}),
    "assistant first": ([_ANSWER, _USER], None, {}),
    "two users": ([_USER, _MORE], None, {}),
    "system late": ([_USER, _ANSWER, _SYSTEM, _MORE], None, {}),
    "system alone": ([_SYSTEM], None, {}),
    "developer": ([{"role": "developer", "content": "D"}, _USER], TOOLS, {}),
    "unknown role": ([{"role": "wizard", "content": "W"}, _USER], None, {}),
    "nothing": ([], None, {}),
    "empty texts": ([{"role": "system", "content": ""}, {"role": "user", "content": ""}], None, {}),
    "thinking": ([_SYSTEM, _USER, _THOUGHT, _MORE], None, {"enable_thinking": True, "thinking": True}),
    "no thinking": ([_USER, _THOUGHT, _MORE], None, {"enable_thinking": False, "thinking": False}),
    "effort": ([_SYSTEM, _USER], TOOLS, {"reasoning_effort": "high", "model_identity": "You are Q.", "builtin_tools": ["browser"]}),
    "options": (_USING, TOOLS, {"preserve_thinking": True, "clear_thinking": False, "add_vision_id": True, "tools_in_user_message": False,
                                "date_string": "1 May 2025", "custom_tools": [_NOW], "keep_past_thinking": True}),
    "documents": ([_USER], None, {"documents": [{"title": "T", "text": "x", "doc_id": 1}, {"title": "U", "text": "y"}]}),
}
