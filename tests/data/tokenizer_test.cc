#include "data/tokenizer/tokenizer.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/tokenizer/stream_decoder.h"
#include "tests/testing/matchers.h"
#include "tests/testing/source_dir.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TempDir;
using Json = nlohmann::json;

// Letters a–e and ab, abc, "▁a"; <s> is special; all bytes are there, unk is not.
Json Small() {
  Json document = Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": "", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
      "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "ab": 6, "abc": 7, "▁": 8, "▁a": 9},
      "merges": [["a", "b"], ["ab", "c"], ["▁", "a"]]}})");
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    document["model"]["vocab"][name] = 10 + byte;
  }
  return document;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const Json& document) {
  return Tokenizer::Parse(document.dump(), "tokenizer.json");
}

TEST(TokenizerTest, BeginsAreBytesOfTheInput) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(Small()));
  ASSERT_OK_AND_ASSIGN(const Encoding encoding,
                       tokenizer->Encode("d ab é<s>c", SpecialTokens::kAdd));
  EXPECT_THAT(encoding.ids, ElementsAre(0, 4, 8, 6, 8, 10 + 0xC3, 10 + 0xA9, 0, 3));
  EXPECT_THAT(encoding.begins, ElementsAre(0, 0, 1, 2, 4, 5, 6, 7, 10));
  EXPECT_EQ(encoding.front, 1);
  EXPECT_EQ(encoding.back, 0);
  EXPECT_EQ(tokenizer->Decode(encoding.ids), "<s>d ab é<s>c");
}

TEST(TokenizerTest, IllFormedInputIsReadAsReplacementCharacters) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(Small()));
  // A lone continuation, a cut-off sequence, a surrogate (three parts), an overlong form (two),
  // beyond U+10FFFF.
  for (const auto& [bytes, parts] :
       std::vector<std::pair<std::string, size_t>>{{"\x80", 1},
                                                   {"\xE2\x82", 1},
                                                   {"\xED\xA0\x80", 3},
                                                   {"\xC0\xAF", 2},
                                                   {"\xF4\x90\x80\x80", 4},
                                                   {"\xFF", 1}}) {
    ASSERT_OK_AND_ASSIGN(const Encoding encoding,
                         tokenizer->Encode("a" + bytes + "b", SpecialTokens::kNone));
    std::string want = "a";
    for (size_t i = 0; i < parts; ++i) want += "\xEF\xBF\xBD";
    EXPECT_EQ(tokenizer->Decode(encoding.ids), want + "b");
    EXPECT_EQ(encoding.begins[1], 1);
    EXPECT_EQ(encoding.begins.back(), static_cast<int64_t>(1 + bytes.size()));
  }
}

TEST(TokenizerTest, DecodeSkipsIdsOfNoToken) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(Small()));
  EXPECT_EQ(tokenizer->Decode({1, -1, 266, 100000, 2, INT32_MIN, INT32_MAX}), "ab");
  EXPECT_EQ(tokenizer->vocab_size(), 266);
  EXPECT_EQ(tokenizer->IdOf("abc"), 7);
  EXPECT_EQ(tokenizer->IdOf("xyz"), -1);
}

TEST(TokenizerTest, IdsNeedNotBeDense) {
  Json document = Small();
  document["model"]["vocab"]["d"] = 1000;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(document));
  EXPECT_THAT(tokenizer->Encode("adb", SpecialTokens::kNone)->ids, ElementsAre(1, 1000, 2));
  EXPECT_EQ(tokenizer->vocab_size(), 1001);
  EXPECT_EQ(tokenizer->Decode({4, 1000}), "d");
}

// A merge with a byte token as a part forbids cutting the text at characters; ids must not change.
TEST(TokenizerTest, MergesOfByteTokens) {
  Json document = Small();
  document["model"]["vocab"]["<0xC3><0xA9>"] = 266;
  document["model"]["vocab"]["<0xC3><0xA9>a"] = 267;
  document["model"]["merges"].push_back({"<0xC3>", "<0xA9>"});
  document["model"]["merges"].push_back({"<0xC3><0xA9>", "a"});
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(document));
  ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode("béad", SpecialTokens::kNone));
  EXPECT_THAT(encoding.ids, ElementsAre(2, 267, 4));
  EXPECT_THAT(encoding.begins, ElementsAre(0, 1, 4));
}

