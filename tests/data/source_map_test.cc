// Field maps: which fields of an outside record become what, and what is said when they cannot.
#include <string>
#include <vector>

#include "data/sources/reject.h"
#include "tests/data/mapped_source.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using SourceMap = MappedSource;

constexpr char kPlain[] = R"(format: qa_jsonl, prompt: "{q}", completion: "{a}")";

TEST_F(SourceMap, TemplatesPutFieldsTogether) {
  const std::string settings =
      R"(format: qa_jsonl, id: "{meta.site}-{no}", subject: "{meta.site}", system: "Use {{braces}}.", )"
      R"(prompt: "{q}\n{parts}\n{answers.text.0}{gone?}{nothing?}", completion: "{a} {yes} {ratio}", )"
      R"(known: {name: [meta.name, alias], id: [no, empty]})";
  const std::string row =
      R"({"q":"Why {so}?","a":"1","no":7,"yes":true,"ratio":0.5,"parts":["x",2,false],"nothing":null,)"
      R"("meta":{"site":"B","name":["Ann Lee","Lee"]},"meta.site":"A","alias":"Al","empty":null,)"
      R"("answers":{"text":["first","second"]}})";
  // A member's whole name goes before the steps at its dots.
  EXPECT_THAT(All(settings, row),
              ElementsAre("A-7|A|system:Use {braces}.|user:Why {so}?\nx\n2\nfalse\nfirst|"
                          "assistant:1 true 0.5|name:Ann Lee|name:Lee|name:Al|id:7"));
}

TEST_F(SourceMap, RecordsWithoutIdsAreNumbered) {
  EXPECT_THAT(All(kPlain, "{\"q\":\"1\",\"a\":\"2\"}\n{}\n{\"q\":\"3\",\"a\":\"4\"}\n"),
              ElementsAre("s-1|s-1|user:1|assistant:2", HasSubstr("in:2: prompt: "),
                          "s-3|s-3|user:3|assistant:4"));
}

TEST_F(SourceMap, MessagesAndTexts) {
  EXPECT_THAT(All(R"(format: qa_jsonl, system: "Be {how}.", messages: turns)",
                  R"({"how":"brief","turns":[{"role":"user","content":"a"},)"
                  R"({"role":"assistant","content":"b","weight":1}]})"),
              ElementsAre("s-1|s-1|system:Be brief.|user:a|assistant:b"));
  EXPECT_THAT(All(R"(format: qa_jsonl, text: "{title}: {text}")", R"({"title":"T","text":"x\n"})"),
              ElementsAre("s-1|s-1|text:T: x\n"));
}

TEST_F(SourceMap, Choices) {
  const std::string map =
      R"(format: qa_jsonl, prompt: "{$options}", completion: "{$letter}={$answer}", choice: )";
  const std::string abc = "user:A. x\nB. y\nC. 3|assistant:";
  // Several fields; a list; an object by letter. The answer: a number from `first`, a letter, text.
  EXPECT_THAT(All(map + "{options: [o1, o2, o3], answer: n, first: 1}",
                  R"({"o1":"x","o2":"y","o3":3,"n":3})"),
              ElementsAre("s-1|s-1|" + abc + "C=3"));
  EXPECT_THAT(
      All(map + "{options: [c.list], answer: n}",
          "{\"c\":{\"list\":[\"x\",\"y\",3]},\"n\":0}\n"
          "{\"c\":{\"list\":[\"x\",\"y\",3]},\"n\":\"1\"}\n"
          "{\"c\":{\"list\":[\"x\",\"y\",3]},\"n\":\"b\"}"),
      ElementsAre("s-1|s-1|" + abc + "A=x", "s-2|s-2|" + abc + "B=y", "s-3|s-3|" + abc + "B=y"));
  EXPECT_THAT(All(map + "{options: [c], answer: n}", R"({"c":{"B":"y","A":"x","C":3},"n":"C"})"),
              ElementsAre("s-1|s-1|" + abc + "C=3"));
}

struct BadChoice {
  std::string row, why;
};

TEST_F(SourceMap, BadChoices) {
  const std::string map =
      R"(format: qa_jsonl, prompt: "{$options}", completion: "{$letter}", choice: {options: [c], )"
      R"(answer: n, first: 1})";
  const std::vector<BadChoice> cases = {
      {R"({"c":["secret","b"],"n":0})", "field \"n\" names none of the 2 options"},
      {R"({"c":["secret","b"],"n":3})",
       "field \"n\" names none of the 2 options (letters, or numbers from 1)"},
      {R"({"c":["secret","b"],"n":"C"})", "field \"n\" names none of the 2 options"},
      {R"({"c":["secret","b"],"n":"secret"})", "field \"n\" names none of the 2 options"},
      {R"({"c":["secret","b"],"n":1.5})", "field \"n\" is no letter or number"},
      {R"({"c":["secret","b"],"n":null})", "field \"n\" is no letter or number"},
      {R"({"c":["secret","b"]})", "field \"n\" is missing"},
      {R"({"c":["secret",null],"n":1})", "field \"c\": option 2 is neither a text nor a number"},
      {R"({"c":[],"n":1})", "field \"c\" holds 0 options"},
      {R"({"c":"secret","n":1})", "field \"c\" is no list or object"},
      {R"({"C":["secret"],"n":1})", "field \"c\" is missing; did you mean \"C\"?"},
  };
  for (const BadChoice& bad : cases) {
    EXPECT_THAT(All(map, bad.row), ElementsAre(AllOf(HasSubstr("error: in:1: choice: " + bad.why),
                                                     Not(HasSubstr("secret")))))
        << bad.row;
  }
}

struct Bad {
  std::string row, why;
};

