#include "data/loader.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/bounded_queue.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/lengths.h"

namespace osler {

struct DataSet::State {
  struct Source {
    std::unique_ptr<ShardReader> shards;
    Lengths lengths;
    double weight = 1;
  };
  const RecordEncoder& encoder;
  std::vector<Source> sources;
  std::string digest;

  explicit State(const RecordEncoder& record_encoder) : encoder(record_encoder) {}
};

namespace {

// Appends the tokens of one piece to a pack.
absl::Status AddPiece(const DataSet::State& data, const Piece& piece, Pack* pack) {
  const DataSet::State::Source& source = data.sources[static_cast<size_t>(piece.source)];
  OSLER_ASSIGN_OR_RETURN(const CleanRecord record, source.shards->Read(piece.record));
  absl::StatusOr<EncodedRecord> encoded = data.encoder.Encode(record);
  const std::string where = absl::StrCat(source.shards->directory(), ": record ", piece.record);
  if (!encoded.ok()) return Annotate(encoded.status(), where);
  const uint32_t expected = source.lengths[static_cast<size_t>(piece.record)].tokens;
  if (encoded->ids.size() != expected || encoded->labels.size() != expected) {
    return DataError(absl::StrCat(where, " has ", encoded->ids.size(),
                                  " tokens, but its length sidecar says ", expected,
                                  ": tokenizer and sidecar do not belong together; remove ",
                                  source.shards->directory(), "/lengths and run again"));
  }
  pack->doc_starts.push_back(static_cast<int32_t>(pack->tokens.size()));
  const auto append = [&](const std::vector<int32_t>& from, std::vector<int32_t>* to) {
    to->insert(to->end(), from.begin() + piece.begin, from.begin() + piece.begin + piece.length);
  };
  append(encoded->ids, &pack->tokens);
  append(encoded->labels, &pack->labels);
  pack->labels[static_cast<size_t>(pack->doc_starts.back())] = kIgnore;
  return absl::OkStatus();
}

absl::StatusOr<Pack> MakePack(const DataSet::State& data, int64_t number, const PackPlan& plan) {
  Pack pack;
  pack.number = number;
  for (const Piece& piece : plan) OSLER_RETURN_IF_ERROR(AddPiece(data, piece, &pack));
  return pack;
}

// One pack on its way: made by any worker, taken in order.
struct Slot {
  int64_t number = 0;
  PackPlan plan;
  std::promise<absl::StatusOr<Pack>> result;
};
using SlotPointer = std::shared_ptr<Slot>;

// The threads behind a stream from one Seek to the next: a planner that deals out packs in order
// and workers that make them. Both queues hold the same slots; the one in order bounds how far
// ahead they run.
class Pipeline {
 public:
  Pipeline(const DataSet::State& data, Plan& plan, const StreamOptions& options)
      : data_(data),
        ordered_(static_cast<size_t>(std::max<int64_t>(1, options.prefetch))),
        work_(static_cast<size_t>(std::max<int64_t>(1, options.prefetch))) {
    threads_.emplace_back([this, &plan, share = options.share] { Deal(plan, share); });
    for (int i = 0; i < std::max(1, options.threads); ++i)
      threads_.emplace_back([this] { Work(); });
  }