// A long stretch with no space goes through the queue, a short one through the scan: the same
// tokens.
TEST(TokenizerTest, LongAndShortStretchesAgree) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(Small()));
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "abcab"[i % 5];
  ASSERT_OK_AND_ASSIGN(const Encoding whole, tokenizer->Encode(text, SpecialTokens::kNone));
  ASSERT_EQ(whole.ids.size(), 40000u);
  for (size_t i = 0; i < whole.ids.size(); ++i) ASSERT_EQ(whole.ids[i], i % 2 == 0 ? 7 : 6);
}

struct Bad {
  const char* pointer;  // where a value is put
  const char* value;    // JSON
  const char* message;  // part of what is said
};

class BadTokenizerTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadTokenizerTest, IsAConfigErrorThatNamesThePart) {
  Json document = Small();
  document[Json::json_pointer(GetParam().pointer)] = Json::parse(GetParam().value);
  EXPECT_THAT(Parse(document), Fails(ExitCode::kConfig, AllOf(HasSubstr("tokenizer.json: "),
                                                              HasSubstr(GetParam().message))));
}

constexpr char kAdded[] =
    R"({"id": %s, "content": "%s", "single_word": false, "lstrip": false, "rstrip": false,
  "normalized": false, "special": false})";
constexpr char kTwice[] =
    R"({"id": 266, "content": "x", "single_word": false, "lstrip": false, "rstrip": false,
  "normalized": false, "special": false})";

INSTANTIATE_TEST_SUITE_P(
    Parts, BadTokenizerTest,
    ::testing::Values(
        Bad{"/surprise", "1", "unknown key \"surprise\""},
        Bad{"/model/surprise", "1", "model: unknown key"},
        Bad{"/model/type", "\"Unigram\"", "unknown model \"Unigram\""},
        Bad{"/model", "[]", "model"}, Bad{"/model", "null", "model"},
        Bad{"/model/vocab", "[]", "model.vocab"}, Bad{"/model/vocab", "null", "model.vocab"},
        Bad{"/model/vocab/zz", "-1", "zz"}, Bad{"/model/vocab/zz", "1.5", "zz"},
        Bad{"/model/vocab/zz", "\"1\"", "zz"}, Bad{"/model/vocab/zz", "4294967296", "zz"},
        Bad{"/model/vocab/zz", "18446744073709551615", "zz"},
        Bad{"/model/vocab/zz", "2000000000", "far beyond"},
        Bad{"/model/vocab/zz", "3", "belongs to two tokens"},
        Bad{"/model/merges", "{}", "model.merges"},
        Bad{"/model/merges/0", "[\"a\"]", "model.merges[0]"},
        Bad{"/model/merges/1", "[\"a\", \"zz\"]",
            "model.merges[1]: merge of a token that is not in the vocabulary: \"zz\""},
        Bad{"/model/merges/1", "[\"b\", \"a\"]", "not in the vocabulary: \"ba\""},
        Bad{"/model/merges/2", "\"a b c\"", "model.merges[2]"},
        Bad{"/model/merges/2", "\"ab\"", "model.merges[2]"},
        Bad{"/model/merges/2", "7", "model.merges[2]"},
        Bad{"/model/dropout", "0.1", "model.dropout"},
        Bad{"/model/continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
        Bad{"/model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        Bad{"/model/byte_fallback", "1", "byte_fallback"},
        Bad{"/normalizer", "{\"type\": \"Lowercase\"}", "unknown normalizer \"Lowercase\""},
        Bad{"/normalizer", "7", "normalizer"},
        Bad{"/normalizer/pattern", "{\"Regex\": \"a+\"}", "Regex"},
        Bad{"/normalizer/pattern", "{\"String\": \"\"}", "normalizer.pattern"},
        Bad{"/normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}]}",
            "normalizers[0]: unknown normalizer"},
        Bad{"/pre_tokenizer", "{\"type\": \"Metaspace\"}", "unknown pre-tokenizer \"Metaspace\""},
        Bad{"/pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": true})",
            "pre_tokenizer.add_prefix_space"},
        Bad{"/pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": false})",
            "model.byte_fallback"},
        Bad{"/pre_tokenizer",
            R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
              {"type": "ByteLevel", "add_prefix_space": false}]})",
            "pretokenizers[1]: nothing can follow ByteLevel"},
        Bad{"/pre_tokenizer/invert", "1", "pre_tokenizer.invert"},
        Bad{"/pre_tokenizer/behavior", "\"Sideways\"", "pre_tokenizer.behavior"},
        Bad{"/post_processor/type", "\"RobertaProcessing\"", "unknown post-processor"},
        Bad{"/post_processor/single/0/SpecialToken/id", "\"<t>\"",
            "\"<t>\" is not among special_tokens"},
        Bad{"/post_processor/single/1", "{\"Sequence\": {\"id\": \"B\", \"type_id\": 0}}",
            "single[1]"},
        Bad{"/post_processor/single/1", "{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}",
            "does not contain the text"},
        Bad{"/decoder", "{\"type\": \"WordPiece\"}", "unknown decoder \"WordPiece\""},
        Bad{"/added_tokens", "{}", "added_tokens"},
        Bad{"/added_tokens/0/special", "1", "added_tokens[0].special"},
        Bad{"/added_tokens/0/surprise", "1", "added_tokens[0]: unknown key"},
        Bad{"/added_tokens/0/id", "7", "says id 7"},
        Bad{"/added_tokens/0/content", "\"a\"", "says id 0 but follows"}));

