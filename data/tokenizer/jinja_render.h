// Runs the tree of jinja_node.h. Internal to data/tokenizer/jinja_*.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/tokenizer/jinja.h"
#include "data/tokenizer/jinja_node.h"
#include "data/tokenizer/jinja_value.h"

namespace osler::jinja {

// One use. What it does is bounded: by steps, bytes, items and depth.
class Renderer {
 public:
  explicit Renderer(const Variables& variables);
  absl::StatusOr<Rendered> Run(const Body& body);

 private:
  using Scope = std::vector<std::pair<std::string, Value>>;
  enum class Jump { kNone, kBreak, kContinue };

  void Set(const std::string& name, Value value);
  Value Get(const std::string& name) const;
  static absl::Status Fail(const Node& node, std::string_view what);
  absl::Status Spend(const Node& node, size_t steps);

  absl::Status Write(const Node& node, const Text& text);
  absl::Status Execute(const Body& body);
  absl::Status ExecuteOne(const Node& node);
  absl::StatusOr<Text> Capture(const Body& body);
  absl::Status Assign(const Node& node, const Value& value);
  absl::Status SetMember(const Node& node);
  absl::Status Print(const Node& node);
  absl::Status If(const Node& node);
  absl::StatusOr<List> LoopItems(const Node& node);
  absl::Status For(const Node& node);

  absl::StatusOr<Value> Evaluate(const Node& node);
  absl::Status Account(const Node& node, const Value& made);
  absl::StatusOr<Value> Apply(const Node& node, List values) const;
  static std::optional<Value> MakeDict(const List& values);
  std::optional<Value> Item(const Value& object, const Value& key) const;
  absl::StatusOr<Value> Choose(const Node& node);
  absl::StatusOr<Value> Call(const Node& node, const List& values);
  absl::StatusOr<Value> CallMacro(const Node& node, const Node& macro, const List& values);
  absl::StatusOr<Text> RunMacro(const Node& macro);
  absl::StatusOr<Value> Raise(const Node& node) const;
  absl::StatusOr<Value> Now(const Node& node, const Value& format) const;
  absl::StatusOr<Value> Range(const Node& node, const List& values);

  const std::string date_;
  std::vector<Scope> scopes_;
  std::vector<Dict> namespaces_;
  Text out_;
  std::vector<std::pair<size_t, size_t>> generations_;
  Jump jump_ = Jump::kNone;
  int64_t message_ = 0;  // the one that is being written, for errors
  int64_t budget_ = 0;
  int calls_ = 0;
};

}  // namespace osler::jinja
