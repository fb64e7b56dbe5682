#include "runtime/server/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/server/admission_gate.h"

namespace quern::server {
namespace {

using testing::HasSubstr;
using testing::Not;

const char kKeyA[] = "sk-aaaaaaaaaaaaaaaa";
const char kKeyB[] = "sk-bbbbbbbbbbbbbbbb";

std::string OneTenant(const std::string& members) {
  return R"({"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"])" + members + "}]}";
}
std::string ErrorOf(const std::string& text) {
  const auto table = TenantTable::Parse(text);
  if (table) return "none";
  EXPECT_EQ(table.error().message.find('\n'), std::string::npos);
  EXPECT_EQ(table.error().code, ErrorCode::kInvalidArgument);
  return table.error().message;
}

TEST(TenantTable, FindsTheTenantOfAKeyAndOfAHashOfOne) {
  // The hash is `printf 'sk-bbbbbbbbbbbbbbbb' | sha256sum`.
  const auto table = TenantTable::Parse(R"({"tenants": [
    {"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa", "sk-cccccccccccccccc"], "weight": 2.5,
     "priority": 3, "max_requests": 64},
    {"name": "b", "key_sha256":
     ["F225F5504BAFFF22F271308749752C4B38477f10fc8f033540f948274348b244"]}]})");
  ASSERT_TRUE(table) << table.error().message;
  const auto a = (*table)->Find(kKeyA);
  ASSERT_TRUE(a);
  EXPECT_EQ(a->name, "a");
  EXPECT_EQ(a->weight, 2.5);
  EXPECT_EQ(a->priority, 3);
  EXPECT_EQ(a->max_requests, 64);
  EXPECT_EQ((*table)->Find("sk-cccccccccccccccc"), a);
  const auto b = (*table)->Find(kKeyB);
  ASSERT_TRUE(b);
  EXPECT_EQ(b->name, "b");
  EXPECT_EQ(b->weight, 1);
  EXPECT_EQ(b->max_requests, 0);
  EXPECT_EQ((*table)->keys(), 3u);
  for (const char* key : {"", "sk-aaaaaaaaaaaaaaa", "sk-aaaaaaaaaaaaaaaab", "a"}) {
    EXPECT_FALSE((*table)->Find(key)) << key;
  }
}

TEST(TenantTable, ErrorsNameThePlaceAndWhatWouldBeRight) {
  const struct {
    std::string text;
    const char* says;
  } kWrong[] = {
      {"", "line 1, column 1 "},
      {"{\"tenants\": [\n  {\"name\": }", "line 2, column 12 "},
      {"[]", "must be a JSON object"},
      {"{}", "tenants must be an array of 1 to 1024"},
      {R"({"tenants": []})", "tenants must be an array of 1 to 1024"},
      {R"({"tenant": []})", "did you mean 'tenants'?"},
      {R"({"tenants": [], "tenants": []})", "the same member twice"},
      {R"({"tenants": [7]})", "tenants[0] must be an object"},
      {R"({"tenants": [{"keys": ["sk-aaaaaaaaaaaaaaaa"]}]})", "tenants[0].name must be"},
      {R"({"tenants": [{"name": "A_b", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]})", "tenants[0].name"},
      {R"({"tenants": [{"name": "-a", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]})", "tenants[0].name"},
      {R"({"tenants": [{"name": "a"}]})", "tenants[0] has no key"},
      {R"({"tenants": [{"name": "a", "keys": []}]})", "tenants[0] has no key"},
      {R"({"tenants": [{"name": "a", "keys": "x"}]})", "tenants[0].keys must be an array"},
      {R"({"tenants": [{"name": "a", "keys": ["short"]}]})", "tenants[0].keys[0] must be a string"},
      {R"({"tenants": [{"name": "a", "key_sha256": ["zz"]}]})", "tenants[0].key_sha256[0] must"},
      {OneTenant(R"(, "weigth": 2)"), "tenants[0] has an unknown member; did you mean 'weight'?"},
      {OneTenant(R"(, "weight": 0)"), "tenants[0].weight must be a number from 0.001 to 1000"},
      {OneTenant(R"(, "weight": "2")"), "tenants[0].weight must be a number"},
      {OneTenant(R"(, "weight": null)"), "tenants[0].weight must be a number"},
      {OneTenant(R"(, "priority": -1)"), "tenants[0].priority must be a whole number from 0"},
      {OneTenant(R"(, "max_requests": 1.5)"), "tenants[0].max_requests must be a whole number"},
      {R"({"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"]},
                       {"name": "a", "keys": ["sk-bbbbbbbbbbbbbbbb"]}]})",
       "tenants[1].name is 'a', as that of a tenant before"},
      {R"({"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaa"]},
                       {"name": "b", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]})",
       "tenants[1].keys[0] is a key that stands in the file before"},
      {std::string(20, '[') + std::string(20, ']'), "nested too deeply"},
      {std::string(kMaxTenantsFileBytes + 1, ' '), "more than 1048576 bytes"},
  };
  for (const auto& wrong : kWrong) EXPECT_THAT(ErrorOf(wrong.text), HasSubstr(wrong.says));
  std::string keys;
  for (int i = 10; i < 27; ++i) {
    keys += (keys.empty() ? "\"" : ",\"") + std::string("sk-aaaaaaaaaaaaaaa") + std::to_string(i) +
            "\"";
  }
  EXPECT_THAT(ErrorOf(R"({"tenants": [{"name": "a", "keys": [)" + keys + "]}]}"),
              HasSubstr("tenants[0] has more than 16 keys"));
}

