#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "tools/chat_options.h"
#include "tools/commands.h"
#include "tools/jsonl.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAbout[] =
    "Turn texts and chats into token ids and a loss mask. Needs tokenizer.json (and, for chats, "
    "the chat template), no "
    "weights.";
constexpr char kMore[] =
    "Input, one JSON object a line:\n"
    "  {\"text\": \"…\"}             gets the tokenizer's own special tokens; mask 0 only for "
    "those before the text\n"
    "                            (with \"add_eos\": true what a text record is in training: "
    "eos_token "
    "ends it)\n"
    "  {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, …], \"add_generation_prompt\": "
    "false}\n"
    "                            gets only what the chat template writes; mask 1 for the "
    "assistant's words and ends\n"
    "Output, one line for each: {\"input_ids\": […], \"mask\": […], \"text\": \"…\"}\n"
    "Example: osler tokenize --model gemma-3-1b-it --input chats.jsonl --output ids.jsonl";

struct Flags {
  std::string model, input, output;
  EncoderOptions options;
};

absl::StatusOr<EncodedRecord> EncodeText(const RecordEncoder& encoder, const nlohmann::json& text) {
  if (!text.is_string()) return DataError("\"text\" must be a string");
  const std::string& bytes = text.get_ref<const std::string&>();
  if (static_cast<int64_t>(bytes.size()) > kMaxTextBytes)
    return DataError("the text is longer than 1 GiB");
  OSLER_ASSIGN_OR_RETURN(Encoding encoding,
                         encoder.tokenizer()->Encode(bytes, SpecialTokens::kAdd));
  EncodedRecord out{std::move(encoding.ids), {}};
  out.labels = out.ids;
  std::fill_n(out.labels.begin(), encoding.front, kIgnore);
  return out;
}

absl::StatusOr<EncodedRecord> EncodeLine(const RecordEncoder& encoder, std::string_view line) {
  const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (record.is_discarded()) return DataError("not valid JSON");
  if (!record.is_object()) return DataError("must be a JSON object");
  if (record.contains("text") == record.contains("messages")) {
    return DataError("must have either \"text\" or \"messages\"");
  }
  const Json add_eos = record.value("add_eos", Json(false));
  if (!add_eos.is_boolean()) return DataError("\"add_eos\" must be true or false");
  if (record.contains("text") && record["text"].is_string() && add_eos.get<bool>())
    return encoder.EncodeText(record["text"].get_ref<const std::string&>());
  if (record.contains("text")) return EncodeText(encoder, record["text"]);
  OSLER_ASSIGN_OR_RETURN(const std::vector<Message> messages, ReadMessages(record["messages"]));
  const auto prompt = record.value("add_generation_prompt", nlohmann::json(false));
  if (!prompt.is_boolean()) return DataError("\"add_generation_prompt\" must be true or false");
  return encoder.EncodeMessages(messages, prompt.get<bool>());
}

Json OutputLine(const Tokenizer& tokenizer, const EncodedRecord& encoded) {
  std::vector<int> mask;
  mask.reserve(encoded.labels.size());
  for (const int32_t label : encoded.labels) mask.push_back(label != kIgnore);
  return {{"input_ids", encoded.ids}, {"mask", mask}, {"text", tokenizer.Decode(encoded.ids)}};
}

absl::Status Convert(const RecordEncoder& encoder, const std::string& path, std::string_view input,
                     OutputFile& output) {
  Progress progress("tokenizing", std::count(input.begin(), input.end(), '\n'), "lines");
  for (int64_t number = 1; !input.empty(); ++number) {
    const size_t end = std::min(input.find('\n'), input.size());
    const auto encoded = EncodeLine(encoder, input.substr(0, end));
    if (!encoded.ok()) return Annotate(encoded.status(), absl::StrCat(path, ":", number));
    OSLER_RETURN_IF_ERROR(output.AppendLine(OutputLine(*encoder.tokenizer(), *encoded)));
    input.remove_prefix(std::min(end + 1, input.size()));
    progress.Update(number);
  }
  progress.Finish();
  return absl::OkStatus();
}

absl::Status Run(Fs& fs, const Flags& flags) {
  OSLER_ASSIGN_OR_RETURN(const auto encoder, RecordEncoder::Create(fs, flags.model, flags.options));
  if (encoder->tokenizer() == nullptr) return Tokenizer::Load(fs, flags.model).status();
  const auto input = fs.Map(flags.input);
  if (!input.ok()) return Reclassify(input.status(), ExitCode::kData);
  const auto output = OutputFile::Create(fs, flags.output);
  if (!output.ok()) return Reclassify(output.status(), ExitCode::kData);
  OSLER_RETURN_IF_ERROR(Convert(*encoder, flags.input, (*input)->data(), **output));
  return (*output)->Commit();
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Fs& fs, Action& action) {
  CLI::App* command = app.add_subcommand("tokenize", kAbout);
  command->footer(kMore);
  auto flags = std::make_shared<Flags>();
  command->add_option("--model", flags->model, "model directory in Hugging Face layout")
      ->required();
  command->add_option("--input", flags->input, "JSON lines to read")->required();
  command->add_option("--output", flags->output, "JSON lines to write; replaced only when complete")
      ->required();
  const std::map<std::string, Target> targets = {
      {"assistant", Target::kAssistant}, {"last_turn", Target::kLastTurn}, {"all", Target::kAll}};
  command
      ->add_option(
          "--target", flags->options.target,
          "what the mask of a chat covers: assistant (every assistant turn), last_turn, all")
      ->transform(CLI::CheckedTransformer(targets).description(""))
      ->default_str("assistant");
  AddChatOptions(*command, flags->options.chat_template);
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Run(fs, *flags); }; });
}

}  // namespace osler
