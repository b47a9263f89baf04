// How the container formats cut files into records: CSV, JSON files, plain text, and paths of many
// files.
#include <string>
#include <vector>

#include "tests/data/mapped_source.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Container = MappedSource;

constexpr char kCsv[] = R"(format: csv, id: "{i}", text: "<{t}>")";
constexpr char kTsv[] = R"(format: csv, delimiter: "\t", id: "{i}", text: "<{t}>")";
constexpr char kJson[] = R"(format: qa_json, text: "{t}")";

TEST_F(Container, CsvQuotesLineEndsAndByteOrderMark) {
  const auto expected = ElementsAre("1|1|text:<a, \"b\"\r\n\nc>", "2|2|text:< d >", "3|3|text:<>");
  EXPECT_THAT(All(kCsv, "i,t\r\n1,\"a, \"\"b\"\"\r\n\nc\"\r\n2, d \r\n\"3\",\r\n"), expected);
  EXPECT_THAT(All(kCsv, "\xEF\xBB\xBFi,t\n1,\"a, \"\"b\"\"\r\n\nc\"\n2, d \n3,\"\"\n\n \r\n"),
              expected);
  EXPECT_THAT(All(kTsv, "i\tt\n1\t\"a, \"\"b\"\"\r\n\nc\"\n2\t d \n3\t"), expected);
  EXPECT_THAT(All(kCsv, ",t,i\nx,\"é\",1"),
              ElementsAre("1|1|text:<é>"));  // a nameless index column
  EXPECT_THAT(All(kCsv, "i,t\n"), IsEmpty());
}

TEST_F(Container, CsvBadRowsAreNamedAndLeftBehind) {
  const auto said =
      All(kCsv,
          "i,t\n1,a,secret\n2\n3,\"x\ny\"\n4,a \"secret\" b\n5,\"secret\" b\n6,a\rsecret\n"
          "7,\xff\n8,a\n9," +
              std::string(1, '\0') + "\n\n10,b");
  EXPECT_THAT(said,
              ElementsAre("error: in:2: the row has 3 cells, the header 2; put cells that hold the "
                          "delimiter or line breaks in quotes",
                          HasSubstr("in:3: the row has 1 cells, the header 2"), "3|3|text:<x\ny>",
                          HasSubstr("in:6: a quote inside an unquoted cell"),
                          HasSubstr("in:7: text behind a closing quote"),
                          HasSubstr("in:8: a carriage return that no line feed follows"),
                          HasSubstr("in:9: not UTF-8 at byte 3 of the row"), "8|8|text:<a>",
                          HasSubstr("in:11: no plain text: NUL at byte 3"),
                          HasSubstr("in:12: the row has 1 cells"), "10|10|text:<b>"));
  for (const std::string& line : said) EXPECT_THAT(line, Not(HasSubstr("secret")));
}

TEST_F(Container, CsvFilesThatCannotBeRead) {
  EXPECT_THAT(All(kCsv, ""), ElementsAre(HasSubstr("end error: in:1: the file is empty")));
  EXPECT_THAT(All(kCsv, "i,t\n1,\"a\n2,secret\n"),
              ElementsAre("end error: in:2: a quote opens here and is never closed"));
  EXPECT_THAT(All(kCsv, "i,t,t\n1,2,3\n"),
              ElementsAre("end error: in:1: columns 2 and 3 have the same name: rename one"));
  EXPECT_THAT(All(kCsv, "I,secret\n1,2\n"),
              ElementsAre(AllOf(HasSubstr("end error: in:1: there is no column \"i\"; did you mean "
                                          "\"I\"?"),
                                Not(HasSubstr("secret")))));
  EXPECT_THAT(All(kCsv, "secret;word\n"),
              ElementsAre("end error: in:1: there is no column \"i\" among the 1; is the delimiter "
                          "right?"));
  EXPECT_THAT(All(kCsv, "i,\"t\n1,2\n"), ElementsAre(HasSubstr("end error: in:1: a quote opens")));
  EXPECT_THAT(All(kCsv, "i,t\"\n1,2\n"), ElementsAre(HasSubstr("end error: in:1: a quote inside")));
  EXPECT_THAT(All(kCsv, "\xFF\xFEi\0,\0t\0"), ElementsAre(HasSubstr("in: is UTF-16")));
}

