// The syntax tree of jinja.h, and the lexer below it. Internal to data/tokenizer/jinja_*.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace osler::jinja {

enum class Op {
  // Expressions.
  kString,   // text
  kInteger,  // integer
  kBool,     // integer
  kNone,
  kName,         // text
  kList,         // children
  kItem,         // children: object, key
  kSlice,        // children: object, first or null, last or null
  kStrip,        // integer: 1 left, 2 right, 3 both; children: object. Also the filter trim.
  kLength,       // children: object
  kTest,         // text, integer: 1 if negated; children: object
  kRaise,        // children: message
  kConditional,  // children: value, condition, otherwise or null
  kOr,
  kAnd,
  kNot,
  kCompare,  // text: the operator; children: left, right
  kBinary,   // text: + - * // % ~; children: left, right
  kNegate,
  // Statements.
  kData,   // text
  kPrint,  // children: value
  kIf,     // branches: condition (null for else) and body
  kFor,    // text: variable; children: sequence, filter or null; body
  kSet,    // text: variable; children: value
};

struct Node {
  Op op;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  std::vector<std::unique_ptr<Node>> children;
  std::vector<std::unique_ptr<Node>> body;
  struct Branch {
    std::unique_ptr<Node> condition;
    std::vector<std::unique_ptr<Node>> body;
  };
  std::vector<Branch> branches;
};

enum class Lex {
  kData,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kSymbol,
  kEnd
};

struct LexToken {
  Lex kind;
  std::string text;
  int line;
};

// The template as tokens, white space control applied. Ends with kEnd.
absl::StatusOr<std::vector<LexToken>> Tokenize(std::string_view source);

absl::Status SyntaxError(int line, std::string_view what);

}  // namespace osler::jinja
