#include <optional>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja.h"
#include "data/tokenizer/jinja_parser.h"
#include "data/tokenizer/jinja_value.h"
#include "data/tokenizer/unicode.h"

namespace osler::jinja {
namespace {

constexpr int64_t kMaxSteps =
    500'000'000;  // a template of nested loops over a long chat ends with an error
constexpr size_t kMaxBytes = size_t{1} << 30;

class Renderer {
 public:
  explicit Renderer(const Variables& variables) : scopes_(1) {
    std::vector<Value> all;
    for (size_t i = 0; i < variables.messages->size(); ++i) {
      const Message& message = (*variables.messages)[i];
      const int64_t index = static_cast<int64_t>(i);
      roles_.push_back(Value::String({message.role, {}}));
      contents_.push_back(Value::String({message.content, {{0, message.content.size(), index}}}));
      all.push_back(Value::OfMessage(index));
    }
    Set("messages", Value::List(std::move(all)));
    Set("add_generation_prompt", Value::Bool(variables.add_generation_prompt));
    for (const auto& [name, text] : variables.strings) Set(name, Value::String({text, {}}));
  }

  absl::StatusOr<Text> Run(const Body& body) {
    OSLER_RETURN_IF_ERROR(Execute(body));
    return std::move(out_);
  }

 private:
  using Scope = std::vector<std::pair<std::string, Value>>;

  void Set(const std::string& name, Value value) {
    for (auto& [known, old] : scopes_.back()) {
      if (known == name) {
        old = std::move(value);
        return;
      }
    }
    scopes_.back().emplace_back(name, std::move(value));
  }

  Value Get(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      for (const auto& [known, value] : *scope) {
        if (known == name) return value;
      }
    }
    return Value();
  }

  static absl::Status Fail(const Node& node, std::string_view what) {
    return SyntaxError(node.line, what);
  }

  absl::Status Count(const Node& node) {
    return ++steps_ > kMaxSteps ? Fail(node, "the template takes too long") : absl::OkStatus();
  }

  absl::Status Write(const Node& node, const Text& text) {
    if (out_.bytes.size() + text.bytes.size() > kMaxBytes)
      return Fail(node, "the chat is longer than 1 GiB");
    out_.Append(text);
    return absl::OkStatus();
  }

