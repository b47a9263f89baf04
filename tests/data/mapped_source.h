// Sources with a field map, opened as a build would: from a line of YAML and the content of a file.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/fs.h"
#include "configs/config.h"
#include "data/sources/reject.h"
#include "data/sources/source.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler::testing {

class MappedSource : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    ASSERT_THAT(WriteFileDurably(*fs_, tmp_.File(name), text), IsOk());
  }
  // The source "s" with these settings; `settings` may name another path.
  absl::StatusOr<std::unique_ptr<Source>> Open(const std::string& settings) {
    std::string path;
    if (settings.find("path:") == std::string::npos)
      path = absl::StrCat(", path: ", tmp_.File("in"));
    const std::string yaml =
        absl::StrCat("sources: [{name: s, ", settings, path, "}]\noutput: {path: nowhere}\n");
    auto config = ParseBuildConfig(yaml, "build.yaml", {});
    if (!config.ok()) return config.status();
    return OpenSource(*fs_, config->sources(0));
  }
  absl::StatusOr<std::unique_ptr<Source>> Open(const std::string& settings,
                                               const std::string& content) {
    Write("in", content);
    return Open(settings);
  }

  // What a whole source says: "ID|SUBJECT|role:content|…" or "error: …" for each record, in order.
  // Stops behind an error that no policy could skip, and marks it with "end ".
  std::vector<std::string> All(const std::string& settings, const std::string& content) {
    auto source = Open(settings, content);
    if (!source.ok()) return {absl::StrCat("open: ", source.status().message())};
    std::vector<std::string> said;
    while (true) {
      const auto next = (*source)->Next();
      if (!next.ok()) {
        EXPECT_EQ(ExitCodeOf(next.status()), ExitCode::kData);
        const bool skippable = !RejectReason(next.status()).empty();
        said.push_back(absl::StrCat(skippable ? "" : "end ", "error: ", next.status().message()));
        const std::string directory = tmp_.path() + "/";
        for (size_t at; (at = said.back().find(directory)) != std::string::npos;)
          said.back().erase(at, directory.size());
        if (!skippable) return said;
        continue;
      }
      if (!next->has_value()) {
        EXPECT_EQ((*source)->position(), (*source)->size());
        return said;
      }
      said.push_back(Shown(**next));
    }
  }

  static std::string Shown(const RawRecord& record) {
    std::string shown = absl::StrCat(record.id, "|", record.subject);
    for (const Message& message : record.body.messages)
      absl::StrAppend(&shown, "|", message.role, ":", message.content);
    if (!record.body.text.empty()) absl::StrAppend(&shown, "|text:", record.body.text);
    for (const std::string& name : record.known.names) absl::StrAppend(&shown, "|name:", name);
    for (const auto& [kind, value] : record.known.others)
      absl::StrAppend(&shown, "|", kind, ":", value);
    return shown;
  }

  TempDir tmp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

}  // namespace osler::testing
