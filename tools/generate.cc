#include <chrono>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "tools/chat_options.h"
#include "tools/commands.h"
#include "tools/jsonl.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/text_stream.h"

namespace osler {
namespace {

constexpr char kMore[] =
    "Input, one JSON object a line:\n"
    "  {\"input_ids\": […]}          as they are\n"
    "  {\"prompt\": \"…\"}             with the tokenizer's own special tokens\n"
    "  {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, …]}   through the chat template\n"
    "Output, in the same order, one line for each sample:\n"
    "  {\"text\": \"…\", \"output_ids\": […], \"finish\": \"eos|stop|length\", \"prompt_tokens\": "
    "n, "
    "\"sample\": 0}\n"
    "Example: osler generate --model models/visits --input prompts.jsonl --output answers.jsonl\n"
    "Example: osler generate --model models/visits --message \"Summarise: …\" --temperature 0.7 "
    "--top-p 0.9";

struct Flags {
  std::string model, input, output, prompt, message, precision = "fp32";
  std::vector<std::string> stops;
  GenerationOptions options;
  EncoderOptions encoding;
};

at::ScalarType DtypeOf(const std::string& precision) {
  if (precision == "fp64") return at::kDouble;
  return precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

const char* NameOf(Finish finish) {
  if (finish == Finish::kEnd) return "eos";
  return finish == Finish::kStop ? "stop" : "length";
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(Fs& fs, const Flags& flags,
                                                  const RecordEncoder& encoder,
                                                  const std::string& text) {
  if (encoder.tokenizer() == nullptr) return Tokenizer::Load(fs, flags.model).status();
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes)
    return DataError("the prompt is longer than 1 GiB");
  OSLER_ASSIGN_OR_RETURN(Encoding encoding, encoder.tokenizer()->Encode(text, SpecialTokens::kAdd));
  return std::move(encoding.ids);
}

absl::StatusOr<std::vector<int32_t>> EncodeLine(Fs& fs, const Flags& flags,
                                                const RecordEncoder& encoder,
                                                const nlohmann::json& line) {
  for (const auto& [key, value] : line.items()) {
    if (key != "input_ids" && key != "prompt" && key != "messages") {
      return DataError(
          absl::StrCat("unknown key \"", key, "\"; known: input_ids, prompt, messages"));
    }
  }
  if (line.size() != 1)
    return DataError("must have one of \"input_ids\", \"prompt\" and \"messages\"");
  if (const auto ids = line.find("input_ids"); ids != line.end()) return ReadIds(*ids);
  if (const auto prompt = line.find("prompt"); prompt != line.end()) {
    if (!prompt->is_string()) return DataError("\"prompt\" must be a string");
    return EncodePrompt(fs, flags, encoder, prompt->get_ref<const std::string&>());
  }
  OSLER_ASSIGN_OR_RETURN(const std::vector<Message> messages, ReadMessages(line["messages"]));
  OSLER_ASSIGN_OR_RETURN(EncodedRecord encoded, encoder.EncodeMessages(messages, true));
  return std::move(encoded.ids);
}

// Writes each sequence's line once those before it are written.
class LineWriter : public GenerationListener {
 public:
  // `tokenizer` may be null: no text then.
  LineWriter(const Tokenizer* tokenizer, const Flags& flags,
             const std::vector<std::vector<int32_t>>& prompts, OutputFile& output)
      : tokenizer_(tokenizer),
        flags_(flags),
        prompts_(prompts),
        output_(output),
        progress_("generating", static_cast<int64_t>(prompts.size()) * flags.options.samples,
                  "answers") {}

  Verdict OnToken(const SequenceId& id, int32_t token) override {
    ++tokens_;
    if (tokenizer_ == nullptr) return Verdict::kContinue;
    TextStream& stream = streams_.try_emplace(Number(id), *tokenizer_, flags_.stops).first->second;
    stream.Append(token);
    ShowProgress();
    return stream.stopped() ? Verdict::kStop : Verdict::kContinue;
  }

  absl::Status OnDone(const SequenceId& id, Generated generated) override {
    nlohmann::ordered_json line;
    if (tokenizer_ != nullptr) {
      const auto stream = streams_.try_emplace(Number(id), *tokenizer_, flags_.stops).first;
      line["text"] = stream->second.text();
      streams_.erase(stream);
    }
    line["output_ids"] = std::move(generated.ids);
    if (flags_.options.log_probs == LogProbs::kChosen)
      line["logprobs"] = std::move(generated.log_probs);
    line["finish"] = NameOf(generated.finish);
    line["prompt_tokens"] = prompts_[id.prompt].size();
    line["sample"] = id.sample;
    waiting_.emplace(Number(id), std::move(line));
    while (!waiting_.empty() && waiting_.begin()->first == written_) {
      OSLER_RETURN_IF_ERROR(output_.AppendLine(waiting_.begin()->second));
      waiting_.erase(waiting_.begin());
      ++written_;
    }
    ++done_;
    ShowProgress();
    return absl::OkStatus();
  }

  void Finish() { progress_.Finish(); }

 private:
  int64_t Number(const SequenceId& id) const {
    return static_cast<int64_t>(id.prompt) * flags_.options.samples + id.sample;
  }
  void ShowProgress() {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin_;
    progress_.Update(done_,
                     fmt::format("{:.0f} tokens/s", static_cast<double>(tokens_) / passed.count()));
  }

  const Tokenizer* tokenizer_;
  const Flags& flags_;
  const std::vector<std::vector<int32_t>>& prompts_;
  OutputFile& output_;
  std::map<int64_t, TextStream> streams_;
  std::map<int64_t, nlohmann::ordered_json> waiting_;
  int64_t written_ = 0, done_ = 0, tokens_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  Progress progress_;
};

// Prints the text as it comes.
class Printer : public GenerationListener {
 public:
  Printer(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : stream_(tokenizer, stops) {}
  Verdict OnToken(const SequenceId&, int32_t token) override {
    std::cout << stream_.Append(token) << std::flush;
    return stream_.stopped() ? Verdict::kStop : Verdict::kContinue;
  }
  absl::Status OnDone(const SequenceId&, Generated) override {
    std::cout << stream_.Finish() << std::endl;
    return std::cout.good() ? absl::OkStatus() : DataError("cannot write to standard output");
  }

 private:
  TextStream stream_;
};

void Report(const GenerationStats& stats) {
  const auto rate = [](int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  };
  LogInfo(
      "prefill {} tokens in {:.3f} s ({:.1f} tokens/s), decode {} tokens in {:.3f} s ({:.1f} "
      "tokens/s)",
      stats.prompt_tokens, stats.prefill_seconds, rate(stats.prompt_tokens, stats.prefill_seconds),
      stats.decoded_tokens, stats.decode_seconds, rate(stats.decoded_tokens, stats.decode_seconds));
}

absl::Status GenerateLines(Fs& fs, const Flags& flags, const RecordEncoder& encoder,
                           Generator& generator) {
  std::vector<std::vector<int32_t>> prompts;
  OSLER_RETURN_IF_ERROR(
      ForEachJsonLine(fs, flags.input, [&](const nlohmann::json& line, int64_t) -> absl::Status {
        OSLER_ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeLine(fs, flags, encoder, line));
        OSLER_RETURN_IF_ERROR(generator.CheckPrompt(ids));
        prompts.push_back(std::move(ids));
        return absl::OkStatus();
      }));
  OSLER_ASSIGN_OR_RETURN(const auto output, OutputFile::Create(fs, flags.output));
  LineWriter writer(encoder.tokenizer(), flags, prompts, *output);
  OSLER_ASSIGN_OR_RETURN(const GenerationStats stats,
                         generator.Generate(prompts, flags.options, writer));
  writer.Finish();
  OSLER_RETURN_IF_ERROR(output->Commit());
  Report(stats);
  return absl::OkStatus();
}

absl::Status GenerateOne(Fs& fs, const Flags& flags, const RecordEncoder& encoder,
                         Generator& generator) {
  nlohmann::json line;
  if (!flags.prompt.empty()) {
    line["prompt"] = flags.prompt;
  } else {
    line["messages"] = {{{"role", "user"}, {"content", flags.message}}};
  }
  OSLER_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, EncodeLine(fs, flags, encoder, line));
  OSLER_RETURN_IF_ERROR(generator.CheckPrompt(ids));
  Printer printer(*encoder.tokenizer(), flags.stops);
  OSLER_ASSIGN_OR_RETURN(const GenerationStats stats,
                         generator.Generate({&ids, 1}, flags.options, printer));
  Report(stats);
  return absl::OkStatus();
}

absl::Status Run(Fs& fs, Flags flags) {
  const bool one = !flags.prompt.empty() || !flags.message.empty();
  if (one == (!flags.input.empty() || !flags.output.empty()) ||
      (!one && (flags.input.empty() || flags.output.empty())) ||
      (!flags.prompt.empty() && !flags.message.empty())) {
    return ConfigError(
        "give --input and --output, or --prompt for one text, or --message for one chat turn");
  }
  if (one && flags.options.samples != 1) {
    return ConfigError("--samples needs --input and --output: a text that is printed is one");
  }
  for (const std::string& stop : flags.stops) {
    if (stop.empty()) return ConfigError("--stop must not be empty");
  }
  OSLER_ASSIGN_OR_RETURN(const auto generator,
                         Generator::Load(fs, flags.model, DtypeOf(flags.precision)));
  OSLER_ASSIGN_OR_RETURN(const auto encoder,
                         RecordEncoder::Create(fs, flags.model, flags.encoding));
  if (!flags.stops.empty() && encoder->tokenizer() == nullptr) {
    return Annotate(Tokenizer::Load(fs, flags.model).status(), "--stop needs a tokenizer");
  }
  OSLER_ASSIGN_OR_RETURN(flags.options.end_ids, LoadEndIds(fs, flags.model));
  return one ? GenerateOne(fs, flags, *encoder, *generator)
             : GenerateLines(fs, flags, *encoder, *generator);
}

void AddSamplingOptions(CLI::App& command, GenerationOptions& options) {
  command.add_option("--max-new-tokens", options.max_new_tokens)->capture_default_str();
  command
      .add_option("--min-new-tokens", options.min_new_tokens,
                  "no end-of-sequence token before so many")
      ->capture_default_str();
  command
      .add_option("--temperature", options.sampling.temperature,
                  "0: always the likeliest token; else draws from the distribution")
      ->capture_default_str();
  command.add_option("--top-k", options.sampling.top_k, "keep the k likeliest tokens; 0: all")
      ->capture_default_str();
  command
      .add_option("--top-p", options.sampling.top_p,
                  "keep the likeliest tokens that make up this share; 1: all")
      ->capture_default_str();
  command.add_option("--samples", options.samples, "answers to each prompt")->capture_default_str();
  command.add_flag_callback(
      "--logprobs", [&options] { options.log_probs = LogProbs::kChosen; },
      "add each new token's log-probability, before any filter");
  command.add_option("--seed", options.seed)->capture_default_str();
  command.add_option("--batch", options.batch, "sequences at a time")->capture_default_str();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("generate", "Continue prompts and answer chats");
  command->footer(kMore);
  command->add_option("--model", flags->model, "Hugging Face model directory")->required();
  command->add_option("--input", flags->input, "JSON lines to read");
  command->add_option("--output", flags->output,
                      "JSON lines to write; replaced only when complete");
  command->add_option("--prompt", flags->prompt, "one text to continue on standard output");
  command->add_option("--message", flags->message, "one user's turn to answer on standard output");
  AddChatOptions(*command, flags->encoding.chat_template);
  command->add_option("--stop", flags->stops, "end a text before this string; may be repeated")
      ->allow_extra_args(false);
  AddSamplingOptions(*command, flags->options);
  command->add_option("--precision", flags->precision, "arithmetic")
      ->check(CLI::IsMember({"fp32", "fp64", "bf16"}))
      ->capture_default_str();
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Run(fs, *flags); }; });
}

}  // namespace osler
