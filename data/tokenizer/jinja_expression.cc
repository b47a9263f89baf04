#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_parser.h"

namespace osler::jinja {
namespace {

constexpr int kMaxDepth = 100;

template <size_t n>
bool IsAmong(const std::array<std::string_view, n>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

constexpr std::array<std::string_view, 12> kTests = {"defined",  "undefined", "none",     "string",
                                                     "iterable", "mapping",   "sequence", "true",
                                                     "false",    "boolean",   "integer",  "number"};
constexpr std::array<std::string_view, 9> kLoopMembers = {
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"};
// Names that Jinja gives a meaning of its own.
constexpr std::array<std::string_view, 9> kReserved = {
    "dict", "lipsum", "cycler", "joiner", "range", "namespace", "self", "caller", "varargs"};
// What a dot finds on Python's strings, lists and dicts before it looks for an item.
constexpr std::array<std::string_view, 20> kAttributes = {
    "items",  "keys",       "values",  "get",      "copy",    "pop",   "update",
    "clear",  "setdefault", "popitem", "fromkeys", "count",   "index", "title",
    "format", "join",       "strip",   "split",    "replace", "append"};

NodePtr Wrap(NodePtr node, NodePtr child) {
  node->children.push_back(std::move(child));
  return node;
}

}  // namespace

absl::StatusOr<NodePtr> Parser::ParseExpression() {
  if (++depth_ > kMaxDepth) return SyntaxError(peek().line, "nested too deeply");
  OSLER_ASSIGN_OR_RETURN(NodePtr node, ParseOr());
  while (TakeWord("if")) {
    NodePtr conditional = Wrap(Make(Op::kConditional), std::move(node));
    OSLER_ASSIGN_OR_RETURN(NodePtr condition, ParseOr());
    conditional->children.push_back(std::move(condition));
    conditional->children.push_back(nullptr);
    if (TakeWord("else")) {
      OSLER_ASSIGN_OR_RETURN(conditional->children[2], ParseExpression());
    }
    node = std::move(conditional);
  }
  --depth_;
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseOr() {
  OSLER_ASSIGN_OR_RETURN(NodePtr left, ParseAnd());
  while (TakeWord("or")) {
    left = Wrap(Make(Op::kOr), std::move(left));
    OSLER_ASSIGN_OR_RETURN(NodePtr right, ParseAnd());
    left->children.push_back(std::move(right));
  }
  return left;
}

absl::StatusOr<NodePtr> Parser::ParseAnd() {
  OSLER_ASSIGN_OR_RETURN(NodePtr left, ParseNot());
  while (TakeWord("and")) {
    left = Wrap(Make(Op::kAnd), std::move(left));
    OSLER_ASSIGN_OR_RETURN(NodePtr right, ParseNot());
    left->children.push_back(std::move(right));
  }
  return left;
}

absl::StatusOr<NodePtr> Parser::ParseNot() {
  if (!TakeWord("not")) return ParseCompare();
  if (++depth_ > kMaxDepth) return SyntaxError(peek().line, "nested too deeply");
  NodePtr node = Make(Op::kNot);
  OSLER_ASSIGN_OR_RETURN(NodePtr child, ParseNot());
  --depth_;
  return Wrap(std::move(node), std::move(child));
}

absl::StatusOr<NodePtr> Parser::ParseCompare() {
  static constexpr std::array<std::string_view, 6> kSymbols = {"==", "!=", "<", "<=", ">", ">="};
  OSLER_ASSIGN_OR_RETURN(NodePtr left, ParseBinary(0));
  for (int count = 0;; ++count) {
    std::string name;
    if (peek().kind == Lex::kSymbol && IsAmong(kSymbols, peek().text)) {
      name = peek().text;
    } else if (IsNext(Lex::kName, "in")) {
      name = "in";
    } else if (IsNext(Lex::kName, "not") && peek(1).kind == Lex::kName && peek(1).text == "in") {
      name = "not in";
      ++at_;
    } else {
      return left;
    }
    if (count > 0)
      return SyntaxError(peek().line, "chained comparisons are not supported by this build");
    NodePtr node = Wrap(Make(Op::kCompare, name), std::move(left));
    ++at_;
    OSLER_ASSIGN_OR_RETURN(NodePtr right, ParseBinary(0));
    left = Wrap(std::move(node), std::move(right));
  }
}

// Level 0: + and −; 1: ~; 2: *, //, %.
absl::StatusOr<NodePtr> Parser::ParseBinary(int level) {
  static constexpr std::array<std::string_view, 3> kOperators = {"+-", "~", "*//%"};
  if (level == 3) return ParseUnary(/*with_filter=*/true);
  OSLER_ASSIGN_OR_RETURN(NodePtr left, ParseBinary(level + 1));
  while (peek().kind == Lex::kSymbol && peek().text != "/" &&
         kOperators[static_cast<size_t>(level)].find(peek().text) != std::string_view::npos) {
    NodePtr node = Wrap(Make(Op::kBinary, peek().text), std::move(left));
    ++at_;
    OSLER_ASSIGN_OR_RETURN(NodePtr right, ParseBinary(level + 1));
    left = Wrap(std::move(node), std::move(right));
  }
  return left;
}

absl::StatusOr<NodePtr> Parser::ParseUnary(bool with_filter) {
  NodePtr node;
  if (TakeSymbol("-")) {
    if (++depth_ > kMaxDepth) return SyntaxError(peek().line, "nested too deeply");
    OSLER_ASSIGN_OR_RETURN(NodePtr child, ParseUnary(/*with_filter=*/false));
    node = Wrap(Make(Op::kNegate), std::move(child));
    --depth_;
  } else {
    OSLER_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  OSLER_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  while (with_filter) {
    if (TakeSymbol("|")) {
      OSLER_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (TakeWord("is")) {
      OSLER_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else {
      break;
    }
  }
  return node;
}

absl::StatusOr<NodePtr> Parser::ParsePrimary() {
  if (peek().kind == Lex::kName) return ParseName();
  if (peek().kind == Lex::kString) {
    NodePtr node = Make(Op::kString);
    while (peek().kind == Lex::kString) node->text += tokens_[at_++].text;
    return node;
  }
  if (peek().kind == Lex::kInteger) {
    NodePtr node = Make(Op::kInteger);
    node->integer = std::stoll(tokens_[at_++].text);  // at most nine digits, says the lexer
    return node;
  }
  if (TakeSymbol("(")) return ParseParenthesis();
  if (TakeSymbol("[")) return ParseList();
  if (TakeSymbol("{")) return ParseDict();
  return Unexpected("an expression");
}

absl::StatusOr<NodePtr> Parser::ParseList() {
  NodePtr node = Make(Op::kList);
  while (!TakeSymbol("]")) {
    OSLER_ASSIGN_OR_RETURN(NodePtr item, ParseExpression());
    node->children.push_back(std::move(item));
    if (!IsNext(Lex::kSymbol, "]")) OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ",", "]"));
  }
  return node;
}

// One expression, or a tuple, which is a list here.
absl::StatusOr<NodePtr> Parser::ParseParenthesis() {
  OSLER_ASSIGN_OR_RETURN(NodePtr first, ParseExpression());
  if (TakeSymbol(")")) return first;
  NodePtr node = Wrap(Make(Op::kList), std::move(first));
  while (!TakeSymbol(")")) {
    OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ",", ")"));
    if (TakeSymbol(")")) break;
    OSLER_ASSIGN_OR_RETURN(NodePtr item, ParseExpression());
    node->children.push_back(std::move(item));
  }
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseDict() {
  NodePtr node = Make(Op::kDict);
  while (!TakeSymbol("}")) {
    for (const bool is_key : {true, false}) {
      OSLER_ASSIGN_OR_RETURN(NodePtr item, ParseExpression());
      node->children.push_back(std::move(item));
      if (is_key) OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ":", ":"));
    }
    if (!IsNext(Lex::kSymbol, "}")) OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ",", "}"));
  }
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseName() {
  const std::string name = peek().text;
  NodePtr node = Make(Op::kName, name);
  ++at_;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->op = Op::kBool;
    node->integer = name == "true" || name == "True";
    return node;
  }
  if (name == "none" || name == "None") {
    node->op = Op::kNone;
    return node;
  }
  if (TakeSymbol("(")) return ParseCall(name);
  if (IsAmong(kReserved, name)) {
    return SyntaxError(node->line, absl::StrCat("it uses \"", name, "\" without calling it"));
  }
  if (variables_.count(name) != 0) reads_.insert(name);
  return node;
}

