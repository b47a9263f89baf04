// Both JSON Lines formats: what is accepted, and for each kind of bad line the place, the reason,
// and no record text.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/fs.h"
#include "data/sources/reject.h"
#include "data/sources/source.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class Jsonl : public ::testing::Test {
 protected:
  std::unique_ptr<Source> Open(config::SourceFormat format, const std::string& text) {
    const std::string path = tmp_.File("in.jsonl");
    auto file = fs_->Open(path, OpenMode::kTruncate);
    EXPECT_TRUE((*file)->Append(text).ok() && (*file)->Close().ok());
    config::Source options;
    options.set_format(format);
    options.set_path(path);
    return OpenSource(*fs_, options).value();
  }
  // The only line's record, or why it is rejected.
  absl::StatusOr<RawRecord> One(config::SourceFormat format, const std::string& line) {
    auto next = Open(format, line)->Next();
    if (!next.ok()) return next.status();
    EXPECT_TRUE(next->has_value());
    return *std::move(*next);
  }

  TempDir tmp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

constexpr char kChat[] =
    R"({"id":"v1","subject":"p1","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Größe?\n"},)"
    R"({"role":"assistant","content":"1,80 m"}],"known":{"name":["Ann Lee","Lee"],"id":[445566,"A-1"],"mother_name":"Eve"},"extra":[1]})";

TEST_F(Jsonl, ChatRecord) {
  ASSERT_OK_AND_ASSIGN(const RawRecord record, One(config::CHAT_JSONL, kChat));
  EXPECT_EQ(record.id + record.subject, "v1p1");
  EXPECT_EQ(record.body.messages,
            (std::vector<Message>{
                {"system", "Be brief."}, {"user", "Größe?\n"}, {"assistant", "1,80 m"}}));
  EXPECT_EQ(record.known.names, (std::vector<std::string>{"Eve", "Ann Lee", "Lee"}));
  EXPECT_EQ(record.known.others,
            (std::vector<std::pair<std::string, std::string>>{{"id", "445566"}, {"id", "A-1"}}));
  EXPECT_EQ(record.origin.line, 1);
}

TEST_F(Jsonl, TokenRecord) {
  ASSERT_OK_AND_ASSIGN(
      const RawRecord record,
      One(config::TOKENS_JSONL,
          R"({"id":7,"subject":-3,"input_ids":[0,2147483647,5],"labels":[-100,0,2147483647]})"));
  EXPECT_EQ(record.id + "/" + record.subject, "7/-3");
  EXPECT_EQ(record.body.input_ids, (std::vector<int32_t>{0, 2147483647, 5}));
  EXPECT_EQ(record.body.labels, (std::vector<int32_t>{-100, 0, 2147483647}));
  ASSERT_OK_AND_ASSIGN(const RawRecord all,
                       One(config::TOKENS_JSONL, R"({"id":"a","subject":"b","input_ids":[3,4]})"));
  EXPECT_EQ(all.body.labels, all.body.input_ids);
}

TEST_F(Jsonl, ByteOrderMarkCrlfAndEmptyLastLines) {
  const std::string line = R"({"id":"a","subject":"b","input_ids":[3,4]})";
  for (const std::string& text : {"\xEF\xBB\xBF" + line + "\r\n" + line + "\r\n",
                                  line + "\n" + line, line + "\n" + line + "\n\n  \r\n"}) {
    const auto source = Open(config::TOKENS_JSONL, text);
    for (int i = 1; i <= 2; ++i) {
      ASSERT_OK_AND_ASSIGN(const auto record, source->Next());
      ASSERT_TRUE(record.has_value());
      EXPECT_EQ(record->origin.line, i);
    }
    ASSERT_OK_AND_ASSIGN(const auto end, source->Next());
    EXPECT_FALSE(end.has_value());
    EXPECT_EQ(source->position(), source->size());
  }
}

struct Bad {
  std::string line, reason, why;
};

