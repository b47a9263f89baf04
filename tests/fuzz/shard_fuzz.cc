// Every parser of a shard directory on arbitrary bytes: the first byte chooses which. Kind 0 is a
// shard file without its padding, whose size and checksums are put right as far as its offsets make
// sense, so that mutations reach the code behind them. Whatever is accepted must hold together.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/errors.h"
#include "data/lengths_format.h"
#include "data/manifest.h"
#include "data/plan.h"
#include "data/shard_format.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

const LengthsKey& Key() {
  static const LengthsKey key{std::string(64, 'd'), std::string(64, 'e'), 3};
  return key;
}

void SetU32(std::string* bytes, size_t at, uint32_t value) {
  for (int byte = 0; byte < 4; ++byte)
    (*bytes)[at + static_cast<size_t>(byte)] = static_cast<char>(value >> 8 * byte);
}

// Part and header checksums of one record, where its row points inside the file.
void SealRecord(std::string* file, uint64_t header, uint64_t size) {
  if (header > file->size() || size > file->size() - header || size < kRecordHeaderBytes) return;
  const std::string_view bytes = *file;
  for (uint64_t i = 0; i < std::min<uint64_t>(GetU32(bytes, header + 4), 4); ++i) {
    const uint64_t entry = header + kRecordHeaderBytes + i * kPartEntryBytes;
    if (entry + kPartEntryBytes > header + size) break;
    const uint64_t offset = GetU64(bytes, entry + 8), stored = GetU64(bytes, entry + 16);
    if (offset > file->size() || stored > file->size() - offset) continue;
    SetU32(file, entry + 4, Crc32c(bytes.substr(offset, stored)));
  }
  SetU32(file, header, Crc32c(bytes.substr(header + 4, size - 4)));
}

// u16 payload bytes, payload, everything behind the padding → a shard file.
std::string Expand(std::string_view input) {
  if (input.size() < 2) return "";
  const size_t payload = std::min<size_t>(
      static_cast<uint8_t>(input[0]) | static_cast<uint8_t>(input[1]) << 8, input.size() - 2);
  std::string file = EncodeShardHead() + std::string(input.substr(2, payload));
  file.resize((file.size() + kPageBytes - 1) / kPageBytes * kPageBytes, '\0');
  return file + std::string(input.substr(2 + payload));
}

std::string Shrink(const std::string& file) {
  const size_t payload = GetU64(file, file.size() - kTrailerBytes + 24) - kPageBytes;
  const size_t headers = GetU64(file, file.size() - kTrailerBytes + 32);
  return std::string{static_cast<char>(payload), static_cast<char>(payload >> 8)} +
         file.substr(kPageBytes, payload) + file.substr(headers);
}

void Seal(std::string* file) {
  if (file->size() < kPageBytes + kTrailerBytes) return;
  const size_t trailer = file->size() - kTrailerBytes;
  SetU32(file, trailer + 48, static_cast<uint32_t>(file->size()));
  const uint64_t table = GetU64(*file, trailer + 40);
  if (table <= trailer) {
    for (uint64_t row = table;
         row + kTableEntryBytes <= trailer && row < table + 16 * kTableEntryBytes;
         row += kTableEntryBytes) {
      SealRecord(file, GetU64(*file, row), GetU32(*file, row + 8));
    }
    SetU32(file, trailer + 12, Crc32c(std::string_view(*file).substr(table, trailer - table)));
  }
  SetU32(file, trailer + 60, Crc32c(std::string_view(*file).substr(trailer, 60)));
}

template <typename T>
bool Refused(const absl::StatusOr<T>& result) {
  if (result.ok()) return false;
  OSLER_CHECK(ExitCodeOf(result.status()) == ExitCode::kData);
  return true;
}

void TryShard(const std::string& bytes) {
  const auto view = ShardView::Parse(bytes, "x.osd");
  if (Refused(view)) return;
  for (int64_t i = 0; i < std::min<int64_t>(view->records(), 64); ++i) {
    const auto record = view->Read(i);
    if (Refused(record)) continue;
    OSLER_CHECK(record->body.input_ids.size() == record->body.labels.size());
    OSLER_CHECK(view->entry(i).tokens == record->body.input_ids.size());
  }
}