  ~Pipeline() {
    stopping_ = true;
    ordered_.Close();
    work_.Close();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::StatusOr<Pack> Next() {
    const std::optional<SlotPointer> slot = ordered_.Pop();
    return (*slot)->result.get_future().get();  // the queue closes only in the destructor
  }

 private:
  void Deal(Plan& plan, ReaderShare share) {
    while (!stopping_) {
      const int64_t number = plan.Position().pack;
      PackPlan pieces = plan.Next();
      if (number % share.count != share.index) continue;
      auto slot = std::make_shared<Slot>();
      slot->number = number;
      slot->plan = std::move(pieces);
      if (!ordered_.Push(slot) || !work_.Push(slot)) return;
    }
  }

  void Work() {
    while (const std::optional<SlotPointer> slot = work_.Pop()) {
      if (stopping_) return;
      (*slot)->result.set_value(MakePack(data_, (*slot)->number, (*slot)->plan));
    }
  }

  const DataSet::State& data_;
  std::atomic<bool> stopping_{false};
  BoundedQueue<SlotPointer> ordered_, work_;
  std::vector<std::thread> threads_;
};

absl::StatusOr<std::unique_ptr<Plan>> MakePlan(const DataSet::State& data,
                                               const PlanOptions& options) {
  std::vector<PlanSource> sources;
  for (const DataSet::State::Source& source : data.sources) {
    sources.push_back({&source.lengths, source.shards->digest(), source.weight});
  }
  absl::StatusOr<std::unique_ptr<Plan>> plan = Plan::Create(std::move(sources), options);
  if (plan.ok() || data.sources.empty()) return plan;
  std::string names;
  for (const DataSet::State::Source& source : data.sources) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", source.shards->directory());
  }
  return Annotate(plan.status(), names);
}

}  // namespace

DataSet::DataSet(std::unique_ptr<State> state) : state_(std::move(state)) {}
DataSet::~DataSet() = default;

absl::StatusOr<std::unique_ptr<DataSet>> DataSet::Open(Fs& fs,
                                                       const std::vector<StreamSource>& sources,
                                                       const RecordEncoder& encoder, int threads) {
  auto state = std::make_unique<State>(encoder);
  Sha256 digest;
  for (const StreamSource& source : sources) {
    State::Source opened;
    OSLER_ASSIGN_OR_RETURN(opened.shards, ShardReader::Open(fs, source.path));
    OSLER_ASSIGN_OR_RETURN(opened.lengths, EnsureLengths(fs, *opened.shards, encoder, threads));
    opened.weight = source.weight;
    digest.Update(absl::StrFormat("%s %.17g\n", opened.shards->digest(), source.weight));
    state->sources.push_back(std::move(opened));
  }
  state->digest = digest.Hex();
  return std::unique_ptr<DataSet>(new DataSet(std::move(state)));
}

const std::string& DataSet::digest() const { return state_->digest; }

int64_t DataSet::records() const {
  int64_t records = 0;
  for (const State::Source& source : state_->sources) records += source.shards->size();
  return records;
}

struct PackStream::State {
  const DataSet::State& data;
  StreamOptions options;
  std::unique_ptr<Plan>
      plan;  // of the packs being made: the planner thread's while `pipeline` lives
  std::unique_ptr<Plan> walker;  // answers CursorAt and EpochStart
  absl::Status failure;          // the first error that Next met
  std::unique_ptr<Pipeline> pipeline;

  State(const DataSet::State& data_state, const StreamOptions& stream_options)
      : data(data_state), options(stream_options) {}
};

PackStream::PackStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
PackStream::~PackStream() = default;

absl::StatusOr<std::unique_ptr<PackStream>> PackStream::Open(const DataSet& data,
                                                             StreamOptions options) {
  if (options.share.count < 1 || options.share.index < 0 ||
      options.share.index >= options.share.count) {
    return ConfigError(absl::StrCat("reader ", options.share.index, " of ", options.share.count,
                                    " does not exist: readers are numbered from 0"));
  }
  auto state = std::make_unique<State>(data.state(), options);
  OSLER_ASSIGN_OR_RETURN(state->plan, MakePlan(data.state(), options.plan));
  OSLER_ASSIGN_OR_RETURN(state->walker, MakePlan(data.state(), options.plan));
  return std::unique_ptr<PackStream>(new PackStream(std::move(state)));
}

absl::StatusOr<Pack> PackStream::Next() {
  if (!state_->failure.ok()) return state_->failure;
  if (state_->pipeline == nullptr) {
    state_->pipeline = std::make_unique<Pipeline>(state_->data, *state_->plan, state_->options);
  }
  absl::StatusOr<Pack> pack = state_->pipeline->Next();
  if (!pack.ok()) state_->failure = pack.status();
  return pack;
}

absl::Status PackStream::Seek(const Cursor& cursor) {
  state_->pipeline.reset();
  state_->failure =
      state_->plan->Seek(cursor);  // a stream that is not where it was asked to be gives nothing
  if (!state_->failure.ok()) return state_->failure;
  return state_->walker->Seek(cursor);
}

absl::StatusOr<Cursor> PackStream::CursorAt(int64_t pack_number) {
  if (pack_number < 0)
    return DataError(absl::StrCat("there is no pack ", pack_number, " in the data stream"));
  Plan& walker = *state_->walker;
  if (walker.Position().pack > pack_number)
    OSLER_RETURN_IF_ERROR(walker.Seek(walker.EpochStart(0)));
  walker.SkipTo(pack_number);
  return walker.Position();
}

Cursor PackStream::EpochStart(int64_t epoch) { return state_->walker->EpochStart(epoch); }

PlanCounts PackStream::counts() const { return state_->plan->counts(); }

}  // namespace osler
