#pragma once

#include <set>
#include <string>
#include <string_view>

#include "runtime/server/request.h"

namespace quern::server {

// A request of OpenAI's Responses API: its input as a conversation that a chat could have, and what
// its answer says of it.
struct ResponseRequest : ChatRequest {
  // Members of the response's JSON that repeat the request ("instructions":null,"metadata":{},...),
  // no larger than its body but for some hundred bytes.
  std::string repeated;
};

// Pure: the bytes of a body -> checked request, or the error to answer with; bounded as in
// request.h, where `known` is described. Nothing is kept between requests: what would need that is
// refused. https://platform.openai.com/docs/api-reference/responses/create
ApiResult<ResponseRequest> ParseResponseRequest(std::string_view body,
                                                std::set<std::string>* known = nullptr);

}  // namespace quern::server
