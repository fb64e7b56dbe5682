#include "runtime/http/request_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quern::http {
namespace {

class RequestReaderTest : public testing::Test {
 protected:
  // The status with which these bytes are refused; 0 where they are not.
  int Refused(std::string_view bytes) {
    RequestReader reader(limits);
    reader.Append(bytes);
    const auto event = reader.Read();
    const auto* fault = std::get_if<Unreadable>(&event);
    return fault ? fault->status : 0;
  }
  HttpLimits limits;
};

TEST_F(RequestReaderTest, PartsOfARequestAreToldAsTheyComplete) {
  RequestReader reader(limits);
  reader.Append("POST /echo?a=b HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n");
  EXPECT_TRUE(std::holds_alternative<RequestReader::Wanting>(reader.Read()));
  reader.Append("Content-Length: 4\r\n\r\nbo");
  const auto header = reader.Read();
  ASSERT_TRUE(std::holds_alternative<RequestReader::HeaderDone>(header));
  EXPECT_TRUE(std::get<RequestReader::HeaderDone>(header).expects_continue);
  EXPECT_TRUE(std::holds_alternative<RequestReader::Wanting>(reader.Read()));
  EXPECT_EQ(reader.body_bytes(), 2u);
  reader.Append("dyGET /next HTTP/1.0\r\n\r\n");
  const auto event = reader.Read();
  ASSERT_TRUE(std::holds_alternative<ReceivedRequest>(event));
  const auto& received = std::get<ReceivedRequest>(event);
  EXPECT_EQ(received.request.method, "POST");
  EXPECT_EQ(received.request.path, "/echo");
  EXPECT_EQ(received.request.query, "a=b");
  EXPECT_EQ(received.request.body, "body");
  EXPECT_TRUE(received.keep_alive);
  reader.Next();
  const auto second = reader.Read();
  ASSERT_TRUE(std::holds_alternative<ReceivedRequest>(second));
  EXPECT_EQ(std::get<ReceivedRequest>(second).request.path, "/next");
  EXPECT_TRUE(std::get<ReceivedRequest>(second).http10);
  EXPECT_EQ(reader.buffered(), 0u);
}

// What a proxy on the way has checked in the header must not come in behind it.
TEST_F(RequestReaderTest, TrailersAreNoHeaderFieldsHoweverTheyCome) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string body =
      "2\r\nhi\r\n0\r\nHost: b\r\nContent-Encoding: gzip\r\nConnection: close\r\nX-User: c\r\n\r\n";
  for (const std::vector<std::string>& pieces :
       {std::vector{head + body}, std::vector{head, body},
        std::vector{head, body.substr(0, 15), body.substr(15)}}) {
    RequestReader reader(limits);
    RequestReader::Event event;
    for (const std::string& piece : pieces) {
      reader.Append(piece);
      event = reader.Read();
    }
    ASSERT_TRUE(std::holds_alternative<ReceivedRequest>(event)) << pieces.size();
    const auto& received = std::get<ReceivedRequest>(event);
    EXPECT_EQ(received.request.body, "hi");
    EXPECT_EQ(received.request.headers, (Headers{{"Host", "a"}, {"Transfer-Encoding", "chunked"}}));
  }
}

TEST_F(RequestReaderTest, ChunksMayComeByteByByteWhateverTheyAre) {
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
  struct Case {
    const char* body;
    const char* read;  // null: never complete
  };
  for (const Case& c : {Case{"0\r\n\r\n", ""}, Case{"0\r\n{}\r\n0\r\n\r\n", nullptr},
                        Case{"2\r\nhi\r\n0\r\n\r\n", "hi"}, Case{"0\r\nA: b\r\n\r\n", ""},
                        Case{"2;x=y\r\nhi\r\n1\r\n!\r\n000\r\n\r\n", "hi!"}}) {
    RequestReader reader(limits);
    reader.Append(head);
    reader.Read();
    RequestReader::Event event;
    for (const char* byte = c.body; *byte != '\0'; ++byte) {
      ASSERT_TRUE(std::holds_alternative<RequestReader::Wanting>(event)) << c.body;
      reader.Append(std::string_view(byte, 1));
      event = reader.Read();
      if (std::holds_alternative<Unreadable>(event)) break;
    }
    if (c.read == nullptr) {
      EXPECT_FALSE(std::holds_alternative<ReceivedRequest>(event)) << c.body;
    } else {
      ASSERT_TRUE(std::holds_alternative<ReceivedRequest>(event)) << c.body;
      EXPECT_EQ(std::get<ReceivedRequest>(event).request.body, c.read);
    }
  }
}

TEST_F(RequestReaderTest, AnEncodedBodyIsRefusedFromTheHeader) {
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n";
  for (const char* codings :
       {"gzip", "GZIP", "deflate, br", "identity, zstd", "identity,,x-gzip "}) {
    EXPECT_EQ(Refused(head + "Content-Encoding: " + codings + "\r\n\r\n"), 415) << codings;
  }
  EXPECT_EQ(Refused(head + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n"), 415);
  for (const char* codings : {"identity", "Identity , identity", "", ","}) {
    EXPECT_EQ(Refused(head + "Content-Encoding: " + codings + "\r\n\r\n"), 0) << codings;
  }
}

TEST_F(RequestReaderTest, BodyWhoseEndIsADoubtfulThingIsRefused) {
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\n";
  EXPECT_EQ(Refused(head + "Transfer-Encoding: xchunked\r\n\r\n"), 400);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: identity\r\n\r\n"), 400);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: chunked, identity\r\n\r\n"), 400);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n"), 501);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: x\r\nContent-Length: 1\r\n\r\n"), 400);
  EXPECT_EQ(Refused(head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(Refused("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(Refused(head + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"), 0);
}

TEST_F(RequestReaderTest, RequestOfHttp11NamesItsHostOnce) {
  EXPECT_EQ(Refused("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(Refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  EXPECT_EQ(Refused("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(Refused("GET / HTTP/1.0\r\n\r\n"), 0);
}

TEST_F(RequestReaderTest, ManyTinyFieldsAre431) {
  limits.max_header_fields = 10;
  std::string head = "GET / HTTP/1.1\r\nHost: t\r\n";
  for (int i = 0; i < 9; ++i) head += "a:\r\n";
  EXPECT_EQ(Refused(head + "\r\n"), 0);
  EXPECT_EQ(Refused(head + "a:\r\n\r\n"), 431);
}

TEST_F(RequestReaderTest, MemoryOfALargeRequestIsGivenBack) {
  RequestReader reader(limits);
  const std::string body(100'000, 'x');
  reader.Append("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + body);
  const auto event = reader.Read();
  ASSERT_TRUE(std::holds_alternative<ReceivedRequest>(event));
  EXPECT_EQ(std::get<ReceivedRequest>(event).request.body.size(), body.size());
  EXPECT_GT(reader.capacity(), body.size());
  reader.Next();
  EXPECT_LE(reader.capacity(), limits.small_bytes);
}

}  // namespace
}  // namespace quern::http
