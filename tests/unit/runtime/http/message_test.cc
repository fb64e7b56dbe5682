#include "runtime/http/message.h"

#include <gtest/gtest.h>

namespace quern::http {
namespace {

TEST(Message, HeaderNamesCompareWithoutRegardToCase) {
  const Headers headers = {{"Content-Type", "text/plain"}, {"X-A", "1"}, {"x-a", "2"}};
  ASSERT_NE(FindHeader(headers, "content-type"), nullptr);
  EXPECT_EQ(*FindHeader(headers, "CONTENT-TYPE"), "text/plain");
  EXPECT_EQ(*FindHeader(headers, "x-A"), "1");
  EXPECT_EQ(FindHeader(headers, "content-typ"), nullptr);
}

TEST(Message, PercentDecodingRefusesWhatIsNoEscape) {
  EXPECT_EQ(PercentDecode("org%2Fname%20x"), "org/name x");
  EXPECT_EQ(PercentDecode("%E2%82%ac"), "\xE2\x82\xAC");
  EXPECT_EQ(PercentDecode(""), "");
  EXPECT_EQ(PercentDecode("a%2"), std::nullopt);
  EXPECT_EQ(PercentDecode("a%"), std::nullopt);
  EXPECT_EQ(PercentDecode("%zz"), std::nullopt);
}

TEST(Message, EveryLineOfAnEventCarriesItsPrefix) {
  EXPECT_EQ(SseEvent("{}"), "data: {}\n\n");
  EXPECT_EQ(SseEvent("a\nb"), "data: a\ndata: b\n\n");
  EXPECT_EQ(SseEvent(""), "data: \n\n");
}

TEST(Message, HeadOfAnEmptyResponseHasNoContentFields) {
  Response response;
  response.status = 204;
  response.headers.emplace_back("Allow", "GET");
  const std::string head = ResponseHead(response, 0, false, true);
  EXPECT_EQ(head.rfind("HTTP/1.1 204 No Content\r\n", 0), 0u);
  EXPECT_EQ(head.find("Content-"), std::string::npos);
  EXPECT_NE(head.find("Allow: GET\r\n"), std::string::npos);
  EXPECT_EQ(head.substr(head.size() - 4), "\r\n\r\n");
}

TEST(Message, HeadOfAStreamIsChunkedAndHasNoLength) {
  const std::string head = ResponseHead(Response{}, std::nullopt, true, false);
  EXPECT_NE(head.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_NE(head.find("Connection: close\r\n"), std::string::npos);
  EXPECT_EQ(head.find("Content-Length"), std::string::npos);
}

}  // namespace
}  // namespace quern::http
