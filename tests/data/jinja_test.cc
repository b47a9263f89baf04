#include "data/tokenizer/jinja.h"

#include "absl/strings/str_cat.h"
#include "tests/testing/matchers.h"

namespace osler::jinja {
namespace {

using osler::testing::Fails;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const std::vector<Message> kChat = {
    {"user", "one two"}, {"assistant", "<think>\nt\n</think>\n\nthree"}, {"user", " 4 "}};

absl::StatusOr<Rendered> Render(const std::string& source) {
  auto parsed = Template::Parse(source, {});
  if (!parsed.ok()) return parsed.status();
  return parsed->Render({&kChat, false, {}, "2024-07-26"});
}

std::string Text(const std::string& source) {
  const auto rendered = Render(source);
  return rendered.ok() ? rendered->text.bytes
                       : absl::StrCat("error: ", rendered.status().message());
}

// Worked out by hand from Jinja's documentation; test_slow_chat_template.py has Jinja beside.
TEST(JinjaTest, Expressions) {
  EXPECT_EQ(Text("{{ messages[::-1][0].content ~ messages[1:][-1]['role'] }}"), " 4 user");
  EXPECT_EQ(Text("{{ 'abc'[1:] + 'abc'[-1] + 'abcd'[::2] }}"), "bccac");
  EXPECT_EQ(Text("{{ {'a': [1, true, none], 'b': 'x\"\\n'} | tojson }}"),
            R"({"a": [1, true, null], "b": "x\"\n"})");
  EXPECT_EQ(Text("{{ [1, {'a': 2}] | tojson(indent=1) }}"), "[\n 1,\n {\n  \"a\": 2\n }\n]");
  EXPECT_EQ(Text("{{ ['a', 'b', 'a'] | reject('equalto', 'a') | join('-') }}{{ 7 // 2 % 2 }}"),
            "b1");
  EXPECT_EQ(Text("{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}{{ v }}{% endfor %}"), "x1y2");
  EXPECT_EQ(Text("{{ nothing }}{{ nothing is defined }}{{ nothing | default('d') }}"), "Falsed");
  EXPECT_EQ(Text("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
}

TEST(JinjaTest, Statements) {
  EXPECT_EQ(Text("{% macro f(a, b='x') %}{{ a + b }}{% endmacro %}{{ f('1') + f(a='2', b='3') }}"),
            "1x23");
  EXPECT_EQ(
      Text("{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 1 %}{% continue %}{% "
           "endif %}{% if i == 4 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ "
           "ns.n }}"),
      "5");
  EXPECT_EQ(Text("{% set x = 1 %}{% for i in [2] %}{% set x = i %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(Text("{% for i in [] %}a{% else %}b{% endfor %}{% set t %}c{{ 1 }}{% endset %}{{ t }}"),
            "bc1");
  EXPECT_EQ(Text("{% set a, b = [1, 2] %}{{ b }}{{ loop is defined }}"), "2False");
}

TEST(JinjaTest, WrittenTextRemembersWhereItCameFrom) {
  ASSERT_OK_AND_ASSIGN(
      const Rendered rendered,
      Render(
          "<{{ messages[1].content.split('</think>')[-1].lstrip('\n') }}|{{ messages[2].content | "
          "trim }}>{% generation %}{{ messages[0].content[4:] }}{% endgeneration %}"));
  EXPECT_EQ(rendered.text.bytes, "<three|4>two");
  const auto& spans = rendered.text.spans;
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].begin, 1u);
  EXPECT_EQ(spans[0].end, 6u);
  EXPECT_EQ(spans[0].message, 1);
  EXPECT_EQ(spans[0].from, 20u);
  EXPECT_EQ(spans[1].from, 1u);
  EXPECT_EQ(spans[2].message, 0);
  EXPECT_THAT(rendered.generations, ElementsAre(std::pair<size_t, size_t>(9, 12)));
}

TEST(JinjaTest, WorkIsBounded) {
  for (const char* source :
       {"{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s "
        "%}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
        "endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l] %}{% endfor "
        "%}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "{{ range(100000000) }}"}) {
    EXPECT_THAT(Render(absl::StrCat("\n", source)), Fails(ExitCode::kConfig, HasSubstr("line 2: ")))
        << source;
  }
  for (const auto& [open, close] : std::vector<std::pair<std::string, std::string>>{
           {"(", ")"}, {"[", "]"}, {"{'a': ", "}"}, {"not ", ""}, {"-", ""}, {"f(", ")"}}) {
    std::string deep = "1";
    for (int i = 0; i < 400; ++i) deep = absl::StrCat(open, deep, close);
    EXPECT_THAT(Render(absl::StrCat("{% macro f(a) %}{% endmacro %}{{ ", deep, " }}")),
                Fails(ExitCode::kConfig, HasSubstr("line 1: ")))
        << open;
  }
}

TEST(JinjaTest, RefusalsNameLineAndThing) {
  for (const auto& [source, what] : std::vector<std::pair<const char*, const char*>>{
           {"{% include 'x' %}", "include"},
           {"{{ 'a' | title }}", "title"},
           {"{{ lipsum() }}", "lipsum"},
           {"{{ x.foo() }}", "foo"},
           {"{{ messages[0].items }}", "items"},
           {"{% break %}", "break"},
           {"{{ 1.5 }}", "member"},
           {"{{ x is divisibleby 3 }}", "divisibleby"},
           {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "does not take"},
           {"{{ 'a' | trim('b', 'c') }}", "trim"},
           {"{{ x(1) }}", "unknown function \"x\""},
           {"{{ {'a': 1}.get() }}", "get"},
           {"{{ messages }}", "not text"},
           {"{{ 'a' + 1 }}", "does not take"},
           {"{% for a, b in [1] %}{% endfor %}", "as many items"},
           {"{% set x.y = 1 %}", "no namespace"}}) {
    EXPECT_THAT(Render(absl::StrCat("\n\n", source)),
                Fails(ExitCode::kConfig, AllOf(HasSubstr("line 3: "), HasSubstr(what))))
        << source;
  }
  EXPECT_THAT(Render("{% for m in messages %}{% if loop.last %}{{ raise_exception(m.content) }}{% "
                     "endif %}{% endfor %}"),
              Fails(ExitCode::kData, AllOf(HasSubstr("message 3: "), Not(HasSubstr("4")))));
}

}  // namespace
}  // namespace osler::jinja