TEST_F(Jsonl, BadChatLines) {
  const std::string head = R"({"id":"secretword","subject":"secretword",)";
  const std::string message = R"("messages":[{"role":"user","content":"secretword"}])";
  const std::vector<Bad> cases = {
      {head + message, "malformed", "malformed JSON"},
      {"secretword", "malformed", "malformed JSON"},
      {head + message + "} secretword", "malformed", "malformed JSON"},
      {head + R"("messages":[{"role":"user","content":"a\q"}]})", "malformed", "malformed JSON"},
      {head + R"("messages":[{"role":"user","content":"\ud800"}]})", "malformed", "malformed JSON"},
      {head + "\"messages\":[{\"role\":\"user\",\"content\":\"secretword\xff\"}]}", "malformed",
       "not UTF-8 at byte 91"},
      {head + message + R"(,"id":"secretword"})", "malformed", "a key is repeated"},
      {head + message + ",\"x\":" + std::string(70, '[') + std::string(70, ']') + "}", "malformed",
       "nested deeper than 64"},
      {"", "malformed", "the line is empty"},
      {"[\"secretword\"]", "wrong_shape", "must be a JSON object"},
      {R"({"subject":"a",)" + message + "}", "wrong_shape", "\"id\" is missing"},
      {R"({"id":"a",)" + message + "}", "wrong_shape", "\"subject\" is missing"},
      {R"({"id":"","subject":"a",)" + message + "}", "wrong_shape", "\"id\" is empty"},
      {R"({"id":1.5,"subject":"a",)" + message + "}", "wrong_shape",
       "\"id\" must be a string or an integer"},
      {R"({"id":"a","subject":["secretword"],)" + message + "}", "wrong_shape",
       "\"subject\" must be a string or an integer"},
      {head + R"("x":1})", "wrong_shape", "\"messages\" is missing"},
      {head + R"("messages":"secretword"})", "wrong_shape", "\"messages\" must be a list"},
      {head + R"("messages":[]})", "wrong_shape", "\"messages\" is empty"},
      {head + R"("messages":["secretword"]})", "wrong_shape", "message 1 must be an object"},
      {head + R"("messages":[{"role":"user","content":"a"},{"role":"secretword","content":"b"}]})",
       "wrong_shape", "message 2: \"role\" must be system, user or assistant"},
      {head + R"("messages":[{"content":"secretword"}]})", "wrong_shape", "message 1: \"role\""},
      {head + R"("messages":[{"role":"user"}]})", "wrong_shape",
       "message 1: \"content\" must be a string"},
      {head + R"("messages":[{"role":"user","content":[{"text":"secretword"}]}]})", "wrong_shape",
       "message 1: \"content\" must be a string"},
      {head + R"("messages":[{"role":"user","content":""}]})", "wrong_shape",
       "message 1: \"content\" is empty"},
      {head + message + R"(,"known":["secretword"]})", "wrong_shape",
       "\"known\" must be an object"},
      {head + message + R"(,"known":{"secretword":[{"a":1}]}})", "wrong_shape",
       "\"known\" must hold strings"},
      {head + message + R"(,"known":{"id":1.5}})", "wrong_shape", "\"known\" must hold strings"},
  };
  for (const Bad& bad : cases) {
    const auto source =
        Open(config::CHAT_JSONL, std::string(kChat) + "\n" + bad.line + "\n" + kChat + "\n");
    ASSERT_TRUE(source->Next().ok());
    const auto rejected = source->Next();
    EXPECT_THAT(rejected,
                Fails(ExitCode::kData, AllOf(HasSubstr("in.jsonl:2: "), HasSubstr(bad.why),
                                             Not(HasSubstr("secretword")))))
        << bad.line;
    EXPECT_EQ(RejectReason(rejected.status()), bad.reason) << bad.line;
    const auto after = source->Next();  // behind the bad line
    ASSERT_THAT(after, IsOk());
    EXPECT_EQ((*after)->origin.line, 3);
  }
}

TEST_F(Jsonl, BadTokenLines) {
  const std::string head = R"({"id":"a","subject":"b",)";
  const std::vector<Bad> cases = {
      {head + R"("labels":[1]})", "", "\"input_ids\" is missing"},
      {head + R"("input_ids":[]})", "", "\"input_ids\" is empty"},
      {head + R"("input_ids":"1 2"})", "", "\"input_ids\" must be a list"},
      {head + R"("input_ids":[1,2.0]})", "", "no integer at position 1"},
      {head + R"("input_ids":[1,"2"]})", "", "no integer at position 1"},
      {head + R"("input_ids":[1,true]})", "", "no integer at position 1"},
      {head + R"("input_ids":[1,-7]})", "", "no token id at position 1"},
      {head + R"("input_ids":[1,-100]})", "", "no token id at position 1"},
      {head + R"("input_ids":[2147483648]})", "", "no token id at position 0"},
      {head + R"("input_ids":[18446744073709551615]})", "", "no token id at position 0"},
      {head + R"("input_ids":[99999999999999999999]})", "", "no integer at position 0"},
      {head + R"("input_ids":[1,2],"labels":[1]})", "", "has 2 items, \"labels\" 1"},
      {head + R"("input_ids":[1,2],"labels":[1,-1]})", "",
       "\"labels\" holds a number that is no token id at position 1"},
      {head + R"("input_ids":[1,2],"labels":null})", "", "\"labels\" must be a list"},
  };
  for (const Bad& bad : cases) {
    const auto rejected = One(config::TOKENS_JSONL, bad.line);
    EXPECT_THAT(rejected,
                Fails(ExitCode::kData, AllOf(HasSubstr("in.jsonl:1: "), HasSubstr(bad.why))))
        << bad.line;
    EXPECT_EQ(RejectReason(rejected.status()), "wrong_shape");
  }
}

TEST_F(Jsonl, MissingFileIsNamed) {
  config::Source options;
  options.set_format(config::CHAT_JSONL);
  options.set_path(tmp_.File("nowhere.jsonl"));
  EXPECT_THAT(OpenSource(*fs_, options), Fails(ExitCode::kData, HasSubstr("nowhere.jsonl")));
}

}  // namespace
}  // namespace osler::testing
