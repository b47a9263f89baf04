// Templates for directories that have none (base models): the turns of each family, nothing else.
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "data/tokenizer/chat_template.h"

namespace osler {
namespace {

constexpr char kGemma[] = R"(<bos>
{%- set first = namespace(prefix='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {%- set first.prefix = message.content + '\n\n' -%}
  {%- else -%}
    {%- if (message.role == 'user') != ((loop.index0 - (messages[0].role == 'system')) % 2 == 0) -%}
      {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
    {{- first.prefix + message.content | trim + '<end_of_turn>\n' -}}
    {%- set first.prefix = '' -%}
  {%- endif -%}
{%- endfor -%}
{{ '<start_of_turn>model\n' if add_generation_prompt }})";

constexpr char kLlama3[] = R"(<|begin_of_text|>
{%- for message in messages -%}
  {{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt }})";

constexpr char kChatMl[] = R"({%- for message in messages -%}
  {{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\n' if add_generation_prompt }})";

}  // namespace

absl::StatusOr<std::string> BuiltinTemplate(const std::string& name) {
  static constexpr std::pair<std::string_view, const char*> kKnown[] = {
      {"gemma", kGemma}, {"llama3", kLlama3}, {"chatml", kChatMl}};
  for (const auto& [known, text] : kKnown) {
    if (name == known) return std::string(text);
  }
  return ConfigError(absl::StrCat("there is no built-in chat template \"", name,
                                  "\"; use gemma, llama3 or chatml, or leave the name out for the "
                                  "model directory's own"));
}

}  // namespace osler
