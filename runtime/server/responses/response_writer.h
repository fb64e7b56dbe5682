#pragma once

#include <memory>
#include <string>

#include "runtime/server/reply.h"

namespace quern::server {

// OpenAI's response object and the events of its stream, each with a number and a line `event:`,
// without [DONE]. An answer is a list of output items: messages, and calls of functions in the
// order in which they stand in the text; it has one choice. The end of an item and of a stream
// repeats its text, which is held for that. `repeated`: see ResponseRequest.
// https://platform.openai.com/docs/api-reference/responses-streaming
std::unique_ptr<ReplyWriter> MakeResponseWriter(ReplyOptions options, std::string repeated);

}  // namespace quern::server
