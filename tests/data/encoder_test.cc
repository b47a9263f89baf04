#include "data/encoder.h"

#include <nlohmann/json.hpp>
#include <set>

#include "data/deid/gate.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::TempDir;
using Json = nlohmann::json;

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == "
    "'assistant' else m.role) + '\\n' + "
    "m.content | trim + '<end_of_turn>\\n' }}{% endfor %}";

class EncoderTest : public ::testing::Test {
 protected:
  EncoderTest() : fs_(MakePosixFs()) {}

  void Write(const char* name, const std::string& text) {
    ASSERT_THAT(WriteFileDurably(*fs_, directory_.File(name), text), IsOk());
  }

  // Every byte is a token (id = byte), then <bos> 256, <start_of_turn> 257, <end_of_turn> 258.
  void WriteTokenizer() {
    Json document = {
        {"model", {{"type", "BPE"}, {"byte_fallback", true}, {"merges", Json::array()}}},
        {"decoder", {{"type", "ByteFallback"}}}};
    char name[8];
    for (int byte = 0; byte < 256; ++byte) {
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      document["model"]["vocab"][name] = byte;
    }
    for (const char* token : {"<bos>", "<start_of_turn>", "<end_of_turn>"}) {
      document["added_tokens"].push_back({{"id", 256 + document["added_tokens"].size()},
                                          {"content", token},
                                          {"single_word", false},
                                          {"lstrip", false},
                                          {"rstrip", false},
                                          {"normalized", false},
                                          {"special", true}});
    }
    Write("tokenizer.json", document.dump());
  }

  void WriteTemplate() {
    Write("chat_template.jinja", kTemplate);
    Write("tokenizer_config.json", R"({"bos_token": "<bos>"})");
  }

  absl::StatusOr<std::unique_ptr<RecordEncoder>> Create(int64_t vocab_size = 0) {
    return RecordEncoder::Create(*fs_, directory_.path(), {.vocab_size = vocab_size});
  }

  TempDir directory_;
  std::unique_ptr<Fs> fs_;
  const CleanRecord tokens_ = testing::Tokens("t1", "s", {7, 0, 300, 5});
  const CleanRecord chat_ = testing::Chat("c1", "s", {{"user", "q"}, {"assistant", "a!"}});
};

TEST_F(EncoderTest, LabelsAreTheAnswerAndItsEnd) {
  WriteTokenizer();
  WriteTemplate();
  ASSERT_OK_AND_ASSIGN(const auto encoder, Create());
  ASSERT_OK_AND_ASSIGN(const EncodedRecord record, encoder->Encode(chat_));
  EXPECT_THAT(record.ids, ElementsAre(256, 257, 'u', 's', 'e', 'r', '\n', 'q', 258, '\n', 257, 'm',
                                      'o', 'd', 'e', 'l', '\n', 'a', '!', 258, '\n'));
  EXPECT_THAT(record.labels,
              ElementsAre(-100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
                          -100, -100, -100, -100, -100, 'a', '!', 258, -100));
}

TEST_F(EncoderTest, TheTargetSaysWhichTurnsAreLearned) {
  WriteTokenizer();
  WriteTemplate();
  const std::vector<Message> chat = {
      {"user", "q"}, {"assistant", "a"}, {"user", "r"}, {"assistant", "b"}};
  std::set<std::string> digests;
  for (const auto& [target, learned] : std::vector<std::pair<Target, std::vector<int32_t>>>{
           {Target::kAssistant, {'a', 258, 'b', 258}}, {Target::kLastTurn, {'b', 258}}}) {
    ASSERT_OK_AND_ASSIGN(const auto encoder,
                         RecordEncoder::Create(*fs_, directory_.path(), {.target = target}));
    ASSERT_OK_AND_ASSIGN(EncodedRecord record, encoder->EncodeMessages(chat, false));
    std::erase(record.labels, kIgnore);
    EXPECT_EQ(record.labels, learned);
    digests.insert(encoder->digest());
  }
  ASSERT_OK_AND_ASSIGN(const auto all,
                       RecordEncoder::Create(*fs_, directory_.path(), {.target = Target::kAll}));
  ASSERT_OK_AND_ASSIGN(const EncodedRecord record, all->EncodeMessages(chat, false));
  EXPECT_EQ(record.labels, record.ids);
  digests.insert(all->digest());
  EXPECT_EQ(digests.size(), 3u);  // the sidecar of lengths also says where targets are
}

TEST_F(EncoderTest, ABuiltInTemplateNeedsItsTokens) {
  WriteTokenizer();
  const auto create = [&](const char* name) {
    return *RecordEncoder::Create(*fs_, directory_.path(),
                                  {.chat_template = {.name = name, .date = ""}});
  };
  ASSERT_OK_AND_ASSIGN(const EncodedRecord record, create("gemma")->Encode(chat_));
  EXPECT_EQ(record.ids.front(), 256);
  EXPECT_THAT(create("chatml")->Encode(chat_),
              Fails(ExitCode::kConfig, HasSubstr("<|im_end|>, which is no token")));
  EXPECT_THAT(create("bert")->Encode(chat_), Fails(ExitCode::kConfig, HasSubstr("llama3")));
}