TEST_F(Container, JsonArraysAndObjects) {
  EXPECT_THAT(
      All(kJson, "[\n {\"t\":\"[{\\\"\"},\n\n {\"t\":\"\\\\\"} ,{\"t\":[1,[]],\"x\":{}}, 7]\n"),
      ElementsAre("s-1|s-1|text:[{\"", "s-2|s-2|text:\\",
                  HasSubstr("in:4: record 3: text: field \"t\" is a list that holds more"),
                  HasSubstr("in:4: record 4: the record must be a JSON object")));
  EXPECT_THAT(All(kJson, R"({"p\u0031" : {"t":"a"}, "é":{"t":"b"},"p1":{"t":"c"}, "x":"secret"})"),
              ElementsAre("p1|p1|text:a", "é|é|text:b",
                          "error: in:1: record 3: its key stands in the file before",
                          HasSubstr("in:1: record 4: the record must be a JSON object")));
  EXPECT_THAT(All(kJson, " [ ] \n"), IsEmpty());
  EXPECT_THAT(All(kJson, "\xEF\xBB\xBF{}"), IsEmpty());
}

TEST_F(Container, JsonRecordsInsideTheFile) {
  const std::string inner = R"(format: qa_json, records: data.train, text: "{t}")";
  EXPECT_THAT(
      All(inner,
          R"({"v":[1,"]}"],"data":{"test":[{"t":"no"}],"train":[{"t":"a"},{"t":"b"}],"x":{}},)"
          R"("more":null})"),
      ElementsAre("s-1|s-1|text:a", "s-2|s-2|text:b"));
  EXPECT_THAT(All(inner, R"({"data":{"train":{"k":{"t":"a"}}}})"), ElementsAre("k|k|text:a"));
  EXPECT_THAT(All(inner, R"({"data":{"training":[]}})"),
              ElementsAre("end error: in:1: records: the file has no object with \"train\""));
  EXPECT_THAT(All(inner, R"({"data":{"train":"x"}})"),
              ElementsAre(HasSubstr("expected one JSON array")));
  EXPECT_THAT(All(inner, R"({"data":{"train":[]} "x":1})"),
              ElementsAre(HasSubstr("a comma or closing")));
  EXPECT_THAT(All(inner, R"({"data":{"train":[]})"), ElementsAre(HasSubstr("end error: in:1: ")));
}

TEST_F(Container, JsonThatCannotBeFollowed) {
  const std::string good = R"({"t":"a"})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[" + good, "record 1: no comma and no end of the list after record 1"},
      {"[" + good + ",", "record 2: the file ends inside a value"},
      {"[" + good + ",{\"t\":\"secret", "record 2: the file ends inside a value"},
      {"[" + good + ",{\"t\":[[[", "record 2: the file ends inside a value"},
      {"[" + good + " " + good + "]", "record 1: no comma"},
      {"[" + good + ",]", "record 2: a value is missing"},
      {"[" + good + "]secret", "record 1: more text follows the end"},
      {"[" + good + "\n,\n,", "in:3: record 2: a value is missing"},
      {"{" + good + "}", "record 1: no key in quotes"},
      {"{\"a\" " + good + "}", "record 1: no colon"},
      {"{\"a\\q\":" + good + "}", "record 1: a key is no valid JSON string"},
      {"", "the file is empty or cut short"},
      {"\"secret\"", "expected one JSON array"},
  };
  for (const auto& [content, why] : cases) {
    const std::vector<std::string> said = All(kJson, content);
    EXPECT_THAT(said.back(),
                AllOf(HasSubstr("end error: in:"), HasSubstr(why), Not(HasSubstr("secret"))))
        << content;
  }
  // Inside one record a mistake costs that record only.
  EXPECT_THAT(All(kJson, R"([{"t":"a" "secret"},{"t":"\ud800"},{"t":"b"}])"),
              ElementsAre(HasSubstr("record 1: malformed JSON at byte"),
                          HasSubstr("record 2: malformed JSON at byte"), "s-3|s-3|text:b"));
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THAT(All(kJson, "[{\"t\":" + deep + "}," + good + "]"),
              ElementsAre("error: in:1: record 1: nested deeper than 64", "s-2|s-2|text:a"));
}

