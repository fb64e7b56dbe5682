#pragma once

#include <nlohmann/json.hpp>

#include "runtime/server/request.h"

namespace quern::server {

// Reads the member `input` of a response's request: a string, which is the user's, or items
// ("message", "function_call", "function_call_output"), into the messages of a chat. Calls that
// follow each other or the assistant's message are one message's. Items of "reasoning" are left
// out: no chat template here knows them. Throws ApiException.
Conversation ParseInput(const nlohmann::json& input);

}  // namespace quern::server