TEST(TenantTable, ErrorsNeverQuoteWhatMayBeAKey) {
  for (const char* text : {
           R"({"tenants": [{"name": "a", "keys": ["sk-secret secret secret"]}]})",
           R"({"tenants": [{"name": "SECRET-secret-1", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]})",
           R"({"tenants": [{"secret-secret-secret-": "a"}]})",
           R"({"secret-secret-secret": "a"})",
           R"({"tenants": [{"name": "a", "keys": ["secret-secret-secret" "b"]}]})",
           R"({"tenants": [{"name": "a", "keys": [secret]}]})",
       }) {
    EXPECT_THAT(ErrorOf(text), Not(testing::ContainsRegex("[sS][eE][cC][rR][eE][tT]"))) << text;
  }
}

// A file of tenants that the test changes, and Access to it without its thread.
class AccessTest : public testing::Test {
 protected:
  AccessTest() {
    char pattern[] = "/tmp/quern-access-XXXXXX";
    directory = mkdtemp(pattern);
    path = directory / "tenants.json";
  }
  ~AccessTest() override { std::filesystem::remove_all(directory); }

  static void Write(const std::filesystem::path& to, const std::string& text) {
    std::ofstream(to, std::ios::binary | std::ios::trunc) << text;
  }
  void OpenAccess() {
    auto opened = Access::Open(path, metrics, std::chrono::milliseconds(0));
    ASSERT_TRUE(opened) << opened.error().message;
    access = std::move(opened).value();
  }
  std::string NameFor(const std::string& authorization) const {
    const auto tenant = access->Find({{"authorization", authorization}});
    return tenant ? tenant->name : "nobody";
  }
  bool Shows(const std::string& series) {
    return metrics.Render({}).find("\n" + series + "\n") != std::string::npos;
  }

  std::filesystem::path directory, path;
  RuntimeMetrics metrics{"m"};
  std::unique_ptr<Access> access;
};

TEST_F(AccessTest, OneBearerTokenIsTheKeyAndNothingElse) {
  Write(path, OneTenant(""));
  OpenAccess();
  EXPECT_EQ(NameFor("Bearer sk-aaaaaaaaaaaaaaaa"), "a");
  EXPECT_EQ(NameFor("bearer  sk-aaaaaaaaaaaaaaaa "), "a");
  for (const char* other : {"sk-aaaaaaaaaaaaaaaa", "Basic sk-aaaaaaaaaaaaaaaa", "Bearer", "Bearer ",
                            "", "Bearer sk-aaaaaaaaaaaaaaaa x", "Bearersk-aaaaaaaaaaaaaaaa"}) {
    EXPECT_EQ(NameFor(other), "nobody") << other;
  }
  const http::Headers twice = {{"Authorization", "Bearer sk-aaaaaaaaaaaaaaaa"},
                               {"authorization", "Bearer sk-aaaaaaaaaaaaaaaa"}};
  EXPECT_FALSE(access->Find(twice));
  EXPECT_FALSE(access->Find({}));
}

TEST_F(AccessTest, OnlyHealthAndTheApisDescriptionAreOpen) {
  Write(path, OneTenant(""));
  OpenAccess();
  http::Request head;
  for (const char* open : {"/health/live", "/health/ready", "/openapi.json"}) {
    head.path = open;
    EXPECT_FALSE(access->Refuse(head)) << open;
  }
  for (const char* closed : {"/v1/models", "/v1/chat/completions", "/tokenize", "/", "/health",
                             "/healthy", "/openapi.json/"}) {
    head.path = closed;
    const auto refusal = access->Refuse(head);
    ASSERT_TRUE(refusal) << closed;
    EXPECT_EQ(refusal->status, 401);
    ASSERT_TRUE(http::FindHeader(refusal->headers, "WWW-Authenticate"));
    EXPECT_EQ(*http::FindHeader(refusal->headers, "WWW-Authenticate"), "Bearer");
    EXPECT_THAT(refusal->body, HasSubstr(R"("code":"invalid_api_key")"));
  }
}

TEST_F(AccessTest, FileThatCannotBeUsedIsAnErrorWithItsPath) {
  EXPECT_EQ(Access::Open(path, metrics, std::chrono::milliseconds(0)).error().code,
            ErrorCode::kNotFound);
  Write(path, R"({"tenants": [7]})");
  const auto bad = Access::Open(path, metrics, std::chrono::milliseconds(0));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message,
            path.string() + ": tenants[0] must be an object with a name and keys");
  const auto folder = Access::Open(directory, metrics, std::chrono::milliseconds(0));
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().message, HasSubstr("is not a regular file"));
}

