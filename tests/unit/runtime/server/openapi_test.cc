// The document says of the requests' parameters what their parsers do.

#include "runtime/server/openapi.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "runtime/server/request.h"
#include "runtime/server/responses/response_request.h"

namespace quern::server {
namespace {
using nlohmann::json;

// How a parser took a body: "" or the error's parameter.
struct Outcome {
  bool taken = false;
  ApiError error;
  std::set<std::string> known;
};

template <typename T>
std::function<Outcome(const json&)> Parser(ApiResult<T> (*parse)(std::string_view,
                                                                 std::set<std::string>*)) {
  return [parse](const json& body) {
    Outcome outcome;
    const auto parsed = parse(body.dump(), &outcome.known);
    outcome.taken = std::holds_alternative<T>(parsed);
    if (!outcome.taken) outcome.error = std::get<ApiError>(parsed);
    return outcome;
  };
}

class OpenApi : public testing::Test {
 protected:
  struct Request {
    std::string schema;
    std::function<Outcome(const json&)> parse;
    std::vector<json> least;  // bodies with what must be there, one for each of the schema's forms
  };
  const std::vector<Request> requests = {
      {"CompletionRequest", Parser(ParseCompletionRequest), {{{"model", "m"}, {"prompt", "a"}}}},
      {"ChatRequest",
       Parser(ParseChatRequest),
       {{{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "a"}}}}}}},
      {"ResponseRequest", Parser(ParseResponseRequest), {{{"model", "m"}, {"input", "a"}}}},
      {"EmbeddingRequest", Parser(ParseEmbeddingRequest), {{{"model", "m"}, {"input", "a"}}}},
      {"TokenizeRequest",
       Parser(ParseTokenizeRequest),
       {{{"prompt", "a"}}, {{"messages", {{{"role", "user"}, {"content", "a"}}}}}}},
      {"DetokenizeRequest", Parser(ParseDetokenizeRequest), {{{"tokens", json::array()}}}},
  };
  const json document = json::parse(OpenApiDocument(true));

  json Resolve(const json& schema) const {
    if (!schema.contains("$ref")) return schema;
    const auto& path = schema["$ref"].get_ref<const std::string&>();
    return document.at(json::json_pointer(path.substr(1)));
  }
  // Each form of a request: its properties, and a body that is right for it.
  void ForEachForm(const std::function<void(const Request&, const json& schema, const json& least)>&
                       look) const {
    for (const Request& request : requests) {
      const json& schema = document["components"]["schemas"][request.schema];
      if (!schema.contains("anyOf")) {
        look(request, schema, request.least[0]);
        continue;
      }
      ASSERT_EQ(schema["anyOf"].size(), request.least.size());
      for (size_t i = 0; i < request.least.size(); ++i) {
        look(request, schema["anyOf"][i], request.least[i]);
      }
    }
  }
};

TEST_F(OpenApi, NamesTheParametersThatTheParsersKnow) {
  ForEachForm([](const Request& request, const json& schema, const json& least) {
    const Outcome outcome = request.parse(least);
    ASSERT_TRUE(outcome.taken) << request.schema << ": " << outcome.error.message;
    std::set<std::string> named;
    for (const auto& [name, property] : schema["properties"].items()) named.insert(name);
    EXPECT_EQ(named, outcome.known) << request.schema;
    EXPECT_EQ(schema["additionalProperties"], false) << request.schema;
    for (const json& name : schema["required"]) {
      json without = least;
      without.erase(name.get<std::string>());
      EXPECT_FALSE(request.parse(without).taken) << request.schema << " without " << name;
    }
  });
}

TEST_F(OpenApi, DefaultsAndNullAreTaken) {
  ForEachForm([this](const Request& request, const json& schema, const json& least) {
    for (const auto& [name, property] : schema["properties"].items()) {
      if (least.contains(name)) continue;
      std::vector<json> values = {nullptr};
      const json resolved = Resolve(property);
      if (resolved.contains("default")) values.push_back(resolved["default"]);
      if (resolved.contains("enum")) values = resolved["enum"].get<std::vector<json>>();
      for (const json& value : values) {
        json body = least;
        body[name] = value;
        const Outcome outcome = request.parse(body);
        EXPECT_TRUE(outcome.taken)
            << request.schema << ": " << name << " " << value << ": " << outcome.error.message;
      }
    }
  });
}

TEST_F(OpenApi, WhatIsBeyondABoundIsRefused) {
  int checked = 0;
  ForEachForm([&](const Request& request, const json& schema, const json& least) {
    const auto expect_refused = [&](const std::string& name, const json& value) {
      if (value.is_number() && std::abs(value.get<double>()) > 1e15) return;
      json body = least;
      body[name] = value;
      const Outcome outcome = request.parse(body);
      EXPECT_FALSE(outcome.taken) << request.schema << ": " << name << " " << value;
      EXPECT_EQ(outcome.error.param.find(name), 0u) << name << " " << value;
      ++checked;
    };
    for (const auto& [name, property] : schema["properties"].items()) {
      if (name == "messages" && least.contains("prompt")) continue;  // they exclude each other
      const json resolved = Resolve(property);
      const json bound = [&] {  // also of one of several forms
        for (const json& form : resolved.value("anyOf", json::array())) {
          if (form.contains("maximum")) return form;
        }
        return resolved;
      }();
      if (bound.contains("minimum")) expect_refused(name, bound["minimum"].get<double>() - 1);
      if (bound.contains("maximum")) expect_refused(name, bound["maximum"].get<double>() + 1);
      if (bound.contains("exclusiveMinimum")) expect_refused(name, bound["exclusiveMinimum"]);
      if (bound.contains("exclusiveMaximum")) expect_refused(name, bound["exclusiveMaximum"]);
      if (bound.contains("maxItems")) {
        const json item = name == "messages" ? least["messages"][0] : json("a");
        expect_refused(name, json(bound["maxItems"].get<size_t>() + 1, item));
      }
      if (resolved.empty() || !resolved.contains("type")) continue;
      // None takes both.
      const bool is_array = resolved["type"].dump().find("array") != std::string::npos;
      expect_refused(name, is_array ? json(7) : json::array({7}));
    }
  });
  EXPECT_GT(checked, 200);
}

TEST_F(OpenApi, ExamplesAreTaken) {
  std::set<std::string> seen;
  for (const auto& [path, operations] : document["paths"].items()) {
    if (!operations.contains("post")) continue;
    const json& content = operations["post"]["requestBody"]["content"]["application/json"];
    for (const Request& request : requests) {
      if (content["schema"]["$ref"] != "#/components/schemas/" + request.schema) continue;
      seen.insert(request.schema);
      for (const auto& [name, example] : content.at("examples").items()) {
        const Outcome outcome = request.parse(example["value"]);
        EXPECT_TRUE(outcome.taken) << path << ": " << name << ": " << outcome.error.message;
      }
    }
  }
  EXPECT_EQ(seen.size(), requests.size());
}

TEST_F(OpenApi, AsksForKeysOnlyWhereTheServerDoes) {
  EXPECT_EQ(document["security"].dump(), R"([{"key":[]}])");
  EXPECT_FALSE(json::parse(OpenApiDocument(false)).contains("security"));
  EXPECT_EQ(document["info"]["version"], QUERN_VERSION);
}

}  // namespace
}  // namespace quern::server
