#include "data/shard_record.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/unicode.h"
#include "nlohmann/json.hpp"

namespace osler {
namespace {

static_assert(std::endian::native == std::endian::little, "shard files are little-endian");

constexpr int kZstdLevel = 3;
constexpr size_t kWorthCompressing = 64;

absl::StatusOr<std::string> EncodeMessages(const std::vector<Message>& messages) {
  nlohmann::json list = nlohmann::json::array();
  for (const Message& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  try {
    return list.dump();
  } catch (const nlohmann::json::exception&) {  // its text would quote the record
    return DataError("a message is not valid UTF-8: convert the source to UTF-8");
  }
}

absl::StatusOr<std::vector<Message>> DecodeMessages(const std::string& text) {
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, false);
  if (!list.is_array()) return DataError("its messages are no JSON list");
  std::vector<Message> messages;
  messages.reserve(list.size());
  for (const nlohmann::json& item : list) {
    const auto role = item.is_object() ? item.find("role") : item.end();
    const auto content = item.is_object() ? item.find("content") : item.end();
    if (role == item.end() || content == item.end() || !role->is_string() ||
        !content->is_string()) {
      return DataError("a message has no role or content");
    }
    messages.push_back({role->get<std::string>(), content->get<std::string>()});
  }
  return messages;
}

std::string Int32Bytes(const std::vector<int32_t>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int32_t)};
}

absl::StatusOr<std::vector<int32_t>> Int32Values(const RawPart& part) {
  if (part.type != PartType::kInt32 || part.bytes.size() % sizeof(int32_t) != 0) {
    return DataError("its token ids are not 32-bit integers");
  }
  std::vector<int32_t> values(part.bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), part.bytes.data(), part.bytes.size());
  return values;
}

// One a thread: a context is 150 kB, too dear to make for every part.
ZSTD_DCtx* DecompressionContext() {
  thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                                ZSTD_freeDCtx);
  return context.get();
}

}  // namespace

uint32_t GetU32(std::string_view bytes, size_t offset) {
  uint32_t value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

uint64_t GetU64(std::string_view bytes, size_t offset) {
  uint64_t value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

void PutU32(std::string* bytes, uint32_t value) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void PutU64(std::string* bytes, uint64_t value) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof value);
}

absl::StatusOr<std::vector<RawPart>> EncodeBody(const RecordBody& body) {
  std::vector<RawPart> parts;
  if (body.kind() == RecordKind::kChat) {
    OSLER_ASSIGN_OR_RETURN(std::string text, EncodeMessages(body.messages));
    parts.push_back({PartKind::kMessages, PartType::kJson, std::move(text)});
    return parts;
  }
  if (body.kind() == RecordKind::kText) {
    if (!IsUtf8(body.text)) return DataError("its text is not valid UTF-8");
    parts.push_back({PartKind::kText, PartType::kUtf8, body.text});
    return parts;
  }
  if (body.labels.size() != body.input_ids.size()) {
    return DataError(absl::StrCat("it has ", body.input_ids.size(), " input_ids and ",
                                  body.labels.size(), " labels: they must be as many"));
  }
  parts.push_back({PartKind::kInputIds, PartType::kInt32, Int32Bytes(body.input_ids)});
  parts.push_back({PartKind::kLabels, PartType::kInt32, Int32Bytes(body.labels)});
  return parts;
}

absl::StatusOr<RecordBody> DecodeBody(const std::vector<RawPart>& parts) {
  RecordBody body;
  if (parts.size() == 1 && parts[0].kind == PartKind::kMessages &&
      parts[0].type == PartType::kJson) {
    OSLER_ASSIGN_OR_RETURN(body.messages, DecodeMessages(parts[0].bytes));
    return body;
  }
  if (parts.size() == 1 && parts[0].kind == PartKind::kText && parts[0].type == PartType::kUtf8) {
    body.text = parts[0].bytes;
    if (body.text.empty() || !IsUtf8(body.text)) return DataError("its text is empty or not UTF-8");
    return body;
  }
  if (parts.size() != 2 || parts[0].kind != PartKind::kInputIds ||
      parts[1].kind != PartKind::kLabels) {
    return DataError("it holds parts that this version does not know");
  }
  OSLER_ASSIGN_OR_RETURN(body.input_ids, Int32Values(parts[0]));
  OSLER_ASSIGN_OR_RETURN(body.labels, Int32Values(parts[1]));
  if (body.labels.size() != body.input_ids.size() || body.input_ids.empty()) {
    return DataError("its ids and labels differ in number");
  }
  return body;
}

