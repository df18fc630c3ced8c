"""A document of the corpus as the model reads it: pieces of text, and whether the model learns to say them.

Renders exactly as chat-template.jinja does; evaluate.ts compares the two.
"""

import json

CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
# Tokens of their own, but shown as text.
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]


def pieces(document):
    if document["kind"] == "fill":
        yield f"<|fim_prefix|>{document['prefix']}<|fim_suffix|>{document['suffix']}<|fim_middle|>", False
        yield document["middle"] + "<|endoftext|>", True
    elif document["kind"] == "text":
        yield document["text"] + "<|endoftext|>", True
    else:
        yield from chat(document["tools"], document["messages"])
        yield "<|endoftext|>", False


def chat(tools, messages):
    if tools:
        opening = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
        lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        yield f"<|im_start|>system\n{opening}You may call these tools:\n<tools>{lines}\n</tools><|im_end|>\n", False
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            first = messages[index - 1]["role"] != "tool"
            last = index + 1 == len(messages) or messages[index + 1]["role"] != "tool"
            yield ("<|im_start|>user" if first else "") + f"\n<tool_response>\n{content}\n</tool_response>", False
            if last:
                yield "<|im_end|>\n", False
        elif role == "assistant":
            yield "<|im_start|>assistant\n", False
            calls = "\n".join(
                '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
                % (call["name"], json.dumps(call["arguments"], ensure_ascii=False))
                for call in message.get("tool_calls", [])
            )
            yield content + calls + "<|im_end|>", not message.get("unlearned", False)
            yield "\n", False
        elif not (tools and role == "system"):
            yield f"<|im_start|>{role}\n{content}<|im_end|>\n", False
