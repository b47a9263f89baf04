#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "data/loader.h"
#include "tools/data_commands.h"

namespace osler {
namespace {

StreamOptions OptionsOf(const OrderFlags& flags, int threads) {
  StreamOptions options;
  options.plan.sequence_length = flags.sequence_length;
  options.plan.seed = flags.seed;
  options.plan.packing = flags.no_packing ? Packing::kOff : Packing::kOn;
  options.plan.order = flags.no_shuffle ? Order::kFile : Order::kShuffled;
  options.plan.long_records = flags.long_records == "split"  ? LongRecordPolicy::kSplit
                              : flags.long_records == "drop" ? LongRecordPolicy::kDrop
                                                             : LongRecordPolicy::kTruncate;
  options.threads = threads;
  return options;
}

absl::StatusOr<std::vector<StreamSource>> SourcesOf(Fs& fs, const OrderFlags& flags) {
  if (!flags.weights.empty() && flags.weights.size() != flags.paths.size())
    return ConfigError("--weights must have one number for each path");
  std::vector<StreamSource> sources;
  for (size_t i = 0; i < flags.paths.size(); ++i) {
    sources.push_back({ShardDirectories(fs, flags.paths[i]).front(),
                       flags.weights.empty() ? 1.0 : flags.weights[i]});
  }
  return sources;
}

absl::Status PrintPacks(PackStream& stream, int64_t first, int64_t end) {
  StdoutLines out;
  for (;;) {
    OSLER_ASSIGN_OR_RETURN(const Pack pack, stream.Next());
    if (pack.number >= end) return out.Flush().status();
    const nlohmann::ordered_json line = {{"pack", pack.number - first}, {"input_ids", pack.tokens}};
    OSLER_ASSIGN_OR_RETURN(const bool read, out.Write(line.dump()));
    if (!read) return absl::OkStatus();
  }
}

}  // namespace

absl::Status InspectOrder(Fs& fs, const OrderFlags& flags) {
  if (flags.reader >= flags.readers)
    return ConfigError("--reader must be less than --readers (it counts from 0)");
  const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<RecordEncoder> encoder,
                         RecordEncoder::Create(fs, flags.model));
  OSLER_ASSIGN_OR_RETURN(const std::vector<StreamSource> sources, SourcesOf(fs, flags));
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<DataSet> data,
                         DataSet::Open(fs, sources, *encoder, threads));

  StreamOptions options = OptionsOf(flags, threads);
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<PackStream> all, PackStream::Open(*data, options));
  const int64_t first = all->EpochStart(flags.epoch).pack;
  const int64_t end =
      flags.count >= 0 ? first + flags.from + flags.count : all->EpochStart(flags.epoch + 1).pack;
  if (first + flags.from >= end) return absl::OkStatus();
  // A stream deals out running numbers; this command counts from the epoch's start.
  options.share.count = flags.readers;
  options.share.index = (flags.reader + first) % flags.readers;
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<PackStream> stream,
                         PackStream::Open(*data, std::move(options)));
  OSLER_ASSIGN_OR_RETURN(const Cursor start, stream->CursorAt(first + flags.from));
  OSLER_RETURN_IF_ERROR(stream->Seek(start));
  return PrintPacks(*stream, first, end);
}

}  // namespace osler