TEST_F(SourceMap, BadRows) {
  const std::vector<Bad> cases = {
      {R"({"Q":"secret","a":"1"})",
       "prompt: field \"q\" is missing; did you mean \"Q\"? ({q?} leaves it out"},
      {R"({"secretword":"secret","a":"1"})", "prompt: field \"q\" is missing ({q?} leaves"},
      {R"({"q":null,"a":"secret"})", "prompt: field \"q\" is null"},
      {R"({"q":{"x":"secret"},"a":"1"})", "prompt: field \"q\" is an object"},
      {R"({"q":["secret",["y"]],"a":"1"})", "prompt: field \"q\" is a list that holds more"},
      {R"({"q":" \n","a":"secret"})", "prompt: comes out empty"},
      {R"({"q":"secret","a":""})", "completion: comes out empty"},
      {R"(["secret"])", "must be a JSON object"},
      {R"("secret")", "must be a JSON object"},
      {R"({"q":"secret","a":"1")", "malformed JSON"},
      {R"({"q":"secret","q":"2","a":"1"})", "a key is repeated"},
      {R"({"q":"secret","a":"1"})" + std::string("\0x", 2), "malformed JSON at byte 23"},
  };
  for (const Bad& bad : cases) {
    const auto said = All(kPlain, bad.row + "\n" + R"({"q":"1","a":"2"})");
    EXPECT_THAT(said, ElementsAre(AllOf(HasSubstr("error: in:1: "), HasSubstr(bad.why),
                                        Not(HasSubstr("secret"))),
                                  "s-2|s-2|user:1|assistant:2"))
        << bad.row;
  }
  EXPECT_THAT(
      All(R"(format: qa_jsonl, text: "{t}", known: {name: [nam]})", R"({"t":"x","name":"secret"})"),
      ElementsAre(HasSubstr("known.name: field \"nam\" is missing; did you mean \"name\"?")));
  EXPECT_THAT(
      All(R"(format: qa_jsonl, text: "{t}", known: {id: [no]})", R"({"t":"x","no":{"a":1}})"),
      ElementsAre(HasSubstr("\"known\" must hold strings")));
  EXPECT_THAT(
      All("format: qa_jsonl, messages: turn", R"({"turns":[]})"),
      ElementsAre(HasSubstr("messages: field \"turn\" is missing; did you mean \"turns\"?")));
  EXPECT_THAT(
      All("format: qa_jsonl, messages: turns", R"({"turns":[{"from":"human","value":"secret"}]})"),
      ElementsAre(AllOf(HasSubstr("message 1: \"role\" must be"), Not(HasSubstr("secret")))));
}

struct BadSetting {
  std::string settings, why;
};

TEST_F(SourceMap, BadSettings) {
  const std::vector<BadSetting> cases = {
      {"format: qa_jsonl", "sources.0: does not say what is learnt"},
      {R"(format: qa_jsonl, prompt: "{q}")", "sources.0.completion: is missing"},
      {R"(format: csv, completion: "{q}")", "sources.0.prompt: is missing"},
      {R"(format: csv, text: "{q}", messages: m)", "sources.0: has more than one of"},
      {R"(format: csv, text: "{q}", system: "x")", "sources.0.system: needs prompt or messages"},
      {R"(format: csv, text: "{q")", "sources.0.text: has a { at character 1 that is not closed"},
      {R"(format: csv, text: "a {q{b}}")", "sources.0.text: has a { at character 3 that is not"},
      {R"(format: csv, text: "q}")", "sources.0.text: has a } without { at character 2"},
      {R"(format: csv, text: "{}")", "sources.0.text: names no field"},
      {R"(format: csv, text: "")", "sources.0.text: is empty"},
      {R"(format: csv, text: "{a}", id: "ID")", "sources.0.id: names no field"},
      {R"(format: csv, text: "{a}", subject: "s")", "sources.0.subject: names no field"},
      {R"(format: csv, text: "{$letter}")", "{$letter} needs choice"},
      {R"(format: csv, text: "{$options}")", "{$options} needs choice"},
      {R"(format: csv, text: "{$answer}", choice: {options: [a]})", "{$answer} needs choice"},
      {R"(format: csv, text: "{$row}")", "{$row} is unknown; there are $key, $file"},
      {R"(format: csv, text: "{a}", choice: {answer: b})", "sources.0.choice.options: is missing"},
      {R"(format: csv, text: "{a}", records: b)", "sources.0.records: is for qa_json"},
      {R"(format: csv, text: "{a}", separator: b)", "sources.0.separator: is for text"},
      {R"(format: text, delimiter: b)", "sources.0.delimiter: is for csv"},
      {R"(format: text, separator: "")", "sources.0.separator: is empty"},
      {R"(format: csv, text: "{a}", delimiter: ab)", "sources.0.delimiter: must be one character"},
      {R"(format: csv, text: "{a}", delimiter: '"')", "sources.0.delimiter: must be one character"},
      {R"(format: csv, text: "{a}", delimiter: "")", "sources.0.delimiter: must be one character"},
      {R"(format: chat_jsonl, prompt: "{q}")", "sources.0.prompt: is for formats whose fields are"},
      {R"(format: tokens_jsonl, trusted: true, known: {id: [a]})",
       "sources.0.known: is for formats"},
      {R"(format: chat_jsonl, choice: {options: [a]})", "sources.0.choice: is for formats"},
      {R"(format: csv, texts: "{a}")", "did you mean 'text'?"},
  };
  for (const BadSetting& bad : cases) {
    EXPECT_THAT(Open(bad.settings, ""), Fails(ExitCode::kConfig, HasSubstr(bad.why)))
        << bad.settings;
  }
}

}  // namespace
}  // namespace osler::testing