TEST(TokenizerTest, AddedTokensWithWrongOrDoubleIds) {
  char text[400];
  for (const auto& [id, content, message] : std::vector<std::array<const char*, 3>>{
           {"267", "x",
            "says id 267 but follows the vocabulary and the tokens before it with id 266"},
           {"99999999999", "x", "id: must be an integer"},
           {"5", "x", "says id 5"}}) {
    Json document = Small();
    std::snprintf(text, sizeof text, kAdded, id, content);
    document["added_tokens"].push_back(Json::parse(text));
    EXPECT_THAT(Parse(document),
                Fails(ExitCode::kConfig, AllOf(HasSubstr("added_tokens[1]"), HasSubstr(message))));
  }
  Json document = Small();
  document["added_tokens"].push_back(Json::parse(kTwice));
  document["added_tokens"].push_back(Json::parse(kTwice));
  EXPECT_THAT(Parse(document), IsOk());  // the very same token twice is no harm, as in `tokenizers`
  document["added_tokens"][2]["special"] = true;
  EXPECT_THAT(Parse(document), Fails(ExitCode::kConfig, HasSubstr("listed twice")));
}

TEST(TokenizerTest, UnknownTokenMustExistUnlessBytesCoverEverything) {
  Json document = Small();
  document["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(Parse(document), IsOk());
  document["model"]["byte_fallback"] = false;
  EXPECT_THAT(Parse(document), Fails(ExitCode::kConfig, HasSubstr("model.unk_token")));
}

TEST(TokenizerTest, DamagedAndMissingFiles) {
  const auto fs = MakePosixFs();
  TempDir directory;
  EXPECT_THAT(Tokenizer::Load(*fs, directory.path()),
              Fails(ExitCode::kConfig, AllOf(HasSubstr(directory.File("tokenizer.json")),
                                             HasSubstr("save_pretrained"))));
  const std::string whole = Small().dump();
  for (const std::string& text :
       {std::string(), whole.substr(0, whole.size() / 2), whole + "}", std::string("[]"),
        std::string("\"\xFF\""), std::string(100000, '['), std::string("null")}) {
    ASSERT_THAT(WriteFileDurably(*fs, directory.File("tokenizer.json"), text), IsOk());
    EXPECT_THAT(Tokenizer::Load(*fs, directory.path()),
                Fails(ExitCode::kConfig, HasSubstr(directory.File("tokenizer.json"))));
  }
}

TEST(TokenizerTest, NestingIsBounded) {
  Json part = {{"type", "NFC"}};
  for (int i = 0; i < 5000; ++i) part = {{"type", "Sequence"}, {"normalizers", {std::move(part)}}};
  Json document = Small();
  document["normalizer"] = std::move(part);
  EXPECT_THAT(Parse(document), Fails(ExitCode::kConfig, HasSubstr("nested too deeply")));
}

// Number of characters of `text` that begin before byte `at`, the one around it not counted.
int64_t CharacterAt(const std::string& text, int64_t at) {
  int64_t count = -1;
  for (int64_t i = 0; i <= at && i < static_cast<int64_t>(text.size()); ++i) {
    count += (static_cast<uint8_t>(text[static_cast<size_t>(i)]) & 0xC0) != 0x80;
  }
  return count;
}

// Values that `tokenizers` gave for each flavour (scripts/golden/make_tokenizer_cases.py).
// OSLER_TOKENIZER_CASES names another file: tests/data/test_slow_tokenizer_unicode.py makes larger
// ones.
Json GoldenFlavours() {
  const char* given = std::getenv("OSLER_TOKENIZER_CASES");
  const auto text = MakePosixFs()->ReadFile(
      given != nullptr ? given
                       : JoinPath(testing::SourceDir(), "tests/golden/tokenizer_cases.json"));
  return text.ok() ? Json::parse(*text) : Json();
}

TEST(TokenizerTest, GoldenEncoding) {
  const Json flavours = GoldenFlavours();
  ASSERT_EQ(flavours.size(), 4u);
  for (const Json& cases : flavours) {
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(cases["tokenizer"]));
    ASSERT_GE(cases["encode"].size(), 50u);
    for (const Json& one : cases["encode"]) {
      const std::string input = one["text"];
      const auto special = one["special"].get<bool>() ? SpecialTokens::kAdd : SpecialTokens::kNone;
      ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer->Encode(input, special));
      ASSERT_EQ(encoding.ids, one["ids"].get<std::vector<int32_t>>()) << one.dump();
      if (one["begins"].is_null()) continue;
      std::vector<int64_t> begins;
      for (const int64_t begin : encoding.begins) begins.push_back(CharacterAt(input, begin));
      for (int64_t i = 0; i < encoding.front; ++i) begins[static_cast<size_t>(i)] = 0;
      ASSERT_EQ(begins, one["begins"].get<std::vector<int64_t>>()) << one.dump();
    }
  }
}

TEST(TokenizerTest, GoldenDecodingAndStreams) {
  size_t streams = 0;
  for (const Json& cases : GoldenFlavours()) {
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, Parse(cases["tokenizer"]));
    for (const Json& one : cases["decode"]) {
      const auto ids = one["ids"].get<std::vector<int32_t>>();
      ASSERT_EQ(tokenizer->Decode(ids), one["text"].get<std::string>()) << one.dump();
      if (one["pieces"].is_null()) continue;
      StreamDecoder stream(*tokenizer);
      std::string all;
      for (size_t i = 0; i < ids.size(); ++i) {
        const std::string piece = stream.Push(ids[i]);
        ASSERT_EQ(piece, one["pieces"][i].get<std::string>()) << i << " " << one.dump();
        all += piece;
      }
      all += stream.Finish();
      ++streams;
      if (one["text"].get<std::string>().find("\xEF\xBF\xBD") == std::string::npos) {
        ASSERT_EQ(all, one["text"].get<std::string>()) << one.dump();
      }
    }
  }
  EXPECT_GE(streams, 500u);
}

}  // namespace
}  // namespace osler
