#include "data/tokenizer/jinja_render.h"

#include <optional>

#include "base/status_macros.h"

namespace osler::jinja {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 30;
// What a template may do, so that nested loops end with an error: steps, and more for long chats.
constexpr int64_t kSteps = 10'000'000, kStepsPerMessage = 10'000;
constexpr size_t kBytesPerStep = 16;

}  // namespace

Renderer::Renderer(const Variables& variables) : date_(variables.date), scopes_(1) {
  List all;
  budget_ = kSteps + kStepsPerMessage * static_cast<int64_t>(variables.messages->size());
  for (const Message& message : *variables.messages) {
    const int64_t index = static_cast<int64_t>(all.size());
    Text content{message.content, {{0, message.content.size(), index, 0}}};
    budget_ += static_cast<int64_t>(message.content.size());
    all.push_back(Value::OfMessage(index, Value::String({message.role, {}}),
                                   Value::String(std::move(content))));
  }
  if (auto list = Value::ListOf(std::move(all)); list.has_value())
    Set("messages", *std::move(list));
  Set("add_generation_prompt", Value::Bool(variables.add_generation_prompt));
  for (const char* name : {"tools", "documents"}) Set(name, Value::None());
  Set("raise_exception", Value::Function(nullptr));
  if (!date_.empty()) Set("strftime_now", Value::Function(nullptr));
  for (const auto& [name, text] : variables.strings) Set(name, Value::String({text, {}}));
}

absl::StatusOr<Rendered> Renderer::Run(const Body& body) {
  OSLER_RETURN_IF_ERROR(Execute(body));
  return Rendered{std::move(out_), std::move(generations_)};
}

void Renderer::Set(const std::string& name, Value value) {
  for (auto& [known, old] : scopes_.back()) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  scopes_.back().emplace_back(name, std::move(value));
}

Value Renderer::Get(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    for (const auto& [known, value] : *scope) {
      if (known == name) return value;
    }
  }
  return Value();
}

absl::Status Renderer::Fail(const Node& node, std::string_view what) {
  return SyntaxError(node.line, what);
}

absl::Status Renderer::Spend(const Node& node, size_t steps) {
  budget_ -= static_cast<int64_t>(steps);
  return budget_ < 0 ? Fail(node, "the template takes too long") : absl::OkStatus();
}

absl::Status Renderer::Write(const Node& node, const Text& text) {
  if (out_.bytes.size() + text.bytes.size() > kMaxBytes)
    return Fail(node, "the chat is longer than 1 GiB");
  OSLER_RETURN_IF_ERROR(Spend(node, text.bytes.size() / kBytesPerStep));
  out_.Append(text);
  return absl::OkStatus();
}

absl::Status Renderer::Execute(const Body& body) {
  for (const NodePtr& node : body) {
    OSLER_RETURN_IF_ERROR(Spend(*node, 1));
    OSLER_RETURN_IF_ERROR(ExecuteOne(*node));
    if (jump_ != Jump::kNone) break;
  }
  return absl::OkStatus();
}

absl::Status Renderer::ExecuteOne(const Node& node) {
  switch (node.op) {
    case Op::kData: return Write(node, {node.text, {}});
    case Op::kPrint: return Print(node);
    case Op::kIf: return If(node);
    case Op::kFor: return For(node);
    case Op::kSetBlock: {
      OSLER_ASSIGN_OR_RETURN(Text text, Capture(node.body));
      Set(node.names[0], Value::String(std::move(text)));
      return absl::OkStatus();
    }
    case Op::kSetMember: return SetMember(node);
    case Op::kMacro: Set(node.text, Value::Function(&node)); return absl::OkStatus();
    case Op::kGeneration: {
      const size_t begin = out_.bytes.size();
      OSLER_RETURN_IF_ERROR(Execute(node.body));
      generations_.emplace_back(begin, out_.bytes.size());
      return absl::OkStatus();
    }
    case Op::kBreak: jump_ = Jump::kBreak; return absl::OkStatus();
    case Op::kContinue: jump_ = Jump::kContinue; return absl::OkStatus();
    default: break;
  }
  OSLER_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
  return Assign(node, value);
}