void TryOthers(uint8_t kind, const std::string& bytes) {
  if (kind == 2) {
    const auto index = ParseIndex(bytes, "index.bin");
    OSLER_CHECK(Refused(index) || EncodeIndex(*index) == bytes);
  } else if (kind == 3) {
    const auto manifest = ParseManifest(bytes, "manifest.json");
    OSLER_CHECK(Refused(manifest) || manifest->records >= 0);
  } else if (kind == 4) {
    const auto certificate = ParseCertificate(bytes, "certificate.json");
    OSLER_CHECK(Refused(certificate) || !certificate->profile.empty());
  } else if (kind == 5) {
    const auto lengths = ParseLengths(bytes, Key());
    OSLER_CHECK(Refused(lengths) || EncodeLengths(*lengths, Key()) == bytes);
  } else {
    const auto cursor = Cursor::Parse(bytes);
    if (Refused(cursor)) return;
    OSLER_CHECK(*Cursor::Parse(cursor->Serialize()) == *cursor);
    static const Lengths lengths(5000, RecordLength{10, 1, 9});
    static const auto plan =
        Plan::Create({{&lengths, "d", 1}, {&lengths, "e", 2}}, {.sequence_length = 16});
    const absl::Status status = (*plan)->Seek(*cursor);
    OSLER_CHECK(status.ok() || ExitCodeOf(status) == ExitCode::kData);
  }
}

// One shard file of a chat record (zstd), a token record and a text record.
std::string SeedShard() {
  std::string head = EncodeShardHead(), headers;
  std::vector<TableEntry> table;
  PartCompressor compressor;
  std::vector<RecordBody> bodies(3);
  bodies[0].messages = {{"user", std::string(300, 'q') + "?"}, {"assistant", "Yes."}};
  bodies[1].input_ids = bodies[1].labels = {1, 2, 3};
  bodies[2].text = "A note. " + std::string(300, '-');
  for (const RecordBody& body : bodies) {
    RecordHeader header{absl::StrCat("r", table.size()), "s1", {}};
    const std::vector<RawPart> parts = *EncodeBody(body);
    const uint64_t begin = head.size();
    for (const RawPart& part : parts) {
      std::string stored;
      const PartCodec codec = compressor.Encode(part, &stored);
      header.parts.push_back({part.kind, part.type, codec, Crc32c(stored), head.size(),
                              stored.size(), part.bytes.size()});
      head += stored;
    }
    const std::string bytes = EncodeRecordHeader(header);
    table.push_back({headers.size(), static_cast<uint32_t>(bytes.size()), body.kind(),
                     head.size() - begin, NameHash(header.id), NameHash(header.subject),
                     static_cast<uint32_t>(body.input_ids.size())});
    headers += bytes;
  }
  const uint64_t payload_end = head.size();
  return head + EncodeShardTail(payload_end, headers, table);
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto kind = static_cast<uint8_t>(data[0] % 7);
  if (kind == 0) {
    bytes = osler::Expand(bytes);
    osler::Seal(&bytes);
  }
  if (kind <= 1) {
    osler::TryShard(bytes);
  } else {
    osler::TryOthers(kind, bytes);
  }
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace osler;
  const auto seed = [](int kind, const std::string& bytes) {
    return static_cast<char>(kind) + bytes;
  };
  Certificate certificate;
  certificate.profile = "safe_harbor";
  certificate.build_id = std::string(64, 'b');
  certificate.trusted_sources = {"fixed"};
  certificate.identifiers["date"] = 3;
  Manifest manifest{certificate.build_id, std::string(64, 'd'), 2, {}, {}, {}, {}};
  manifest.index = {kIndexName, 100, std::string(64, '1'), 0};
  manifest.certificate = {kCertificateName, 100, std::string(64, '2'), 0};
  manifest.report = {kReportName, 100, std::string(64, '3'), 0};
  manifest.shards = {{ShardFileName(0), 9000, std::string(64, '4'), 2}};
  const Cursor cursor{12, 0, 0, 12, {0, 0}};
  OSLER_CHECK(Expand(Shrink(SeedShard())) == SeedShard());
  // The sealed kind more than once: it is the deepest.
  return {seed(0, Shrink(SeedShard())),
          seed(7, Shrink(SeedShard())),
          seed(14, Shrink(SeedShard())),
          seed(1, SeedShard()),
          seed(2, EncodeIndex({certificate.build_id, {{0, 1}, {0, 0}}})),
          seed(3, WriteManifest(manifest)),
          seed(4, WriteCertificate(certificate)),
          seed(5, EncodeLengths(Lengths(3, RecordLength{4, 1, 3}), Key())),
          seed(6, cursor.Serialize())};
}
