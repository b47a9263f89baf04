// From a plan to batches in memory: reads, encodes and prefetches on background threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/encoder.h"
#include "data/plan.h"
#include "data/shard.h"

namespace osler {

// One pack: documents one after another, no padding. doc_starts has one entry a document, the first
// is 0. Positions restart at 0 with each document (a split piece is a document of its own). The
// label of a document's first token is kIgnore: nothing in the document predicts it.
struct Pack {
  int64_t number = 0;  // running global number
  std::vector<int32_t> tokens, labels;
  std::vector<int32_t> doc_starts;
};

// Reader `index` of `count` gets the packs g with g % count == index, in order.
struct ReaderShare {
  int64_t index = 0, count = 1;
};

struct StreamOptions {
  PlanOptions plan;
  ReaderShare share;
  int64_t prefetch = 16;  // packs made ahead
  int threads = 1;        // that read and encode
};

struct StreamSource {
  std::string path;  // a shard directory
  double weight = 1;
};

// Opens the sources once (certificates checked, lengths ensured) and serves any number of streams
// over them. Thread-safe. Outlives its streams; the encoder outlives it.
class DataSet {
 public:
  static absl::StatusOr<std::unique_ptr<DataSet>> Open(Fs& fs,
                                                       const std::vector<StreamSource>& sources,
                                                       const RecordEncoder& encoder, int threads);
  ~DataSet();
  const std::string& digest() const;  // of all sources with their weights
  int64_t records() const;
  struct State;
  const State& state() const { return *state_; }

 private:
  explicit DataSet(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Not thread-safe; Next() blocks until the pack is ready.
class PackStream {
 public:
  static absl::StatusOr<std::unique_ptr<PackStream>> Open(const DataSet& data,
                                                          StreamOptions options);
  ~PackStream();
  // The next pack of this reader's share. The stream never ends (new epochs follow). An error comes
  // at the place of the pack that could not be made, and again at every later call.
  absl::StatusOr<Pack> Next();
  // Continues with this reader's first pack whose number is at least cursor.pack.
  absl::Status Seek(const Cursor& cursor);
  // The cursor of the pack with this running global number (not counted from the last Seek): pure
  // arithmetic on the plan, the same on every reader, whatever has been read. Cheap when called
  // with growing numbers.
  absl::StatusOr<Cursor> CursorAt(int64_t pack_number);
  // The cursor at the start of epoch `epoch`; its `pack` is the number of packs in all epochs
  // before.
  Cursor EpochStart(int64_t epoch);
  PlanCounts counts() const;

 private:
  struct State;
  explicit PackStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
