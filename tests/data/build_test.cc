// The pipeline behind `osler data build`: splits, policies, repeatability, and that earlier output
// survives failures.
#include "data/build.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "configs/config.h"
#include "data/shard.h"
#include "data/split.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Build : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    ASSERT_THAT(WriteFileDurably(*fs_, tmp_.File(name), text), IsOk());
  }
  std::string Chat(int i, const std::string& subject, const std::string& text) {
    return absl::StrCat(
        R"({"id":"visit-)", i, R"(","subject":")", subject,
        R"(","messages":[{"role":"user","content":")", text,
        R"("},{"role":"assistant","content":"Noted."}],"known":{"name":["Quentin Zebulon"]}})",
        "\n");
  }
  absl::StatusOr<BuildReport> Run(const std::string& source_options = "",
                                  const std::string& more = "", Fs* fs = nullptr,
                                  const std::string& format = "chat_jsonl") {
    const std::string yaml = absl::StrCat(
        "sources: [{name: visits, format: ", format, ", path: ", tmp_.File("in.jsonl"),
        source_options, "}]\noutput: {path: ", tmp_.File("shards"), ", shard_mb: 1}\n", more);
    auto config = ParseBuildConfig(yaml, "build.yaml", {});
    if (!config.ok()) return config.status();
    return BuildShards(fs != nullptr ? *fs : *fs_, *config, {"0.1.0", "", 2});
  }
  std::unique_ptr<ShardReader> Open(const std::string& split) {
    return ShardReader::Open(*fs_, tmp_.File("shards/" + split), ShardCheck::kFull).value();
  }
  // Every file below the output, by path.
  std::map<std::string, std::string> Files() {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(tmp_.path())) {
      if (entry.is_regular_file() && entry.path().string().find("shards") != std::string::npos) {
        files[entry.path().string()] = fs_->ReadFile(entry.path().string()).value();
      }
    }
    return files;
  }

  TempDir tmp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_F(Build, SubjectsAreHeldOutExactlyAndWhole) {
  std::string lines;
  for (int i = 0; i < 60; ++i)
    lines += Chat(i, absl::StrCat("patient-", i % 20), absl::StrCat("visit of bed ", i));
  Write("in.jsonl", lines);
  ASSERT_OK_AND_ASSIGN(const BuildReport report, Run("", "split: {validation: 0.15, seed: 3}\n"));
  EXPECT_EQ(report.validation.subjects, 3);
  EXPECT_EQ(report.train.subjects, 17);
  EXPECT_EQ(report.validation.records, 9);
  std::map<std::string, std::set<std::string>> subjects;
  for (const char* split : {"train", "validation"}) {
    const auto reader = Open(split);
    for (int64_t i = 0; i < reader->size(); ++i) subjects[split].insert(reader->Read(i)->subject());
  }
  EXPECT_EQ(subjects["train"].size(), 17);
  for (const std::string& subject : subjects["validation"])
    EXPECT_FALSE(subjects["train"].contains(subject));
}

TEST_F(Build, HeldOutSubjectsDependOnTheSetAndTheSeedOnly) {
  std::unordered_set<std::string> subjects, reversed;
  for (int i = 0; i < 100; ++i) subjects.insert(absl::StrCat("s", i));
  for (int i = 99; i >= 0; --i) reversed.insert(absl::StrCat("s", i));
  EXPECT_EQ(HeldOutSubjects(subjects, 0.25, 1), HeldOutSubjects(reversed, 0.25, 1));
  EXPECT_NE(HeldOutSubjects(subjects, 0.25, 1), HeldOutSubjects(subjects, 0.25, 2));
  EXPECT_EQ(HeldOutSubjects(subjects, 0.25, 1).size(), 25);
  EXPECT_EQ(HeldOutSubjects(subjects, 0.001, 1).size(), 1);
  EXPECT_EQ(HeldOutSubjects(subjects, 0.999, 1).size(), 99);
  EXPECT_TRUE(HeldOutSubjects({"only"}, 0.5, 1).empty());
  EXPECT_TRUE(HeldOutSubjects(subjects, 0, 1).empty());
}

TEST_F(Build, RebuildsToTheSameBits) {
  std::string lines;
  for (int i = 0; i < 700; ++i)
    lines += Chat(i, absl::StrCat("p", i % 30), absl::StrCat("Seen 3/", i % 28 + 1, "/2019."));
  Write("in.jsonl", lines);
  ASSERT_THAT(Run("", "split: {validation: 0.2}\n"), IsOk());
  const auto first = Files();
  ASSERT_THAT(Run("", "split: {validation: 0.2}\n"), IsOk());
  EXPECT_EQ(Files(), first);
  // Without a split the earlier validation is gone too.
  ASSERT_THAT(Run(), IsOk());
  EXPECT_FALSE(fs_->Exists(tmp_.File("shards/validation")));
}

