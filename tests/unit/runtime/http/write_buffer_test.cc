#include "runtime/http/write_buffer.h"

#include <gtest/gtest.h>

namespace quern::http {
namespace {

TEST(WriteBuffer, BytesGoOutInTheOrderTheyCame) {
  WriteBuffer buffer(1024);
  EXPECT_EQ(buffer.Front(), "");
  buffer.Append("one ");
  buffer.Append("two ");
  EXPECT_EQ(buffer.Front(), "one two ");
  buffer.Consume(3);
  buffer.Append("three");
  EXPECT_EQ(buffer.size(), 10u);
  EXPECT_EQ(buffer.Front(), " two ");
  buffer.Consume(5);
  EXPECT_EQ(buffer.Front(), "three");
  buffer.Consume(5);
  EXPECT_EQ(buffer.size(), 0u);
  EXPECT_EQ(buffer.Front(), "");
}

TEST(WriteBuffer, WhatIsBeingWrittenDoesNotMoveWhenMoreComes) {
  WriteBuffer buffer(1024);
  buffer.Append("first");
  const std::string_view front = buffer.Front();
  buffer.Append(std::string(100'000, 'x'));
  EXPECT_EQ(front, "first");
  EXPECT_EQ(buffer.Front().data(), front.data());
}

TEST(WriteBuffer, MemoryOfALargeContentIsGivenBackWhenItHasGone) {
  WriteBuffer buffer(1024);
  buffer.Append(std::string(1 << 20, 'x'));
  buffer.Front();
  buffer.Append(std::string(1 << 20, 'y'));
  while (buffer.size() > 0) buffer.Consume(buffer.Front().size());
  EXPECT_LE(buffer.capacity(), 2 * 1024u);
}

}  // namespace
}  // namespace quern::http