  absl::Status Execute(const Body& body) {
    for (const NodePtr& node : body) {
      OSLER_RETURN_IF_ERROR(Count(*node));
      switch (node->op) {
        case Op::kData: OSLER_RETURN_IF_ERROR(Write(*node, {node->text, {}})); break;
        case Op::kPrint: OSLER_RETURN_IF_ERROR(Print(*node)); break;
        case Op::kIf: OSLER_RETURN_IF_ERROR(If(*node)); break;
        case Op::kFor: OSLER_RETURN_IF_ERROR(For(*node)); break;
        default: {
          OSLER_ASSIGN_OR_RETURN(Value value, Evaluate(*node->children[0]));
          Set(node->text, std::move(value));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status Print(const Node& node) {
    OSLER_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
    const auto text = value.Printed();
    if (!text.has_value()) return Fail(node, "prints something that is not text");
    return Write(node, *text);
  }

  absl::Status If(const Node& node) {
    for (const Node::Branch& branch : node.branches) {
      if (branch.condition != nullptr) {
        OSLER_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
        if (!condition.IsTrue()) continue;
      }
      return Execute(branch.body);
    }
    return absl::OkStatus();
  }

  absl::Status For(const Node& node) {
    OSLER_ASSIGN_OR_RETURN(const Value sequence, Evaluate(*node.children[0]));
    if (sequence.kind == Kind::kUndefined) return absl::OkStatus();
    if (sequence.kind != Kind::kList) return Fail(node, "a loop over something that is not a list");
    std::vector<Value> items;
    scopes_.emplace_back();
    for (const Value& item : *sequence.list) {
      if (node.children[1] != nullptr) {
        Set(node.text, item);
        OSLER_ASSIGN_OR_RETURN(const Value keep, Evaluate(*node.children[1]));
        if (!keep.IsTrue()) continue;
      }
      items.push_back(item);
    }
    const int64_t size = static_cast<int64_t>(items.size()), outer = message_;
    for (int64_t i = 0; i < size; ++i) {
      const Value& item = items[static_cast<size_t>(i)];
      if (item.kind == Kind::kMessage) message_ = item.integer;
      scopes_.back().clear();
      Set(node.text, item);
      Set("loop", Value::Loop(i, size));
      OSLER_RETURN_IF_ERROR(Execute(node.body));
    }
    message_ = outer;
    scopes_.pop_back();
    return absl::OkStatus();
  }

  absl::StatusOr<Value> Evaluate(const Node& node) {
    OSLER_RETURN_IF_ERROR(Count(node));
    switch (node.op) {
      case Op::kString: return Value::String({node.text, {}});
      case Op::kInteger: return Value::Integer(node.integer);
      case Op::kBool: return Value::Bool(node.integer != 0);
      case Op::kNone: return Value::None();
      case Op::kName: return Get(node.text);
      case Op::kList: return MakeList(node);
      case Op::kRaise: return Raise(node);
      case Op::kConditional:
      case Op::kOr:
      case Op::kAnd: return Choose(node);
      default: break;
    }
    std::vector<Value> values;
    for (const NodePtr& child : node.children) {
      if (child == nullptr) {
        values.emplace_back();
        continue;
      }
      OSLER_ASSIGN_OR_RETURN(Value value, Evaluate(*child));
      values.push_back(std::move(value));
    }
    return Apply(node, values);
  }

  absl::StatusOr<Value> Apply(const Node& node, const std::vector<Value>& values) const {
    std::optional<Value> made;
    switch (node.op) {
      case Op::kItem: made = Item(values[0], values[1]); break;
      case Op::kSlice:
        made = values[0].Slice(node.children[1] ? &values[1] : nullptr,
                               node.children[2] ? &values[2] : nullptr);
        break;
      case Op::kStrip: made = Strip(node, values[0]); break;
      case Op::kLength: made = values[0].Length(); break;
      case Op::kTest: made = Value::Bool(values[0].Is(node.text) != (node.integer != 0)); break;
      case Op::kNot: made = Value::Bool(!values[0].IsTrue()); break;
      case Op::kCompare: made = Compare(node.text, values[0], values[1]); break;
      case Op::kBinary: made = Combine(node.text, values[0], values[1]); break;
      case Op::kNegate: made = Combine("-", Value::Integer(0), values[0]); break;
      default: break;
    }
    if (!made.has_value()) return Fail(node, "an operation on values that it does not take");
    if (made->kind == Kind::kString && made->text->bytes.size() > kMaxBytes) {
      return Fail(node, "the chat is longer than 1 GiB");
    }
    return *std::move(made);
  }

  // The filter takes str(value), the method only a string.
  static std::optional<Value> Strip(const Node& node, const Value& value) {
    const std::optional<Text> text = value.Printed();
    if (!text.has_value() || (node.text == "method" && value.kind != Kind::kString))
      return std::nullopt;
    return Value::String(*text).Strip((node.integer & 1) != 0, (node.integer & 2) != 0);
  }

  absl::StatusOr<Value> MakeList(const Node& node) {
    std::vector<Value> items;
    for (const NodePtr& child : node.children) {
      OSLER_ASSIGN_OR_RETURN(Value item, Evaluate(*child));
      items.push_back(std::move(item));
    }
    return Value::List(std::move(items));
  }

  absl::StatusOr<Value> Choose(const Node& node) {
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

  // Only a constant reason is repeated: a computed one may hold record text.
  absl::StatusOr<Value> Raise(const Node& node) const {
    const Node& reason = *node.children[0];
    return DataError(absl::StrCat("message ", message_ + 1, ": the chat template refuses it",
                                  reason.op == Op::kString ? ": " : "",
                                  reason.op == Op::kString ? reason.text : ""));
  }

  std::optional<Value> Item(const Value& object, const Value& key) const {
    if (object.kind == Kind::kMessage && key.kind == Kind::kString) {
      const size_t index = static_cast<size_t>(object.integer);
      if (key.text->bytes == "role") return roles_[index];
      if (key.text->bytes == "content") return contents_[index];
      return Value();
    }
    return object.Item(key);
  }

  std::vector<Value> roles_, contents_;
  std::vector<Scope> scopes_;
  Text out_;
  int64_t message_ = 0;  // the one that is being written, for errors
  int64_t steps_ = 0;
};

}  // namespace

void Text::Append(const Text& other) {
  const size_t shift = bytes.size();
  bytes += other.bytes;
  for (const Span& span : other.spans)
    spans.push_back({span.begin + shift, span.end + shift, span.message});
}

Template::Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(std::string_view source,
                                         const std::vector<std::string>& variables) {
  if (!IsUtf8(source)) return ConfigError("not UTF-8");
  OSLER_ASSIGN_OR_RETURN(std::vector<LexToken> tokens, Tokenize(source));
  std::vector<std::string> names = variables;
  names.insert(names.end(), {"messages", "add_generation_prompt"});
  Parser parser(std::move(tokens), names);
  Template made;
  OSLER_ASSIGN_OR_RETURN(made.body_, parser.Run());
  for (const std::string& name : variables) {
    if (parser.reads().count(name) != 0) made.reads_.push_back(name);
  }
  return made;
}

absl::StatusOr<Text> Template::Render(const Variables& variables) const {
  return Renderer(variables).Run(body_);
}

}  // namespace osler::jinja