TEST_F(Build, NothingPlantedSurvivesInAnyFile) {
  std::string lines;
  for (int i = 0; i < 50; ++i) {
    lines += Chat(i, absl::StrCat("PAT-77", 100 + i),
                  absl::StrCat("Quentin Zebulon (MRN 8812", 1000 + i,
                               ", quentin.zebulon@example.org, 617-555-0", 100 + i,
                               ") of 77 Zanzibar Street, seen 3/14/2019 as visit-", i, " of PAT-77",
                               100 + i));
  }
  Write("in.jsonl", lines);
  ASSERT_OK_AND_ASSIGN(const BuildReport report, Run("", "split: {validation: 0.2}\n"));
  EXPECT_EQ(report.identifiers.at("mrn"), 50);
  for (const auto& [path, bytes] : Files()) {
    for (const char* planted :
         {"uentin", "ebulon", "8812", "555-0", "anzibar", "3/14", "visit-", "PAT-77", "PAT"}) {
      EXPECT_EQ(bytes.find(planted), std::string::npos) << path << " holds " << planted;
    }
  }
  // Shards may be compressed: the same for the records as they are read.
  for (const char* split : {"train", "validation"}) {
    const auto reader = Open(split);
    for (int64_t i = 0; i < reader->size(); ++i) {
      const auto record = reader->Read(i);
      const std::string all = record->id() + record->subject() + record->body().messages[0].content;
      EXPECT_THAT(all,
                  AllOf(Not(HasSubstr("ebulon")), Not(HasSubstr("8812")), Not(HasSubstr("PAT-77")),
                        Not(HasSubstr("anzibar")), HasSubstr("[DATE 2019]")));
    }
  }
}

TEST_F(Build, BadRecordsStopOrAreCounted) {
  Write("in.jsonl", Chat(1, "a", "one"));
  ASSERT_THAT(Run(), IsOk());
  const auto before = Files();
  Write("in.jsonl", Chat(1, "a", "one") + "{\"id\":\"zanzibar\n" + Chat(3, "b", "three") +
                        "{\"id\":1,\"subject\":2}\n");
  EXPECT_THAT(Run(),
              Fails(ExitCode::kData, AllOf(HasSubstr("in.jsonl:2: "), HasSubstr("on_error: skip"),
                                           Not(HasSubstr("zanzibar")))));
  EXPECT_EQ(Files(), before);
  ASSERT_OK_AND_ASSIGN(const BuildReport report, Run(", on_error: skip"));
  const SourceReport& source = report.sources[0];
  EXPECT_EQ(source.records, 4);
  EXPECT_EQ(source.kept, 2);
  EXPECT_EQ(source.skipped.at("malformed").first_lines, std::vector<int64_t>{2});
  EXPECT_EQ(source.skipped.at("wrong_shape").first_lines, std::vector<int64_t>{4});
  const auto json =
      nlohmann::json::parse(fs_->ReadFile(tmp_.File("shards/train/report.json")).value());
  EXPECT_EQ(json["sources"][0]["skipped"]["malformed"]["records"], 1);
  EXPECT_EQ(json["splits"]["train"]["records"], 2);
}

