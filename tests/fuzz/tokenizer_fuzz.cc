// tokenizer.json and chat templates from arbitrary bytes, and texts from arbitrary bytes.
//
// The first byte says what the rest is. A tokenizer is refused as a config error that names the
// file, or encodes and decodes without harm; a template likewise; a text through good tokenizers
// gives ids in range that begin inside it.
#include <memory>

#include "base/check.h"
#include "base/errors.h"
#include "data/tokenizer/jinja.h"
#include "data/tokenizer/stream_decoder.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/unicode.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

constexpr std::string_view kTexts[] = {
    "", "a b  abc é\n\n<s>abab ▁ 😀 x", "\xff\xc3", "<b> <b>  abcabcabc",
    "it'S 123 \t\r\n  e\xcc\x81\xcc\xa3 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

void CheckEncoding(const Tokenizer& tokenizer, std::string_view text) {
  for (const SpecialTokens special : {SpecialTokens::kNone, SpecialTokens::kAdd}) {
    const auto encoded = tokenizer.Encode(text, special);
    if (!encoded.ok()) {
      OSLER_CHECK(ExitCodeOf(encoded.status()) == ExitCode::kData);
      continue;
    }
    const Encoding& encoding = *encoded;
    OSLER_CHECK(encoding.ids.size() == encoding.begins.size());
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const bool inside =
          encoding.begins[i] >= 0 && encoding.begins[i] <= static_cast<int64_t>(text.size());
      OSLER_CHECK(inside);
      const bool own =
          static_cast<int64_t>(i) >= encoding.front &&
          static_cast<int64_t>(i + 1) <= static_cast<int64_t>(encoding.ids.size()) - encoding.back;
      if (own) OSLER_CHECK(encoding.ids[i] >= 0 && encoding.ids[i] < tokenizer.vocab_size());
    }
    const std::string decoded = tokenizer.Decode(encoding.ids);
    OSLER_CHECK(IsUtf8(decoded));
    if (encoding.ids.size() > 500) continue;
    StreamDecoder stream(tokenizer);
    for (const int32_t id : encoding.ids) OSLER_CHECK(IsUtf8(stream.Push(id)));
    stream.Finish();
  }
}

void CheckTokenizer(std::string_view json) {
  const auto tokenizer = Tokenizer::Parse(json, "fuzz.json");
  if (!tokenizer.ok()) {
    OSLER_CHECK(ExitCodeOf(tokenizer.status()) == ExitCode::kConfig);
    OSLER_CHECK(tokenizer.status().message().find("fuzz.json: ") == 0);
    return;
  }
  for (std::string_view text : kTexts) CheckEncoding(**tokenizer, text);
}

void CheckTemplate(std::string_view source) {
  const auto parsed = jinja::Template::Parse(source, {"bos_token"});
  if (!parsed.ok()) {
    OSLER_CHECK(ExitCodeOf(parsed.status()) == ExitCode::kConfig);
    return;
  }
  const std::vector<Message> messages = {{"system", " s "}, {"user", "u"}, {"assistant", "\n a"}};
  const auto rendered = parsed->Render({&messages, true, {{"bos_token", "<bos>"}}, "2024-07-26"});
  if (!rendered.ok()) {
    const ExitCode code = ExitCodeOf(rendered.status());
    OSLER_CHECK(code == ExitCode::kConfig || code == ExitCode::kData);
    return;
  }
  const jinja::Text& text = rendered->text;
  for (const jinja::Span& span : text.spans) {
    OSLER_CHECK(span.begin <= span.end && span.end <= text.bytes.size());
    OSLER_CHECK(span.message >= 0 && span.message < 3);
    const std::string& content = messages[static_cast<size_t>(span.message)].content;
    OSLER_CHECK(span.from <= content.size());
    const size_t size = span.end - span.begin;
    OSLER_CHECK(text.bytes.substr(span.begin, size) == content.substr(span.from, size));
  }
  for (const auto& [begin, end] : rendered->generations) {
    OSLER_CHECK(begin <= end && end <= text.bytes.size());
  }
}