absl::Status Parser::CheckLoopMember(const Node& object, const Node& key) const {
  if (object.op != Op::kName || object.text != "loop" || loops_ == 0) return absl::OkStatus();
  if (key.op == Op::kString && IsAmong(kLoopMembers, key.text)) return absl::OkStatus();
  return SyntaxError(key.line, absl::StrCat("unknown member of loop: \"", key.text, "\""));
}

absl::StatusOr<NodePtr> Parser::ParsePostfix(NodePtr node) {
  while (true) {
    if (TakeSymbol(".")) {
      OSLER_ASSIGN_OR_RETURN(node, ParseMember(std::move(node)));
    } else if (TakeSymbol("[")) {
      OSLER_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (IsNext(Lex::kSymbol, "(")) {
      return SyntaxError(peek().line, "a call of something that is not a name");
    } else {
      return node;
    }
  }
}

absl::StatusOr<NodePtr> Parser::ParseMember(NodePtr object) {
  if (peek().kind != Lex::kName) return Unexpected("the name of a member");
  NodePtr key = Make(Op::kString, peek().text);
  ++at_;
  if (TakeSymbol("(")) return ParseMethod(std::move(object), key->text);
  OSLER_RETURN_IF_ERROR(CheckLoopMember(*object, *key));
  const bool is_loop = object->op == Op::kName && object->text == "loop";
  if (!is_loop && IsAmong(kAttributes, key->text)) {
    return SyntaxError(key->line, absl::StrCat("the method \"", key->text, "\" is not called"));
  }
  NodePtr node = Wrap(Make(Op::kItem), std::move(object));
  return Wrap(std::move(node), std::move(key));
}

absl::StatusOr<NodePtr> Parser::ParseSubscript(NodePtr object) {
  NodePtr bounds[3];
  size_t colons = 0;
  while (!TakeSymbol("]")) {
    if (TakeSymbol(":")) {
      if (++colons > 2) return Unexpected("]");
      continue;
    }
    if (bounds[colons] != nullptr) return Unexpected("]");
    OSLER_ASSIGN_OR_RETURN(bounds[colons], ParseExpression());
  }
  if (colons == 0 && bounds[0] == nullptr) return Unexpected("an index");
  NodePtr node = Make(colons == 0 ? Op::kItem : Op::kSlice);
  if (colons == 0) OSLER_RETURN_IF_ERROR(CheckLoopMember(*object, *bounds[0]));
  node->children.push_back(std::move(object));
  for (size_t i = 0; i < (colons == 0 ? 1u : 3u); ++i)
    node->children.push_back(std::move(bounds[i]));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseFilter(NodePtr value) {
  NodePtr node = Wrap(Make(Op::kFilter), std::move(value));
  const std::string name = peek().text;
  if (peek().kind != Lex::kName) return Unexpected("the name of a filter");
  ++at_;
  if (TakeSymbol("(")) OSLER_RETURN_IF_ERROR(ParseArguments(*node));
  OSLER_RETURN_IF_ERROR(BindArguments(*node, name, /*is_filter=*/true));
  return node;
}

absl::StatusOr<NodePtr> Parser::ParseTest(NodePtr value) {
  NodePtr node = Make(Op::kTest);
  node->integer = TakeWord("not");
  if (peek().kind != Lex::kName || !IsAmong(kTests, peek().text)) {
    return SyntaxError(node->line, absl::StrCat("unknown test \"", peek().text, "\""));
  }
  node->text = peek().text;
  ++at_;
  return Wrap(std::move(node), std::move(value));
}

}  // namespace osler::jinja