TEST_F(Build, MappedRecordsFollowTheSamePolicies) {
  Write("in.jsonl", "who,q,a\nzoe,\"Zoe-77123\nhere?\",Yes\nadam,b\nzoe,c,\nbert,d,No\n");
  const std::string map =
      R"(, subject: "{who}-77123", prompt: "{q}", completion: "{a}", known: {id: [who]})";
  EXPECT_THAT(Run(map, "", nullptr, "csv"),
              Fails(ExitCode::kData, AllOf(HasSubstr("in.jsonl:4: the row has 2 cells"),
                                           HasSubstr("on_error: skip"))));
  ASSERT_OK_AND_ASSIGN(const BuildReport report,
                       Run(map + ", on_error: skip", "split: {validation: 0.5}\n", nullptr, "csv"));
  const SourceReport& source = report.sources[0];
  EXPECT_EQ(source.records, 4);
  EXPECT_EQ(source.kept, 2);
  EXPECT_EQ(source.skipped.at("wrong_shape").first_lines, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(report.train.subjects + report.validation.subjects, 2);
  std::string all;
  for (const char* split : {"train", "validation"})
    all += Open(split)->Read(0).value().body().messages[0].content + "|";
  EXPECT_THAT(all, AllOf(HasSubstr("[ID-1]\nhere?|"), Not(HasSubstr("77123"))));
  // What cannot be followed any further is never skipped.
  Write("in.jsonl", "who,q,a\nzoe,\"b,Yes\nadam,c,No\n");
  EXPECT_THAT(Run(map + ", on_error: skip", "", nullptr, "csv"),
              Fails(ExitCode::kData, HasSubstr("in.jsonl:2: a quote opens here")));
}

TEST_F(Build, RecordsWithoutTarget) {
  Write("in.jsonl",
        Chat(1, "a", "one") +
            R"({"id":"x","subject":"b","messages":[{"role":"user","content":"only asks"}]})" +
            "\n");
  EXPECT_THAT(Run(), Fails(ExitCode::kData, AllOf(HasSubstr("in.jsonl:2: record has no target"),
                                                  HasSubstr("no_target"))));
  ASSERT_OK_AND_ASSIGN(const BuildReport skipped, Run(", no_target: skip"));
  EXPECT_EQ(skipped.sources[0].skipped.at("no_target").count, 1);
  EXPECT_EQ(skipped.train.records, 1);
  ASSERT_OK_AND_ASSIGN(const BuildReport kept, Run(", no_target: keep"));
  EXPECT_EQ(kept.train.records, 2);
  // Position 0 has nothing before it that could predict it.
  Write("in.jsonl", R"({"id":"x","subject":"b","input_ids":[1,2],"labels":[1,-100]})"
                    "\n");
  EXPECT_THAT(Run(", trusted: true", "", nullptr, "tokens_jsonl"),
              Fails(ExitCode::kData, HasSubstr("in.jsonl:1: record has no target")));
}

TEST_F(Build, NothingToWriteIsAnError) {
  Write("in.jsonl", "");
  EXPECT_THAT(Run(), Fails(ExitCode::kData, HasSubstr("nothing to write")));
  Write("in.jsonl", "broken\n");
  EXPECT_THAT(Run(", on_error: skip"), Fails(ExitCode::kData, HasSubstr("nothing to write")));
  EXPECT_FALSE(fs_->Exists(tmp_.File("shards")));
}

TEST_F(Build, TrustedTokensAreVerbatimAndNamedInTheCertificate) {
  Write("in.jsonl", R"({"id":"r0","subject":"p0","input_ids":[0,5,0],"labels":[-100,5,0]})"
                    "\n");
  EXPECT_THAT(Run("", "", nullptr, "tokens_jsonl"), Fails(ExitCode::kConfig, HasSubstr("trusted")));
  ASSERT_THAT(Run(", trusted: true", "", nullptr, "tokens_jsonl"), IsOk());
  const auto reader = Open("train");
  ASSERT_OK_AND_ASSIGN(const CleanRecord record, reader->Read(0));
  EXPECT_EQ(record.id() + record.subject(), "r0p0");
  EXPECT_EQ(record.body().input_ids, (std::vector<int32_t>{0, 5, 0}));
  EXPECT_EQ(record.body().labels, (std::vector<int32_t>{-100, 5, 0}));
  EXPECT_EQ(reader->certificate().trusted_sources, std::vector<std::string>{"visits"});
}

TEST_F(Build, ForeignDirectoriesAreNotReplaced) {
  Write("in.jsonl", Chat(1, "a", "one"));
  ASSERT_THAT(fs_->MakeDirectories(tmp_.File("shards/train")), IsOk());
  Write("shards/train/thesis.tex", "years of work");
  EXPECT_THAT(Run(),
              Fails(ExitCode::kConfig, AllOf(HasSubstr("shards/train"), HasSubstr("thesis.tex"))));
  ASSERT_THAT(fs_->RemoveTree(tmp_.File("shards")), IsOk());
  Write("shards", "a file");
  EXPECT_THAT(Run(), Fails(ExitCode::kConfig, HasSubstr("no directory")));
}

TEST_F(Build, EarlierOutputSurvivesEveryWriteFault) {
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += Chat(i, absl::StrCat("p", i % 8), "stable");
  Write("in.jsonl", lines);
  ASSERT_THAT(Run("", "split: {validation: 0.3}\n"), IsOk());
  const auto before = Files();
  Write("in.jsonl", lines + Chat(99, "new", "other"));
  int failed = 0;
  for (const char* operation : {"write", "sync", "rename"}) {
    for (int n = 1; n <= 12; ++n) {
      auto faulty = MakeFaultFs(*fs_, absl::StrCat(operation, ":shards@", n, "=ENOSPC")).value();
      const auto report = Run("", "split: {validation: 0.3}\n", faulty.get());
      if (report.ok()) {
        Write("in.jsonl", lines);
        ASSERT_THAT(Run("", "split: {validation: 0.3}\n"), IsOk());
        ASSERT_EQ(Files(), before);
        Write("in.jsonl", lines + Chat(99, "new", "other"));
        continue;
      }
      ++failed;
      EXPECT_EQ(ExitCodeOf(report.status()), ExitCode::kData) << report.status();
      ASSERT_EQ(Files(), before) << operation << " " << n;
    }
  }
  EXPECT_GT(failed, 10);
}

TEST_F(Build, WhatAKilledBuildPutAsideComesBack) {
  Write("in.jsonl", Chat(1, "a", "one"));
  ASSERT_THAT(Run(), IsOk());
  const auto before = Files();
  ASSERT_THAT(fs_->MakeDirectories(tmp_.File("shards/.building")), IsOk());
  ASSERT_THAT(fs_->Rename(tmp_.File("shards/train"), tmp_.File("shards/.building/old-train")),
              IsOk());
  Write("in.jsonl", "broken\n");
  EXPECT_FALSE(Run().ok());
  EXPECT_EQ(Files(), before);
}

}  // namespace
}  // namespace osler::testing
