#pragma once

#include <nlohmann/json.hpp>

namespace quern::server {

// A conversation with tools for a chat template that knows none: the functions are described in the
// system message, calls are written into the assistant's text between the marks of ToolCallStream,
// and what functions returned comes as the user's, several together in one message. The other
// messages stay as they are. Pure.
// `messages`: as in ChatRequest. `tools`: OpenAI's; null: none may be called now, but earlier
// messages may still have calls.
nlohmann::ordered_json WriteToolsAsText(const nlohmann::ordered_json& messages,
                                        const nlohmann::ordered_json& tools);

}  // namespace quern::server