// What `body` writes, in a scope of its own.
absl::StatusOr<Text> Renderer::Capture(const Body& body) {
  Text outer = std::move(out_);
  out_ = {};
  scopes_.emplace_back();
  const absl::Status status = Execute(body);
  scopes_.pop_back();
  std::swap(outer, out_);
  OSLER_RETURN_IF_ERROR(status);
  return outer;
}

absl::Status Renderer::Assign(const Node& node, const Value& value) {
  if (node.names.size() == 1) {
    Set(node.names[0], value);
    return absl::OkStatus();
  }
  const auto items = value.Items();
  if (!items.has_value() || items->size() != node.names.size()) {
    return Fail(node, "several variables from a value that has not as many items");
  }
  for (size_t i = 0; i < items->size(); ++i) Set(node.names[i], (*items)[i]);
  return absl::OkStatus();
}

absl::Status Renderer::SetMember(const Node& node) {
  OSLER_ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[0]));
  const Value object = Get(node.text);
  if (object.kind != Kind::kNamespace) return Fail(node, "sets a member of what is no namespace");
  Dict& members = namespaces_[static_cast<size_t>(object.integer)];
  for (auto& [name, old] : members) {
    if (name != node.names[0]) continue;
    old = std::move(value);
    return absl::OkStatus();
  }
  members.emplace_back(node.names[0], std::move(value));
  return absl::OkStatus();
}

absl::Status Renderer::Print(const Node& node) {
  OSLER_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
  const auto text = value.Printed();
  if (!text.has_value()) return Fail(node, "prints something that is not text");
  return Write(node, *text);
}

absl::Status Renderer::If(const Node& node) {
  for (const Node::Branch& branch : node.branches) {
    if (branch.condition != nullptr) {
      OSLER_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      if (!condition.IsTrue()) continue;
    }
    return Execute(branch.body);
  }
  return absl::OkStatus();
}

absl::StatusOr<List> Renderer::LoopItems(const Node& node) {
  OSLER_ASSIGN_OR_RETURN(const Value sequence, Evaluate(*node.children[0]));
  auto all = sequence.Items();
  if (!all.has_value()) return Fail(node, "a loop over something that has no items");
  OSLER_RETURN_IF_ERROR(Spend(node, all->size()));
  if (node.children[1] == nullptr) return *std::move(all);
  List items;
  for (Value& item : *all) {
    scopes_.emplace_back();
    absl::Status status = Assign(node, item);
    absl::StatusOr<Value> keep = Value();
    if (status.ok()) keep = Evaluate(*node.children[1]);
    scopes_.pop_back();
    OSLER_RETURN_IF_ERROR(status);
    OSLER_RETURN_IF_ERROR(keep.status());
    if (keep->IsTrue()) items.push_back(std::move(item));
  }
  return items;
}

absl::Status Renderer::For(const Node& node) {
  OSLER_ASSIGN_OR_RETURN(List list, LoopItems(node));
  if (list.empty()) {
    return node.branches.empty() ? absl::OkStatus() : Execute(node.branches[0].body);
  }
  const auto items = std::make_shared<const List>(std::move(list));
  const int64_t outer = message_;
  scopes_.emplace_back();
  for (size_t i = 0; i < items->size() && jump_ != Jump::kBreak; ++i) {
    const Value& item = (*items)[i];
    if (item.message >= 0) message_ = item.message;
    jump_ = Jump::kNone;
    scopes_.back().clear();
    OSLER_RETURN_IF_ERROR(Assign(node, item));
    Set("loop", Value::Loop(static_cast<int64_t>(i), items));
    OSLER_RETURN_IF_ERROR(Execute(node.body));
  }
  jump_ = Jump::kNone;
  message_ = outer;
  scopes_.pop_back();
  return absl::OkStatus();
}