struct PartCompressor::Context {
  ZSTD_CCtx* zstd = ZSTD_createCCtx();
  ~Context() { ZSTD_freeCCtx(zstd); }
};

PartCompressor::PartCompressor() : context_(std::make_unique<Context>()) {}
PartCompressor::~PartCompressor() = default;

PartCodec PartCompressor::Encode(const RawPart& part, std::string* stored) {
  const std::string& raw = part.bytes;
  if (part.type != PartType::kInt32 && raw.size() >= kWorthCompressing) {
    stored->resize(ZSTD_compressBound(raw.size()));
    const size_t size = ZSTD_compressCCtx(context_->zstd, stored->data(), stored->size(),
                                          raw.data(), raw.size(), kZstdLevel);
    const bool allowed = raw.size() <= std::max<uint64_t>(kFreeExpansion, size * kMaxExpansion);
    if (ZSTD_isError(size) == 0 && size < raw.size() && allowed) {
      stored->resize(size);
      return PartCodec::kZstd;
    }
  }
  *stored = raw;
  return PartCodec::kRaw;
}

absl::StatusOr<RawPart> ReadPart(std::string_view file, const StoredPart& part, uint64_t begin,
                                 uint64_t end) {
  if (part.offset < begin || part.offset > end || part.stored > end - part.offset) {
    return DataError("a part lies outside the payload");
  }
  const std::string_view stored = file.substr(part.offset, part.stored);
  if (const uint32_t crc = Crc32c(stored); crc != part.crc) {
    return DataError(absl::StrCat("the part at offset ", part.offset,
                                  " fails its checksum (CRC-32C ", absl::Hex(crc, absl::kZeroPad8),
                                  ", expected ", absl::Hex(part.crc, absl::kZeroPad8), ")"));
  }
  RawPart raw{part.kind, part.type, {}};
  if (part.codec == PartCodec::kRaw) {
    if (part.raw != part.stored) return DataError("a raw part's two lengths differ");
    raw.bytes = stored;
    return raw;
  }
  if (part.codec != PartCodec::kZstd)
    return DataError("a part has a codec that this version does not know");
  if (part.raw > std::max(kFreeExpansion, part.stored * kMaxExpansion)) {
    return DataError("a part claims to expand beyond the format's bound");
  }
  raw.bytes.resize(part.raw);
  const size_t size = ZSTD_decompressDCtx(DecompressionContext(), raw.bytes.data(),
                                          raw.bytes.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) != 0 || size != part.raw) return DataError("a part does not decompress");
  return raw;
}

std::string EncodeRecordHeader(const RecordHeader& header) {
  std::string bytes;
  PutU32(&bytes, static_cast<uint32_t>(header.parts.size()));
  PutU32(&bytes, static_cast<uint32_t>(header.id.size()));
  PutU32(&bytes, static_cast<uint32_t>(header.subject.size()));
  for (const StoredPart& part : header.parts) {
    bytes += {static_cast<char>(part.kind), static_cast<char>(part.type),
              static_cast<char>(part.codec), 0};
    PutU32(&bytes, part.crc);
    PutU64(&bytes, part.offset);
    PutU64(&bytes, part.stored);
    PutU64(&bytes, part.raw);
  }
  bytes += header.id;
  bytes += header.subject;
  std::string sealed;
  PutU32(&sealed, Crc32c(bytes));
  return sealed + bytes;
}

absl::StatusOr<RecordHeader> ParseRecordHeader(std::string_view bytes) {
  if (bytes.size() < kRecordHeaderBytes) return DataError("its header is too short");
  if (GetU32(bytes, 0) != Crc32c(bytes.substr(4)))
    return DataError("its header fails its checksum");
  const uint64_t parts = GetU32(bytes, 4), id = GetU32(bytes, 8), subject = GetU32(bytes, 12);
  if (kRecordHeaderBytes + parts * kPartEntryBytes + id + subject != bytes.size()) {
    return DataError("its header's lengths do not add up");
  }
  RecordHeader header;
  size_t at = kRecordHeaderBytes;
  for (uint64_t i = 0; i < parts; ++i, at += kPartEntryBytes) {
    if (bytes[at + 3] != 0) return DataError("its header has a reserved byte set");
    header.parts.push_back({static_cast<PartKind>(bytes[at]), static_cast<PartType>(bytes[at + 1]),
                            static_cast<PartCodec>(bytes[at + 2]), GetU32(bytes, at + 4),
                            GetU64(bytes, at + 8), GetU64(bytes, at + 16), GetU64(bytes, at + 24)});
  }
  header.id = bytes.substr(at, id);
  header.subject = bytes.substr(at + id, subject);
  return header;
}

}  // namespace osler
