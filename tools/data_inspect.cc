#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "data/shard.h"
#include "tools/data_commands.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAbout[] = "Show what shard directories hold.";
constexpr char kMore[] =
    "Without a mode: certificate and counts, on stderr.\n"
    "--records: every clean record in source order, a JSON object a line on stdout.\n"
    "--order: the packs that reader R of N gets in an epoch, one {\"pack\", \"input_ids\"} a line; "
    "packs count from the\n"
    "epoch's start over all readers, and reader R gets those with pack % N == R. Several paths are "
    "mixed by --weights, as\n"
    "data.train does.\n"
    "Example: osler data inspect shards/train --records | head -n 3\n"
    "Example: osler data inspect shards/train --order --model gemma-3-1b-it --seed 7 --readers 4 "
    "--reader 1 --count 8";

struct Flags {
  bool records = false, order = false;
  OrderFlags ordered;
};

std::string RecordLine(const CleanRecord& record) {
  Json line = {{"id", record.id()}, {"subject", record.subject()}};
  if (record.body().is_tokens()) {
    line["input_ids"] = record.body().input_ids;
    line["labels"] = record.body().labels;
  } else if (record.body().kind() == RecordKind::kText) {
    line["text"] = record.body().text;
  } else {
    Json messages = Json::array();
    for (const Message& message : record.body().messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
    line["messages"] = std::move(messages);
  }
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Of all paths, in order.
std::vector<std::string> AllDirectories(Fs& fs, const std::vector<std::string>& paths) {
  std::vector<std::string> all;
  for (const std::string& path : paths) {
    for (std::string& directory : ShardDirectories(fs, path)) all.push_back(std::move(directory));
  }
  return all;
}

absl::Status PrintRecords(Fs& fs, const std::vector<std::string>& paths) {
  StdoutLines out;
  for (const std::string& directory : AllDirectories(fs, paths)) {
    OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> reader,
                           ShardReader::Open(fs, directory));
    for (int64_t i = 0; i < reader->size(); ++i) {
      OSLER_ASSIGN_OR_RETURN(const CleanRecord record, reader->Read(i));
      OSLER_ASSIGN_OR_RETURN(const bool read, out.Write(RecordLine(record)));
      if (!read) return absl::OkStatus();
    }
  }
  return out.Flush().status();
}

absl::Status PrintSummary(Fs& fs, const std::vector<std::string>& paths) {
  for (const std::string& directory : AllDirectories(fs, paths)) {
    OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> reader,
                           ShardReader::Open(fs, directory));
    const Certificate& certificate = reader->certificate();
    int64_t tokens = 0, texts = 0, identifiers = 0;
    for (int64_t i = 0; i < reader->size(); ++i) {
      tokens += reader->kind(i) == RecordKind::kTokens ? 1 : 0;
      texts += reader->kind(i) == RecordKind::kText ? 1 : 0;
    }
    std::string by_rule;
    for (const auto& [rule, count] : certificate.identifiers) {
      identifiers += count;
      if (count > 0) by_rule += fmt::format(" · {} {}", rule, count);
    }
    LogInfo("{}", directory);
    LogInfo("  records      {} ({} chat, {} text, {} token records) in {} shard file(s), {} bytes",
            reader->size(), reader->size() - tokens - texts, texts, tokens, reader->shard_files(),
            reader->bytes());
    LogInfo("  data digest  {}", reader->digest());
    LogInfo("  certificate  profile {}, policy {}, osler {}, build {}", certificate.profile,
            certificate.policy_digest, certificate.tool_version, certificate.build_id);
    LogInfo("  trusted      {}", certificate.trusted_sources.empty()
                                     ? "no source: all text went through the gate"
                                     : absl::StrJoin(certificate.trusted_sources, ", "));
    LogInfo("  identifiers  {} replaced in the whole build{}", identifiers, by_rule);
  }
  return absl::OkStatus();
}

absl::Status Inspect(Fs& fs, const Flags& flags) {
  if (flags.records) return PrintRecords(fs, flags.ordered.paths);
  return flags.order ? InspectOrder(fs, flags.ordered) : PrintSummary(fs, flags.ordered.paths);
}

void AddOrderFlags(CLI::App& command, OrderFlags& flags, CLI::Option* order) {
  const auto add = [&](const char* name, auto& value, const char* what) {
    return command.add_option(name, value, what)->needs(order);
  };
  constexpr double kLargest = 9e15;
  add("--model", flags.model, "model directory: needed for chat and text records");
  add("--weights", flags.weights, "of the paths, separated by commas (1 each)")->delimiter(',');
  add("--seed", flags.seed, "train.seed of the run");
  add("--epoch", flags.epoch, "from 0")->check(CLI::Range(0.0, kLargest));
  add("--sequence-length", flags.sequence_length, "ids in a pack (512)")
      ->check(CLI::Range(1, 1 << 30));
  add("--readers", flags.readers, "how many read (1)")->check(CLI::Range(1, 1 << 30));
  add("--reader", flags.reader, "which of them (0)")->check(CLI::Range(0, 1 << 30));
  add("--from", flags.from, "first pack of the epoch (0)")->check(CLI::Range(0.0, kLargest));
  add("--count", flags.count, "packs over all readers (to the end of the epoch)")
      ->check(CLI::Range(0.0, kLargest));
  add("--long-records", flags.long_records, "truncate, split or drop")
      ->check(CLI::IsMember({"truncate", "split", "drop"}));
  command.add_flag("--no-shuffle", flags.no_shuffle, "file order")->needs(order);
  command.add_flag("--no-packing", flags.no_packing, "one record a pack")->needs(order);
}

}  // namespace

void AddDataInspect(CLI::App& data, Fs& fs, Action& action) {
  CLI::App* command = data.add_subcommand("inspect", kAbout);
  command->footer(kMore);
  auto flags = std::make_shared<Flags>();
  command
      ->add_option("paths", flags->ordered.paths, "builds' outputs, or shard directories of theirs")
      ->required();
  CLI::Option* records = command->add_flag("--records", flags->records, "print the records");
  CLI::Option* order =
      command->add_flag("--order", flags->order, "print the packs of a reader")->excludes(records);
  AddOrderFlags(*command, flags->ordered, order);
  command->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return Inspect(fs, *flags); }; });
}

}  // namespace osler