TEST_F(Container, LongRecords) {
  const std::string big(10 << 20, 'x');  // ten megabytes on one line
  for (const auto& [settings, content] : std::vector<std::pair<std::string, std::string>>{
           {kJson, "[{\"t\":\"" + big + "\"}]"},
           {R"(format: qa_jsonl, text: "{t}")", "{\"t\":\"" + big + "\"}\n"},
           {R"(format: csv, text: "{t}")", "t\n\"" + big + "\"\n"},
           {"format: text", big}}) {
    EXPECT_EQ(All(settings, content), std::vector<std::string>{"s-1|s-1|text:" + big}) << settings;
  }
}

TEST_F(Container, Texts) {
  EXPECT_THAT(All("format: text", "\xEF\xBB\xBF a\r\n\nb \n"),
              ElementsAre("s-1|s-1|text: a\r\n\nb \n"));
  EXPECT_THAT(All("format: text", " \r\n\t"), IsEmpty());
  EXPECT_THAT(All(R"(format: text, separator: "\n---\n", id: "{$file}#{$key}")",
                  "a\n---\n\n---\n---\nb\xff\n---\nc\n---"),
              ElementsAre("in#1|in#1|text:a", HasSubstr("in:5: not UTF-8 at byte 6 of the text"),
                          "in#3|in#3|text:c\n---"));
  EXPECT_THAT(All("format: text", std::string("a\0b", 3)), ElementsAre(HasSubstr("NUL at byte 2")));
  EXPECT_THAT(All("format: text", "\xFE\xFF\0a"),
              ElementsAre(HasSubstr("in: is UTF-16, not UTF-8")));
  EXPECT_THAT(All(R"(format: text, prompt: "Go on: {$file}", completion: "{text}")", "a"),
              ElementsAre("s-1|s-1|user:Go on: in|assistant:a"));
}

TEST_F(Container, PathsOfManyFiles) {
  ASSERT_THAT(fs_->MakeDirectories(tmp_.File("d/e1")), IsOk());
  ASSERT_THAT(fs_->MakeDirectories(tmp_.File("d/e2")), IsOk());
  for (const char* name :
       {"d/b.txt", "d/a.txt", "d/.h.txt", "d/e2/c.txt", "d/e1/c.txt", "d/[1].txt"})
    Write(name, name);
  const auto all = [&](const std::string& path) {
    return All("format: text, id: \"{$key} {$file}\", path: \"" + tmp_.File(path) + "\"", "");
  };
  EXPECT_THAT(all("d"),
              ElementsAre("1 [1].txt|1 [1].txt|text:d/[1].txt", "2 a.txt|2 a.txt|text:d/a.txt",
                          "3 b.txt|3 b.txt|text:d/b.txt"));
  EXPECT_THAT(all("d/?.txt"), ElementsAre(HasSubstr("1 a.txt"), HasSubstr("2 b.txt")));
  EXPECT_THAT(all("d/e*/c.txt"), ElementsAre(HasSubstr("d/e1/c.txt"), HasSubstr("d/e2/c.txt")));
  EXPECT_THAT(all("d/[1].txt"), ElementsAre(HasSubstr("d/[1].txt")));
  EXPECT_THAT(all("d/*.csv"),
              ElementsAre(AllOf(HasSubstr("open: "), HasSubstr("no file matches"))));
  EXPECT_THAT(all("gone.txt"), ElementsAre(AllOf(HasSubstr("open: "), HasSubstr("gone.txt"))));
  ASSERT_THAT(fs_->MakeDirectories(tmp_.File("empty")), IsOk());
  EXPECT_THAT(all("empty"), ElementsAre(HasSubstr("the directory holds no files")));
  EXPECT_THAT(Open("format: csv, text: \"{t}\", path: \"" + tmp_.path() + "\""),
              Fails(ExitCode::kData, HasSubstr("is a directory; give the file, or a pattern")));
  // Numbers run on from file to file.
  Write("1.csv", "t\na\nb\n");
  Write("2.csv", "x,t\n1,c\n");
  EXPECT_THAT(All("format: csv, text: \"{t}\", path: \"" + tmp_.File("*.csv") + "\"", ""),
              ElementsAre("s-1|s-1|text:a", "s-2|s-2|text:b", "s-3|s-3|text:c"));
}

}  // namespace
}  // namespace osler::testing