TEST_F(EncoderTest, TokenRecordsPassWithoutAnyTokenizer) {
  for (const std::string& directory : {std::string(), directory_.path()}) {
    ASSERT_OK_AND_ASSIGN(const auto encoder, RecordEncoder::Create(*fs_, directory));
    ASSERT_OK_AND_ASSIGN(const EncodedRecord record, encoder->Encode(tokens_));
    EXPECT_THAT(record.ids, ElementsAre(7, 0, 300, 5));
    EXPECT_EQ(record.labels, tokens_.body().labels);
    EXPECT_EQ(encoder->digest(), "tokens");
    EXPECT_EQ(encoder->tokenizer(), nullptr);
    EXPECT_THAT(encoder->Encode(chat_), Fails(ExitCode::kConfig, HasSubstr("need a tokenizer")));
  }
}

TEST_F(EncoderTest, ATokenizerThisBuildDoesNotKnowIsToldToTheFirstChat) {
  Write("tokenizer.json", R"({"model": {"type": "Unigram"}})");
  ASSERT_OK_AND_ASSIGN(const auto encoder, Create());
  EXPECT_THAT(encoder->Encode(tokens_), IsOk());
  EXPECT_THAT(encoder->Encode(chat_), Fails(ExitCode::kConfig, HasSubstr("Unigram")));
}

TEST_F(EncoderTest, WithoutAChatTemplateChatsAreRefusedAndTextsAreNot) {
  WriteTokenizer();
  ASSERT_OK_AND_ASSIGN(const auto encoder, Create());
  EXPECT_THAT(encoder->Encode(chat_), Fails(ExitCode::kConfig, HasSubstr("has no chat template")));
  ASSERT_NE(encoder->tokenizer(), nullptr);
  EXPECT_THAT(encoder->tokenizer()->Encode("hi", SpecialTokens::kAdd)->ids, ElementsAre('h', 'i'));
  EXPECT_EQ(encoder->digest().size(), 32u);
}

TEST_F(EncoderTest, IdsBeyondTheVocabularyAreNamed) {
  WriteTokenizer();
  WriteTemplate();
  ASSERT_OK_AND_ASSIGN(const auto small, Create(258));
  EXPECT_THAT(small->Encode(tokens_),
              Fails(ExitCode::kData, AllOf(HasSubstr("record t1: token 2 is 300"), HasSubstr("258"),
                                           HasSubstr("tokenizer/vocabulary mismatch"))));
  EXPECT_THAT(small->Encode(chat_), Fails(ExitCode::kData, HasSubstr("record c1: token 8 is 258")));
  ASSERT_OK_AND_ASSIGN(const auto enough, Create(301));
  EXPECT_THAT(enough->Encode(tokens_), IsOk());
  EXPECT_THAT(enough->Encode(chat_), IsOk());
}

TEST_F(EncoderTest, LabelsOfTokenRecordsAreChecked) {
  RecordBody body;
  body.input_ids = {1, 2, 3};
  body.labels = {1, -5, 3};
  ASSERT_OK_AND_ASSIGN(const auto encoder, RecordEncoder::Create(*fs_, "", {.vocab_size = 10}));
  EXPECT_THAT(encoder->Encode(testing::Trusted("t2", "s", body)),
              Fails(ExitCode::kData, HasSubstr("record t2: label 1 is -5")));
  body.labels[1] = 10;
  EXPECT_THAT(encoder->Encode(testing::Trusted("t2", "s", body)),
              Fails(ExitCode::kData, HasSubstr("label 1 is 10")));
  body.labels[1] = kIgnore;
  EXPECT_THAT(encoder->Encode(testing::Trusted("t2", "s", body)), IsOk());
}

TEST_F(EncoderTest, ErrorsOfChatsNameMessagesAndNeverText) {
  WriteTokenizer();
  WriteTemplate();
  ASSERT_OK_AND_ASSIGN(const auto encoder, Create());
  for (const auto& [chat, message] : std::vector<std::pair<std::vector<Message>, const char*>>{
           {{{"user", "secret"}, {"doctor", "secret"}}, "message 2: unknown role"},
           {{{"user", "secret"}, {"system", "secret"}},
            "message 2: a system message must be the first"},
           {{{"user", "secret\xFF"}}, "message 1: not UTF-8"},
           {{}, "no messages"}}) {
    EXPECT_THAT(encoder->EncodeMessages(chat, false),
                Fails(ExitCode::kData, AllOf(HasSubstr(message), Not(HasSubstr("secret")))));
  }
}

TEST_F(EncoderTest, TheDigestFollowsTokenizerTemplateAndBos) {
  WriteTokenizer();
  WriteTemplate();
  std::vector<std::string> digests = {(*Create())->digest()};
  EXPECT_EQ((*Create())->digest(), digests[0]);
  Write("tokenizer_config.json", R"({"bos_token": "<start_of_turn>"})");
  digests.push_back((*Create())->digest());
  Write("chat_template.jinja", std::string(kTemplate) + "x");
  digests.push_back((*Create())->digest());
  Write("tokenizer.json", *fs_->ReadFile(directory_.File("tokenizer.json")) + " ");
  digests.push_back((*Create())->digest());
  for (size_t i = 0; i < digests.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(digests[i], digests[j]);
  }
}

}  // namespace
}  // namespace osler