TEST_F(AccessTest, ChangedFileIsReadAgainAndABadOneChangesNothing) {
  Write(path, OneTenant(""));
  OpenAccess();
  EXPECT_TRUE(Shows(R"(quern_tenants_file_valid{model="m"} 1)"));
  EXPECT_TRUE(Shows(R"(quern_tenant_requests_total{model="m",reason="stop",tenant="a"} 0)"));
  Write(path, R"({"tenants": [{"name": "b", "keys": ["sk-bbbbbbbbbbbbbbbb"]}]})");
  access->CheckFile();
  EXPECT_EQ(NameFor("Bearer sk-aaaaaaaaaaaaaaaa"), "nobody");
  EXPECT_EQ(NameFor("Bearer sk-bbbbbbbbbbbbbbbb"), "b");
  EXPECT_TRUE(Shows(R"(quern_tenant_prompt_tokens_total{model="m",tenant="b"} 0)"));
  EXPECT_FALSE(Shows(R"(quern_tenant_prompt_tokens_total{model="m",tenant="a"} 0)"));
  for (const char* bad : {"", "{\"tenants\": 1}", "missing"}) {
    if (std::string(bad) == "missing") {
      std::filesystem::remove(path);
    } else {
      Write(path, bad);
    }
    access->CheckFile();
    EXPECT_EQ(NameFor("Bearer sk-bbbbbbbbbbbbbbbb"), "b") << bad;
    EXPECT_TRUE(Shows(R"(quern_tenants_file_valid{model="m"} 0)")) << bad;
  }
  Write(path, R"({"tenants": [{"name": "b", "keys": ["sk-bbbbbbbbbbbbbbbb"]}]})");
  access->CheckFile();
  EXPECT_TRUE(Shows(R"(quern_tenants_file_valid{model="m"} 1)"));
}

// How the kubelet changes a mounted Secret: the file is a link through ..data, which is renamed
// over.
TEST_F(AccessTest, SwapOfALinkInThePathIsAChange) {
  for (const char* version : {"1", "2"}) std::filesystem::create_directory(directory / version);
  Write(directory / "1" / "tenants.json", OneTenant(""));
  Write(directory / "2" / "tenants.json",
        R"({"tenants": [{"name": "b", "keys": ["sk-aaaaaaaaaaaaaaaa"]}]})");
  std::filesystem::create_symlink("1", directory / "..data");
  std::filesystem::create_symlink("..data/tenants.json", path);
  OpenAccess();
  EXPECT_EQ(NameFor("Bearer sk-aaaaaaaaaaaaaaaa"), "a");
  std::filesystem::create_symlink("2", directory / "..data_tmp");
  std::filesystem::rename(directory / "..data_tmp", directory / "..data");
  access->CheckFile();
  EXPECT_EQ(NameFor("Bearer sk-aaaaaaaaaaaaaaaa"), "b");
}

TEST(AdmissionGate, ATenantGetsNoMoreWhileItHoldsAsMuchAsIsLeft) {
  AdmissionGate gate(4, 100);
  auto first = gate.TryEnter("a", 10);
  auto second = gate.TryEnter("a", 10);
  ASSERT_TRUE(first.ticket && second.ticket);
  EXPECT_FALSE(gate.TryEnter("a", 10).ticket);
  EXPECT_TRUE(gate.TryEnter("a", 10).tenant_limit);
  auto large = gate.TryEnter("b", 70);  // a tenant's only one may be larger than that
  ASSERT_TRUE(large.ticket);
  const auto refused = gate.TryEnter("c", 20);
  EXPECT_FALSE(refused.ticket);
  EXPECT_FALSE(refused.tenant_limit);
  second.ticket.reset();
  EXPECT_TRUE(gate.TryEnter("a", 10).ticket);
  first.ticket.reset();
  large.ticket.reset();
  EXPECT_TRUE(gate.WaitUntilEmpty(std::chrono::milliseconds(0)));
}

TEST(AdmissionGate, WithoutTenantsTheWholeGateIsForEveryone) {
  AdmissionGate gate(2, 100);
  const auto first = gate.TryEnter("", 10);
  const auto second = gate.TryEnter("", 10);
  EXPECT_TRUE(first.ticket && second.ticket);
  EXPECT_FALSE(gate.TryEnter("", 10).ticket);
}

TEST(InvalidApiKey, SaysWhetherAKeyIsMissingUnreadableOrUnknown) {
  const auto says = [](const http::Headers& headers) { return InvalidApiKey(headers).body; };
  EXPECT_NE(says({}).find("has no API key"), std::string::npos);
  EXPECT_NE(says({{"Authorization", "Basic YTpi"}}).find("cannot be read"), std::string::npos);
  EXPECT_NE(says({{"Authorization", "Bearer a"}, {"Authorization", "Bearer b"}}).find("cannot be"),
            std::string::npos);
  EXPECT_NE(says({{"Authorization", "Bearer a"}}).find("not one that this server knows"),
            std::string::npos);
}

}  // namespace
}  // namespace quern::server
