#include "operator/kube/api_status.h"

#include <gmock/gmock.h>

namespace quern::control::kube {
namespace {

using ::testing::HasSubstr;

json MakeStatus(int code, const std::string& reason, const std::string& message) {
  return {{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", message}};
}

TEST(ApiStatus, EachHttpStatusHasItsErrorCode) {
  const std::vector<std::pair<int, ErrorCode>> expected{
      {400, ErrorCode::kInvalidArgument},   {401, ErrorCode::kPermissionDenied},
      {403, ErrorCode::kPermissionDenied},  {404, ErrorCode::kNotFound},
      {405, ErrorCode::kUnsupported},       {409, ErrorCode::kConflict},
      {410, ErrorCode::kExpired},           {422, ErrorCode::kInvalidArgument},
      {429, ErrorCode::kResourceExhausted}, {500, ErrorCode::kUnavailable},
      {503, ErrorCode::kUnavailable},       {504, ErrorCode::kUnavailable}};
  for (const auto& [status, code] : expected) {
    EXPECT_EQ(ErrorFromHttp(status, "", "get x").code, code) << status;
  }
}

TEST(ApiStatus, ConflictAndAlreadyExistsAreToldApart) {
  const std::string exists = MakeStatus(409, "AlreadyExists", "there is one").dump();
  const std::string conflict = MakeStatus(409, "Conflict", "changed").dump();
  EXPECT_EQ(ErrorFromHttp(409, exists, "create x").code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(ErrorFromHttp(409, conflict, "update x").code, ErrorCode::kConflict);
}

TEST(ApiStatus, TheMessageIsTheServersWithWhatWasDoneInFront) {
  const std::string body = MakeStatus(422, "Invalid", "spec.replicas: must be >= 0").dump();
  EXPECT_EQ(ErrorFromHttp(422, body, "apply deployments ns/web").message,
            "apply deployments ns/web: spec.replicas: must be >= 0 (HTTP 422)");
}

TEST(ApiStatus, ABodyThatIsNoStatusIsQuotedOnOneBoundedLine) {
  const Error error = ErrorFromHttp(502, "<html>\nbad" + std::string(5000, 'x'), "get x");
  EXPECT_THAT(error.message, HasSubstr("<html> bad"));
  EXPECT_LT(error.message.size(), 400u);
}

TEST(ApiStatus, FieldsOfAWrongTypeAreNoFault) {
  EXPECT_EQ(ErrorFromStatus(json::array(), "watch x").code, ErrorCode::kUnavailable);
  EXPECT_EQ(ErrorFromStatus({{"code", "410"}, {"reason", 1}}, "watch x").code,
            ErrorCode::kUnavailable);
  EXPECT_EQ(ErrorFromStatus({{"reason", "Expired"}}, "watch x").code, ErrorCode::kExpired);
}

}  // namespace
}  // namespace quern::control::kube