absl::StatusOr<Value> Renderer::Evaluate(const Node& node) {
  OSLER_RETURN_IF_ERROR(Spend(node, 1));
  switch (node.op) {
    case Op::kString: return Value::String({node.text, {}});
    case Op::kInteger: return Value::Integer(node.integer);
    case Op::kBool: return Value::Bool(node.integer != 0);
    case Op::kNone: return Value::None();
    case Op::kName: return Get(node.text);
    case Op::kConditional:
    case Op::kOr:
    case Op::kAnd: return Choose(node);
    default: break;
  }
  List values;
  for (const NodePtr& child : node.children) {
    if (child == nullptr) {
      values.emplace_back();
      continue;
    }
    OSLER_ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    values.push_back(std::move(value));
  }
  if (node.op == Op::kCall) return Call(node, values);
  OSLER_ASSIGN_OR_RETURN(Value made, Apply(node, std::move(values)));
  OSLER_RETURN_IF_ERROR(Account(node, made));
  return made;
}

// Large values cost what making them costs.
absl::Status Renderer::Account(const Node& node, const Value& made) {
  if (made.kind == Kind::kString) {
    if (made.text->bytes.size() > kMaxBytes) return Fail(node, "the chat is longer than 1 GiB");
    return Spend(node, made.text->bytes.size() / kBytesPerStep);
  }
  return made.kind == Kind::kList ? Spend(node, made.list->size()) : absl::OkStatus();
}

absl::StatusOr<Value> Renderer::Apply(const Node& node, List values) const {
  std::optional<Value> made;
  const List arguments(values.begin() + (values.empty() ? 0 : 1), values.end());
  switch (node.op) {
    case Op::kList: made = Value::ListOf(std::move(values)); break;
    case Op::kDict: made = MakeDict(values); break;
    case Op::kItem: made = Item(values[0], values[1]); break;
    case Op::kSlice: made = values[0].Slice(&values[1], &values[2], &values[3]); break;
    case Op::kFilter: made = CallFilter(node.builtin, values[0], arguments); break;
    case Op::kMethod: made = CallMethod(node.builtin, values[0], arguments); break;
    case Op::kTest: made = Value::Bool(values[0].Is(node.text) != (node.integer != 0)); break;
    case Op::kNot: made = Value::Bool(!values[0].IsTrue()); break;
    case Op::kCompare: made = Compare(node.text, values[0], values[1]); break;
    case Op::kBinary: made = Combine(node.text, values[0], values[1]); break;
    case Op::kNegate: made = Combine("-", Value::Integer(0), values[0]); break;
    default: break;
  }
  if (!made.has_value()) return Fail(node, "an operation on values that it does not take");
  return *std::move(made);
}

std::optional<Value> Renderer::MakeDict(const List& values) {
  Dict items;
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    if (!values[i].IsString()) return std::nullopt;
    const std::string& key = values[i].text->bytes;
    for (const auto& [known, unused] : items) {
      if (known == key) return std::nullopt;
    }
    items.emplace_back(key, values[i + 1]);
  }
  return Value::DictOf(std::move(items));
}

std::optional<Value> Renderer::Item(const Value& object, const Value& key) const {
  if (object.kind != Kind::kNamespace) return object.Item(key);
  if (!key.IsString()) return std::nullopt;
  for (const auto& [name, value] : namespaces_[static_cast<size_t>(object.integer)]) {
    if (name == key.text->bytes) return value;
  }
  return Value();
}

absl::StatusOr<Value> Renderer::Choose(const Node& node) {
  if (node.op == Op::kConditional) {
    OSLER_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.children[1]));
    if (condition.IsTrue()) return Evaluate(*node.children[0]);
    if (node.children[2] == nullptr) return Value();
    return Evaluate(*node.children[2]);
  }
  OSLER_ASSIGN_OR_RETURN(Value left, Evaluate(*node.children[0]));
  if (left.IsTrue() == (node.op == Op::kOr)) return left;
  return Evaluate(*node.children[1]);
}

}  // namespace osler::jinja
