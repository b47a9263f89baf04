// Records and shard directories for the tests of data/: everything passes through the real gate.
// One thread only.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "data/deid/gate.h"
#include "data/shard.h"

namespace osler::testing {

inline CleanRecord Trusted(std::string id, std::string subject, RecordBody body) {
  RawRecord raw;
  raw.id = std::move(id);
  raw.subject = std::move(subject);
  raw.body = std::move(body);
  raw.trusted = true;
  static const auto gate =
      DeidGate::Create(config::Deid());  // its patterns take milliseconds to compile
  OSLER_CHECK(gate.ok());
  auto clean = (*gate)->Pass(std::move(raw));
  OSLER_CHECK(clean.ok());
  return *std::move(clean);
}

inline CleanRecord Tokens(std::string id, std::string subject, std::vector<int32_t> ids) {
  RecordBody body;
  body.labels = ids;
  body.labels[0] = -100;
  body.input_ids = std::move(ids);
  return Trusted(std::move(id), std::move(subject), std::move(body));
}

inline CleanRecord Chat(std::string id, std::string subject, std::vector<Message> messages) {
  RecordBody body;
  body.messages = std::move(messages);
  return Trusted(std::move(id), std::move(subject), std::move(body));
}

inline CleanRecord Text(std::string id, std::string subject, std::string text) {
  RecordBody body;
  body.text = std::move(text);
  return Trusted(std::move(id), std::move(subject), std::move(body));
}

inline Certificate SomeCertificate() {
  Certificate certificate;
  certificate.profile = "safe_harbor";
  certificate.policy_digest = std::string(64, 'a');
  certificate.tool_version = "0.1.0";
  certificate.trusted_sources = {"fixed"};
  certificate.identifiers = {{"date", 3}, {"name", 5}};
  return certificate;
}

inline absl::Status WriteShards(Fs& fs, const std::string& directory,
                                const std::vector<CleanRecord>& records,
                                int64_t shard_bytes = 64 << 20,
                                Certificate certificate = SomeCertificate()) {
  auto writer = ShardWriter::Create(
      fs, {directory, shard_bytes, std::move(certificate), "{\"records\": 1}\n"});
  if (!writer.ok()) return writer.status();
  for (const CleanRecord& record : records) {
    if (absl::Status status = (*writer)->Append(record); !status.ok()) return status;
  }
  return (*writer)->Commit();
}

// Token records of these lengths; record i holds ids 1000·i, 1000·i + 1, …
inline std::vector<CleanRecord> TokenRecords(const std::vector<int64_t>& lengths) {
  std::vector<CleanRecord> records;
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < lengths[i]; ++t)
      ids.push_back(static_cast<int32_t>(1000 * static_cast<int64_t>(i) + t));
    records.push_back(Tokens(absl::StrCat("r", i), absl::StrCat("s", i / 3), std::move(ids)));
  }
  return records;
}

// Chat and token records of five subjects, interleaved, with text that any of the encodings could
// trip over.
inline std::vector<CleanRecord> MixedRecords() {
  std::vector<CleanRecord> records;
  for (int i = 0; i < 24; ++i) {
    const std::string id = absl::StrCat("visit-", i), subject = absl::StrCat("subject-", i % 5);
    if (i % 3 == 2) {
      std::vector<int32_t> ids;
      for (int t = 0; t < 10 + i; ++t) ids.push_back(t * 7 % 31);
      records.push_back(Tokens(id, subject, std::move(ids)));
      continue;
    }
    std::string text =
        absl::StrCat("Größe 180 cm\n\t\"quoted\" \\ ", "日本 ", std::string(1, '\0'), i);
    for (int repeat = 0; repeat < i * 20; ++repeat)
      absl::StrAppend(&text, " stable, afebrile; ", repeat);
    records.push_back(Chat(id, subject, {{"user", text}, {"assistant", i % 2 == 0 ? "" : "Yes."}}));
  }
  return records;
}

}  // namespace osler::testing