// Letters and merges, added tokens of every kind; `more` are members of the document.
std::string Document(const std::string& more, const std::string& model = "") {
  const auto added = [](int id, const char* content, const char* flags) {
    return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + content + "\"," + flags + "}";
  };
  const char* plain =
      R"("single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true)";
  const char* wide =
      R"("single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":false)";
  return "{\"added_tokens\":[" + added(0, "<s>", plain) + "," + added(10, "<b>", wide) + "]," +
         more + R"("model":{"type":"BPE",)" + model +
         R"("unk_token":"<s>","vocab":{"<s>":0,"a":1,"b":2,"c":3,"▁":4,"ab":5,)"
         R"("abc":6,"▁a":7,"<0x0A>":8,"<0xC3>":9},"merges":[["a","b"],["ab","c"],["▁","a"]]}})";
}

constexpr char kLlama3[] =
    R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Isolated","invert":false,)"
    R"("pattern":{"Regex":"(?i:'s|'t|'re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*)"
    R"(|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},)"
    R"("normalizer":{"type":"NFC"},"post_processor":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},)";

std::vector<std::string> Documents() {
  return {
      Document(kLlama3, R"("ignore_merges":true,)"),
      Document(
          R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},)"),
      Document(""),
      Document(
          R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"▁"},)"
          R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},)"
          R"("pre_tokenizer":{"type":"Split","pattern":{"String":"▁"},"behavior":"MergedWithNext","invert":false},)"
          R"("decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
          R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},)",
          R"("byte_fallback":true,"fuse_unk":true,"ignore_merges":true,)"),
      Document(
          R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},)"
          R"({"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[0],)"
          R"("tokens":["<s>"]}}},)")};
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'J') {
    osler::CheckTokenizer(rest);
  } else if (data[0] == 'T') {
    osler::CheckTemplate(rest);
  } else {
    for (const std::string& document : osler::Documents()) {
      const auto tokenizer = osler::Tokenizer::Parse(document, "seed.json");
      OSLER_CHECK(tokenizer.ok());
      osler::CheckEncoding(**tokenizer, rest);
    }
  }
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds = {
      "X<s> ab <b> abc\n é e\xcc\x81 \xff\xe2\x82 \xf0\x9f\x98\x80 ▁▁ab",
      "T{{ bos_token }}{%- for m in messages -%}{{ '<start_of_turn>' + m['role'] + '\\n' + "
      "m.content | trim }}<end_of_turn>\n"
      "{%- endfor -%}{% if add_generation_prompt and not (1 + 2 * 3 % 4 // 2 - -1 < 5) %}x{% elif "
      "true %}y{% else %}z{% endif %}",
      "T{# c #}{% set l = messages[1:] %}{% for m in l if m.role in ['user', \"assistant\"] %}{{ "
      "loop.index0 ~ loop.last }}"
      "{{ m.content.strip() if m.content is string else raise_exception('no') }}{% endfor %}{{ l | "
      "length }}{{ l[-1].content }}",
      "T{% macro f(a, b='x') %}{{ a ~ b }}{% if a %}{{ f('', b=a) }}{% endif %}{% endmacro %}"
      "{% set ns = namespace(n=0, l=[]) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% "
      "set "
      "ns.l = [ns.l, m] + ns.l %}{% if ns.n > 2 %}{% break %}{% endif %}{{ f(m.content) }}{% else "
      "%}none{% endfor %}{{ {'a': ns.l | length, 'b': [1, none]} | tojson(indent=2) }}",
      "T{% for i in range(9) %}{% for k, v in {'x': 1}.items() %}{{ k + '' ~ v }}{% continue %}{% "
      "endfor "
      "%}{% endfor %}{% set t %}{{ messages[-1].content.split('a')[-1].lstrip('\\n') }}{% endset "
      "%}{{ t | "
      "upper | replace('A', 'b') | default('c') }}{{ strftime_now('%d %b %Y') }}{% generation %}{{ "
      "messages[0]['content'][1:] }}{% endgeneration %}{{ ['a', 'b'] | reject('equalto', 'a') | "
      "join(', ') "
      "}}"};
  for (const std::string& document : osler::Documents()) seeds.push_back("J" + document);
  return seeds;
}
